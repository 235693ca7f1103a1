"""What a search tried, as a table: every candidate with its figures, what became of it and why."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Final

import typer
from rich.text import Text

from tradewind.cli.output import Output, lined, to_json
from tradewind.cli.session import Session
from tradewind.domain.units import show_bytes, show_ms
from tradewind.v1 import compiler_pb2

_ABOUT: Final = ("candidate", "precision", "fate", "tried on")
COLUMNS: Final = (*_ABOUT, "^prefill", "^decode", "^batch decode", "^KL nats")
# Of a model that maps tensors to tensors: its functions differ by batch and length alone.
TENSOR_COLUMNS: Final = (*_ABOUT, "^smallest call", "^largest call", "^error")
_KEPT: Final = compiler_pb2.CANDIDATE_FATE_KEPT
_NOT_TRIED: Final = (compiler_pb2.CANDIDATE_FATE_UNMEASURED, compiler_pb2.CANDIDATE_FATE_OVER_BUDGET)


def show_candidates(
    session: Session, model: Annotated[str, typer.Argument(metavar="MODEL", help="Model name or id.")]
) -> None:
    """Show the newest search of a model: every candidate, what became of it and why."""
    search = session.client.compiler.search(model)
    session.out.document({"search": to_json(search)})
    show_search(session.out, search)


def show_search(out: Output, search: compiler_pb2.Search) -> None:
    """Candidates by target, winners first, each with its reason."""
    for target, found in groupby(search.candidates, key=lambda candidate: candidate.target):
        candidates = sorted(found, key=lambda candidate: (candidate.fate != _KEPT, candidate.fate))
        kept = sum(candidate.fate == _KEPT for candidate in candidates)
        out.show(Text.assemble((target, "bold"), f"  {len(candidates)} candidates, {kept} kept"))
        columns, row = (TENSOR_COLUMNS, _tensor_row) if _of_tensors(candidates) else (COLUMNS, _row)
        out.show(*lined(columns, [row(c) for c in candidates], [_reason(c) for c in candidates]))
        out.show("")
    if search.HasField("chain"):
        out.show(f"chain: {' → '.join(search.chain.targets)}; a device takes the first that it can load")
    out.show(Text(f"searched for {search.spent_s:.0f} s of {search.budget_s:.0f} s", style="dim"))


def _row(candidate: compiler_pb2.RecipeCandidate) -> list[str | Text]:
    trial = _last_trial(candidate)
    kl = f"{trial.kl_divergence_nats:.1e}" if trial.HasField("kl_divergence_nats") else "–"
    return [*_about(candidate), *_times(trial.costs), kl]


def _tensor_row(candidate: compiler_pb2.RecipeCandidate) -> list[str | Text]:
    trial = _last_trial(candidate)
    times = [show_ms(cost.time_ms) for cost in trial.costs] or ["–"]
    error = f"{trial.relative_error:.1e}" if trial.HasField("relative_error") else "–"
    return [*_about(candidate), times[0], times[-1], error]


def _about(candidate: compiler_pb2.RecipeCandidate) -> list[str | Text]:
    layers = _last_trial(candidate).layers
    where = f"{layers} layers" if layers else "whole"
    return [candidate.recipe, candidate.precision, _fate(candidate.fate), where if candidate.trials else "–"]


def _last_trial(candidate: compiler_pb2.RecipeCandidate) -> compiler_pb2.CandidateTrial:
    return candidate.trials[-1] if candidate.trials else compiler_pb2.CandidateTrial()


def _of_tensors(candidates: Sequence[compiler_pb2.RecipeCandidate]) -> bool:
    return any(trial.HasField("relative_error") for candidate in candidates for trial in candidate.trials)


def _times(costs: Sequence[compiler_pb2.FunctionCost]) -> list[str]:
    """Of the longest prefill, of decode of one sequence, and of the widest decode."""
    prefills = [cost.time_ms for cost in costs if cost.function.startswith("prefill")]
    decodes = [cost.time_ms for cost in costs if cost.function.startswith("decode")]
    chosen = (prefills[-1:], decodes[:1], decodes[-1:] if len(decodes) > 1 else [])
    return [show_ms(times[0]) if times else "–" for times in chosen]


def _reason(candidate: compiler_pb2.RecipeCandidate) -> str:
    if candidate.fate != _KEPT or not candidate.trials:
        return candidate.reason
    trial = candidate.trials[-1]
    told = [candidate.reason, f"timed on {trial.measured_on}" if trial.measured_on else ""]
    told.append(show_bytes(trial.memory_bytes) if trial.memory_bytes else "")
    return ", ".join(filter(None, told))


def _fate(fate: int) -> Text:
    words = compiler_pb2.CandidateFate.Name(fate).removeprefix("CANDIDATE_FATE_").lower().replace("_", " ")  # type: ignore[arg-type]
    style = "green" if fate == _KEPT else "dim" if fate in _NOT_TRIED else "yellow"
    return Text(words, style=style)
