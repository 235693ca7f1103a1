"""`tradewind model import|list|show`."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from tradewind.cli import words
from tradewind.cli.output import table_of, to_json, to_json_list
from tradewind.cli.progress import follow
from tradewind.cli.session import Session, command
from tradewind.cli.sources import default_name, source_path
from tradewind.domain.errors import InvalidField
from tradewind.domain.units import show_bytes, show_count
from tradewind.v1 import compiler_pb2

NoWait = Annotated[bool, typer.Option("--no-wait", help="Start it, print the operation, do not wait.")]
CancelOnInterrupt = Annotated[
    bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the work instead of leaving it running.")
]


def register(app: typer.Typer, panel: str) -> None:
    """Adds the group."""
    group = typer.Typer(help="Models: import and look at them.", no_args_is_help=True)
    app.add_typer(group, name="model", rich_help_panel=panel)
    command(group, "import")(import_model)
    command(group, "list")(list_models)
    command(group, "show")(show_model)


def import_model(
    session: Session,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Hugging Face folder, TensorFlow SavedModel folder, .gguf, .onnx, .keras, .mlir or .pt2 file, "
            "FOLDER::module:attribute for a PyTorch module, or package:NAME/FILE.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="Name to give it. Default: from the source's name.")] = "",
    model_format: Annotated[
        str,
        typer.Option(
            "--format", help="hugging_face, gguf, onnx, tensorflow, keras, pt2, pytorch or mlir. Default: detected."
        ),
    ] = "",
    trust: Annotated[
        bool, typer.Option("--trust", help="Let the source (.pt2, PyTorch module) run its own code, in the sandbox.")
    ] = False,
    no_wait: NoWait = False,
    cancel_on_interrupt: CancelOnInterrupt = False,
) -> None:
    """Import a model: check it, normalise its weights, keep its tokenizer."""
    client = session.client
    path = source_path(source, client.endpoints.compiler)
    name = name or default_name(source)
    operation = client.compiler.import_model(path, name, model_format=format_of(model_format), trust=trust)
    if no_wait:
        return show_started(session, operation.operation_id, {"operation": to_json(operation)})
    operation = follow(
        session.out,
        client.compiler.operations,
        operation,
        f"Importing {name}",
        cancel_on_interrupt=cancel_on_interrupt,
    )
    model = client.compiler.model(operation.result_ids[0] if operation.result_ids else name)
    session.out.document({"operation": to_json(operation), "model": to_json(model)})
    session.out.show(facts(model))
    session.out.show(Text(f"next: tradewind variant build {model.name}", style="dim"))
    return None


def list_models(session: Session) -> None:
    """List models, newest first."""
    models = session.client.compiler.models()
    session.out.document({"models": to_json_list(models)})
    rows = [
        [
            m.name,
            m.architecture,
            _enum(compiler_pb2.ModelFormat, m.format, "MODEL_FORMAT_"),
            show_count(m.parameter_count),
            f"{m.context_tokens}",
            words.age(m.create_time, time.time()),
            words.short(m.model_id),
        ]
        for m in models
    ]
    session.out.table(
        ["name", "architecture", "format", "^parameters", "^context", "^imported", "id"],
        rows,
        "no models yet; bring one with `tradewind model import SOURCE`",
    )


def show_model(session: Session, model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or id.")]) -> None:
    """Show a model and its files."""
    found = session.client.compiler.model(model)
    session.out.document({"model": to_json(found)})
    session.out.show(facts(found))
    rows = [[f.name, show_bytes(f.size_bytes), words.short(f.digest)] for f in found.files]
    session.out.table(["file", "^size", "digest"], rows, "no files for clients")


def facts(model: compiler_pb2.Model) -> Text:
    """What a model is, in two lines."""
    if model.task == compiler_pb2.MODEL_TASK_INFER:
        return _tensor_facts(model)
    return Text.from_markup(
        f"[bold]{words.plain(model.name)}[/]  {words.plain(model.architecture)}, "
        f"{show_count(model.parameter_count)} parameters, {model.layer_count} layers, hidden {model.hidden_size}, "
        f"vocabulary {model.vocabulary_size}, context {model.context_tokens}\n[dim]{model.model_id}[/]"
    )


def _tensor_facts(model: compiler_pb2.Model) -> Text:
    inputs, outputs = (
        ", ".join(f"{t.name} {t.dtype}{list(t.shape)}" for t in side) for side in (model.inputs, model.outputs)
    )
    return Text.from_markup(
        f"[bold]{words.plain(model.name)}[/]  {words.plain(model.architecture)}, "
        f"{show_count(model.parameter_count)} parameters, maps {words.plain(inputs)} to {words.plain(outputs)}\n"
        f"[dim]{model.model_id}[/]"
    )


def format_of(name: str) -> int:
    """A format by its name; 0 when empty.

    Raises:
        InvalidField: there is none of that name.
    """
    if not name:
        return 0
    names = [n.removeprefix("MODEL_FORMAT_").lower() for n in compiler_pb2.ModelFormat.keys()][1:]  # noqa: SIM118
    if name.lower() not in names:
        raise InvalidField("--format", f"{name!r} is no format; choose {', '.join(names)}")
    return compiler_pb2.ModelFormat.Value(f"MODEL_FORMAT_{name.upper()}")


def show_started(session: Session, operation_id: str, document: dict[str, object]) -> None:
    """What --no-wait prints."""
    session.out.document(document)
    session.out.show(
        table_of(["operation", "watch it with"], [[operation_id, f"tradewind operation watch {operation_id}"]])
    )


def _enum(kind: type[compiler_pb2.ModelFormat], value: compiler_pb2.ModelFormat.ValueType, prefix: str) -> str:
    return kind.Name(value).removeprefix(prefix).lower()
