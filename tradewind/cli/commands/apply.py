"""`tradewind apply -f`, `tradewind plan -f`: from one file, what is missing on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from tradewind.cli import words
from tradewind.cli.commands.deployments import show_placed
from tradewind.cli.commands.explain import show_explanation
from tradewind.cli.commands.models import format_of
from tradewind.cli.commands.variants import show_table
from tradewind.cli.easing import uneased
from tradewind.cli.lookup import chain_of, find_variant, newest_chain
from tradewind.cli.output import table_of, to_json
from tradewind.cli.placing import DEFAULT_WAIT_S, existing, place, unchanged
from tradewind.cli.progress import follow
from tradewind.cli.session import Session, command
from tradewind.cli.sources import source_path
from tradewind.cli.wish import parsed
from tradewind.client.tradewind import Tradewind
from tradewind.domain import units
from tradewind.domain.errors import InvalidField, RemoteError, VariantRejected
from tradewind.v1 import compiler_pb2, orchestrator_pb2

if TYPE_CHECKING:
    from tradewind.cli.declaration import Declaration
    from tradewind.cli.steps import Observed, Step

# The schema is imported by the functions that need it: building its checker would double every command's start.

FileOption = Annotated[Path, typer.Option("-f", "--file", help="Declaration; docs/cli.md has the schema.")]


def register(app: typer.Typer, panel: str) -> None:
    """Adds the commands."""
    command(app, "apply", rich_help_panel=panel)(apply)
    command(app, "plan", rich_help_panel=panel)(plan)


def apply(
    session: Session,
    file: FileOption = Path("-"),
    schema: Annotated[bool, typer.Option("--schema", help="Print the file's JSON Schema and stop.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it serves.")] = False,
) -> None:
    """Make it so: import, build, measure what is missing, then deploy. Applying twice changes nothing."""
    from tradewind.cli.steps import steps

    if schema:
        return _print_schema(session)
    declaration = _read(file)
    client, out = session.client, session.out
    done: list[str] = []
    for step in steps(declaration, observe(client, declaration)):
        if not step.needed:
            out.note(f"[dim]· {step.name}: {words.plain(step.why)}[/]")
            continue
        if step.name != "deployment":
            out.note(f"[bold]+[/] {step.name}: {words.plain(step.why)}")
            do_step(session, declaration, step, file)
            done.append(step.name)
    placed = place(
        client,
        declaration.deployment.name,
        _spec(client, declaration),
        allow_infeasible=declaration.deployment.allow_infeasible,
    )
    if placed.change == "unchanged" and not done:
        out.document({"change": "unchanged", "steps": [], "deployment": to_json(placed.deployment)})
        out.show(f"nothing to change; {words.plain(placed.deployment.name)} is as declared")
        return None
    wait_s = 0.0 if no_wait else DEFAULT_WAIT_S
    show_placed(session, placed, wait_s=wait_s, allow_infeasible=declaration.deployment.allow_infeasible)
    return None


def plan(session: Session, file: FileOption = Path("-")) -> None:
    """Show what apply would do, and the planner's report, without doing it."""
    from tradewind.cli.steps import steps

    declaration = _read(file)
    client, out = session.client, session.out
    todo = steps(declaration, observe(client, declaration))
    rows = [
        [Text("+" if s.needed else "·", style="bold green" if s.needed else "dim"), s.name, Text(s.why)] for s in todo
    ]
    out.show(table_of(["", "step", "what…"], rows))
    preview = orchestrator_pb2.PreviewPlanResponse()
    ready = not any(s.needed for s in todo if s.name != "deployment")
    if ready:
        spec = _spec(client, declaration)
        preview = client.orchestrator.preview(declaration.deployment.name, spec)
        for change in preview.changes:
            out.show(Text(f"  {change}"))
        show_explanation(out, preview.explanation, spec.slo)
    elif not out.json:
        out.show(Text("the planner's report needs these steps first", style="dim"))
    out.document({"steps": [_step_json(s) for s in todo], "preview": to_json(preview) if ready else None})


def observe(client: Tradewind, declaration: Declaration) -> Observed:
    """What there is of a declaration."""
    from tradewind.cli.steps import Observed

    try:
        model = client.compiler.model(declaration.model.name)
    except RemoteError as error:
        if error.remote_reason != "NOT_FOUND":
            raise
        return Observed(None)
    variants = client.compiler.variants(model.model_id)
    profiles = client.profiler.profiles(model.model_id)
    active = [n for n in client.orchestrator.nodes() if n.state == orchestrator_pb2.NODE_STATE_ACTIVE]
    slower = frozenset(variant_id for _, variant_id in uneased(profiles, active))
    found = existing(client.orchestrator, declaration.deployment.name)
    if not declaration.variants.chain:
        same = found is not None and unchanged(client, found, _spec(client, declaration))
        return Observed(model, variants, profiles, found, same, uneased=slower)
    chain = newest_chain(client.compiler, model.model_id)
    same = found is not None and bool(chain.variant_ids) and unchanged(client, found, _spec(client, declaration))
    fleet = {target for node in active for device in node.report.devices for target in device.targets}
    return Observed(model, variants, profiles, found, same, chain, frozenset(fleet), slower)


def do_step(session: Session, declaration: Declaration, step: Step, file: Path) -> None:
    """Imports, builds or measures what a declaration says, with progress.

    Raises:
        InvalidField: there is no such model and nobody said where its files are.
        VariantRejected: nothing that was built is admitted.
        NotFound: no link of a chain could be built.
        RemoteError: a service refuses.
    """
    client, out, name = session.client, session.out, declaration.model.name
    compiler, profiler = client.compiler, client.profiler
    if step.name == "model":
        part = declaration.model
        if not part.source:
            raise InvalidField("model.source", f"there is no model {name!r} yet; say where its files are")
        source = source_path(part.source, client.endpoints.compiler, file.absolute().parent)
        started = compiler.import_model(source, name, model_format=format_of(part.format), trust=part.trust)
        follow(out, compiler.operations, started, f"Importing {name}")
    elif step.name == "variants":
        wanted = declaration.variants
        budget_s = round(parsed("variants.budget", wanted.budget, units.duration_s)) if wanted.budget else 0
        started = compiler.build_variants(
            name,
            targets=wanted.targets,
            recipes=wanted.recipes,
            context_tokens=wanted.context_tokens,
            budget_s=budget_s,
            search=wanted.chain,
            chain=wanted.chain,
            prefill_chunks=wanted.sizes.prefill,
            decode_batches=wanted.sizes.batch,
            slots=wanted.sizes.slots,
        )
        follow(out, compiler.operations, started, f"Building variants of {name}")
        built = compiler.variants(name)
        show_table(out, built)
        if wanted.chain:
            chain_of(compiler, name)
        elif not any(v.state == compiler_pb2.VARIANT_STATE_ADMITTED for v in built):
            raise VariantRejected(f"no variant of {name} was admitted; `tradewind variant list {name}` says why")
    else:
        measure = declaration.profile
        started = profiler.run(
            name,
            variants=chain_of(compiler, name) if declaration.variants.chain else (),
            partition_kinds=measure.partition_kinds,
            prompt_tokens=measure.prompt_tokens,
            concurrencies=measure.concurrencies,
            nodes=measure.nodes,
            planned_clocks=measure.clocks == "auto",
        )
        follow(out, profiler.operations, started, f"Measuring {name}")


def _spec(client: Tradewind, declaration: Declaration) -> orchestrator_pb2.DeploymentSpec:
    from tradewind.cli.declaration import spec_of

    spec = spec_of(declaration)
    if pinned := declaration.deployment.variant:
        spec.pinned_variant_id = find_variant(client.compiler, pinned, declaration.model.name).variant_id
    if declaration.variants.chain:
        spec.chain_variant_ids.extend(chain_of(client.compiler, declaration.model.name))
    return spec


def _read(file: Path) -> Declaration:
    from tradewind.cli.declaration import read_declaration

    if file == Path("-"):
        raise InvalidField("-f", "name the declaration: -f deployment.yaml; deploy/examples/chat.yaml is one")
    return read_declaration(file)


def _print_schema(session: Session) -> None:
    from tradewind.cli.declaration import json_schema

    session.out.screen.print_json(data=json_schema())


def _step_json(step: Step) -> dict[str, Any]:
    return {"name": step.name, "needed": step.needed, "why": step.why}
