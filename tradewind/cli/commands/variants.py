"""`tradewind variant build|list|show`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from tradewind.cli import words
from tradewind.cli.commands.models import CancelOnInterrupt, NoWait, show_started
from tradewind.cli.commands.variant_candidates import show_candidates, show_search
from tradewind.cli.commands.variant_explain import explain_variant
from tradewind.cli.lookup import find_variant
from tradewind.cli.output import Output, lined, to_json, to_json_list
from tradewind.cli.progress import follow
from tradewind.cli.session import Session, command
from tradewind.cli.wish import parsed
from tradewind.domain import units
from tradewind.domain.errors import RemoteError, ServiceUnavailable
from tradewind.domain.passes import PASSES
from tradewind.domain.quality_floor import quality_floor
from tradewind.v1 import compiler_pb2

COLUMNS = ("variant", "state", "^same top-1", "^KL nats", "^perplexity", "^memory", "^compile")

# States in which a build was of use: what runs elsewhere cannot be checked here.
_USEFUL = (compiler_pb2.VARIANT_STATE_ADMITTED, compiler_pb2.VARIANT_STATE_UNCHECKED)


def register(app: typer.Typer, panel: str) -> None:
    """Adds the group."""
    group = typer.Typer(help="Variants: compile a model in many ways, check the answers.", no_args_is_help=True)
    app.add_typer(group, name="variant", rich_help_panel=panel)
    command(group, "build")(build)
    command(group, "list")(list_variants)
    command(group, "show")(show_variant)
    command(group, "candidates")(show_candidates)
    command(group, "explain")(explain_variant)


def build(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model name or id.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", help='Such as cpu:host or cpu:host,cuda:sm_80; repeatable. Default "auto": what runs here.'
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", help="By name; repeatable. Default: a search finds them.")
    ] = None,
    context: Annotated[
        int, typer.Option("--context", min=0, help="Longest context in tokens; 0: recipe's choice.")
    ] = 0,
    prefill: Annotated[
        str, typer.Option("--prefill", help="Prompt tokens that prefill calls take, such as 128,512.")
    ] = "",
    batch: Annotated[str, typer.Option("--batch", help="Sequences that decode calls take, such as 1,4,8.")] = "",
    slots: Annotated[
        int, typer.Option("--slots", min=0, help="Sequences that the cache holds; 0: as many as the widest batch.")
    ] = 0,
    budget: Annotated[str, typer.Option("--budget", help="Time for the whole search, such as 5m.")] = "",
    min_quality: Annotated[
        str,
        typer.Option(
            "--min-quality", help="Beyond the thresholds: top1=0.97,kl=0.01,ppl=0.5%; of tensors, error=0.1%."
        ),
    ] = "",
    no_search: Annotated[
        bool, typer.Option("--no-search", help="Build the recipe book's choice, and try nothing else.")
    ] = False,
    chain: Annotated[
        bool, typer.Option("--chain", help="The targets are a fallback chain: a device takes the first it can load.")
    ] = False,
    no_wait: NoWait = False,
    cancel_on_interrupt: CancelOnInterrupt = False,
) -> None:
    """Compile variants of a model and compare their answers with the source framework's."""
    compiler = session.client.compiler
    search = not (recipe or no_search)
    operation = compiler.build_variants(
        model,
        targets=[name.strip() for names in target or () for name in names.split(",")],
        recipes=recipe or (),
        context_tokens=context,
        budget_s=round(parsed("--budget", budget, units.duration_s)) if budget else 0,
        search=search,
        chain=chain,
        floor=parsed("--min-quality", min_quality, quality_floor) if min_quality else None,
        prefill_chunks=parsed("--prefill", prefill, units.sizes),
        decode_batches=parsed("--batch", batch, units.sizes),
        slots=slots,
    )
    if no_wait:
        return show_started(session, operation.operation_id, {"operation": to_json(operation)})
    title = f"Building variants of {model}"
    operation = follow(session.out, compiler.operations, operation, title, cancel_on_interrupt=cancel_on_interrupt)
    built = [compiler.variant(variant_id) for variant_id in operation.result_ids]
    found = _search_of(session, model) if search else None
    told = {"search": to_json(found)} if found else {}
    session.out.document({"operation": to_json(operation), "variants": to_json_list(built), **told})
    if found:
        show_search(session.out, found)
    show_table(session.out, built)
    if any(v.state in _USEFUL for v in built):
        links = " --chain" if found and found.HasField("chain") else ""
        session.out.show(Text(f"next: tradewind profile run {model}{links}", style="dim"))
    else:
        session.out.note("[yellow]no variant was admitted[/]; the table says why")
        raise typer.Exit(1)
    return None


def _search_of(session: Session, model: str) -> compiler_pb2.Search | None:
    """The newest search of a model; none where its record is gone already."""
    try:
        return session.client.compiler.search(model)
    except RemoteError as error:
        if error.remote_reason != "NOT_FOUND":
            raise
        return None


def list_variants(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model name or id; all models when left out.")] = "",
) -> None:
    """List variants, admitted ones first."""
    variants = session.client.compiler.variants(model)
    session.out.document({"variants": to_json_list(variants)})
    show_table(session.out, variants)


def show_variant(
    session: Session,
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="Id, the beginning of its digest, or name.")],
    model: Annotated[str, typer.Option("--model", help="Look for the name in this model only.")] = "",
) -> None:
    """Show a variant: what was asked, what it was compiled for and where it has run, recipe, quality, files."""
    found = find_variant(session.client.compiler, variant, model)
    ran_on = _ran_on(session, found)
    session.out.document({"variant": to_json(found), "ran_on": ran_on})
    recipe, quality = found.recipe, found.quality
    session.out.show(
        Text.assemble(
            (found.name, "bold"), "  ", words.state(compiler_pb2.VariantState, found.state, "VARIANT_STATE_")
        ),
        Text(found.state_reason),
        Text(found.variant_id, style="dim"),
    )
    rows = [
        ["asked for", found.target],
        ["compiled for", found.compiled_target or found.target],
        ["ran on", ", ".join(ran_on) or "nothing yet"],
        ["precision", recipe.precision],
        ["compiler flags", " ".join(recipe.compiler_flags) or "those of the target"],
        ["tuning", ", ".join(recipe.tuning) or "the compiler's"],
        ["prefill chunks", _numbers(recipe.prefill_chunks)],
        ["decode batches", _numbers(recipe.decode_batches)],
        ["context buckets", _numbers(recipe.context_buckets)],
        ["slots", str(recipe.slots)],
        ["memory", units.show_bytes(found.memory_bytes)],
        ["compile time", units.show_ms(found.compile_s * 1e3)],
        ["built", words.age(found.create_time, time.time())],
    ]
    if found.HasField("quality") and not quality.perplexity:
        rows.append(["relative error", f"{quality.relative_error:.2g}, largest of {quality.positions} answers"])
    elif found.HasField("quality"):
        rows += [
            ["same top-1 token", f"{words.percent(quality.top1_agreement)} of {quality.positions} positions"],
            ["among top 5", words.percent(quality.top5_agreement)],
            ["KL divergence", f"{quality.kl_divergence_nats:.2e} nats"],
            ["perplexity", f"{quality.perplexity:.3f}, reference {quality.reference_perplexity:.3f}"],
            ["perplexity increase", _increase(quality)],
            ["largest logit error", f"{quality.max_logit_error:.3g}"],
            ["same greedy tokens", _greedy(quality)],
            ["text", quality.text],
        ]
    session.out.table(["", "…"], [[Text(a, style="dim"), words.plain(b)] for a, b in rows], "")
    passes: list[list[str | Text]] = [[name, PASSES.get(name, "")] for name in recipe.passes]
    session.out.table(["pass", "what it does…"], passes, "no passes")
    files = [[f.name, units.show_bytes(f.size_bytes), words.short(f.digest)] for f in found.files]
    session.out.table(["file", "^size", "digest"], files, "no files")


def _ran_on(session: Session, variant: compiler_pb2.Variant) -> list[str]:
    """Kinds of devices that the compiler had it run on, and classes of those that it was measured on."""
    try:
        profiles = session.client.profiler.profiles(variant_id=variant.variant_id)
    except ServiceUnavailable as error:
        session.out.note(f"where it was measured is not known: {error.message}")
        profiles = []
    measured = sorted({profile.point.device_class for profile in profiles})
    return list(dict.fromkeys((*variant.ran_on, *measured)))


def show_table(out: Output, variants: Sequence[compiler_pb2.Variant]) -> None:
    """Candidates with quality, state and reason."""
    if variants:
        out.show(*lined(COLUMNS, [_row(v) for v in variants], [v.state_reason for v in variants]))
    else:
        out.show("no variants yet; build some with `tradewind variant build MODEL`")


def _row(variant: compiler_pb2.Variant) -> list[str | Text]:
    # Figures of text; a tensor model has none, its reason says how near it is.
    quality, checked = variant.quality, variant.HasField("quality") and variant.quality.perplexity > 0
    return [
        variant.name,
        words.state(compiler_pb2.VariantState, variant.state, "VARIANT_STATE_"),
        words.percent(quality.top1_agreement) if checked else "–",
        f"{quality.kl_divergence_nats:.1e}" if checked else "–",
        f"{quality.perplexity:.2f}" if checked else "–",
        units.show_bytes(variant.memory_bytes) if variant.memory_bytes else "–",
        units.show_ms(variant.compile_s * 1e3) if variant.compile_s else "–",
    ]


def _increase(quality: compiler_pb2.Quality) -> str:
    """With its standard error, which a variant that was built by an earlier version does not tell."""
    increase = quality.perplexity / quality.reference_perplexity - 1
    error = quality.perplexity_increase_error
    return f"{increase:+.2%}" + (f" ± {error:.2%} (standard error)" if error else "")


def _greedy(quality: compiler_pb2.Quality) -> str:
    """How many, of how many; those of an earlier version do not tell."""
    if not quality.greedy_tokens:
        return str(quality.greedy_prefix_tokens)
    agreed = quality.greedy_agreed_tokens
    ties = f", {agreed} but for ties" if agreed > quality.greedy_prefix_tokens else ""
    return f"{quality.greedy_prefix_tokens} of {quality.greedy_tokens}{ties}"


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values)) or "–"
