"""A search in the contract's words, and a user's floor on variants. Pure but for the time of day in a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.compiler.search.core.facts import Measured, Trial
from tradewind.domain.errors import CompileFailed, WrongAnswer
from tradewind.domain.quality_floor import QualityFloor
from tradewind.v1 import compiler_pb2

if TYPE_CHECKING:
    from services.compiler.search.searching import SearchOrder, TargetSearch

_KEPT = compiler_pb2.CANDIDATE_FATE_KEPT


def floor_of(message: compiler_pb2.MinQuality) -> QualityFloor:
    """The floor of a request.

    Raises:
        ValueError: a limit that nothing can meet.
    """
    given = {name: getattr(message, name) for name in _FIELDS.values() if message.HasField(name)}  # type: ignore[arg-type]
    return QualityFloor(**{name: given.get(field) for name, field in _FIELDS.items()})


def message_of(floor: QualityFloor) -> compiler_pb2.MinQuality:
    """The floor as a request carries it."""
    return compiler_pb2.MinQuality(**{field: getattr(floor, name) for name, field in _FIELDS.items()})


_FIELDS = {
    "top1_least": "top1_agreement",
    "kl_most_nats": "kl_divergence_nats",
    "perplexity_increase_most": "perplexity_increase",
    "error_most": "relative_error",
}


def with_floor(variant: compiler_pb2.Variant, floor: QualityFloor) -> compiler_pb2.Variant:
    """The variant, rejected when the figures of its report are below the floor.

    The floor of the build that named a variant last is the one that holds.
    """
    if variant.state != compiler_pb2.VARIANT_STATE_ADMITTED or not floor.asks or not variant.HasField("quality"):
        return variant
    missed = _missed(floor, variant.quality)
    if not missed:
        return variant
    below = compiler_pb2.Variant()
    below.CopyFrom(variant)
    below.state = compiler_pb2.VARIANT_STATE_REJECTED
    below.state_reason = f"rejected on {_compared(variant.quality)}: below --min-quality: {missed}"
    return below


def _missed(floor: QualityFloor, quality: compiler_pb2.Quality) -> str:
    """What is missed in the figures of the model's kind: only a tensor model has no perplexity."""
    if not quality.perplexity:
        return floor.missed_by_tensors(quality.relative_error)
    increase = quality.perplexity / quality.reference_perplexity - 1
    return floor.missed(quality.top1_agreement, quality.kl_divergence_nats, increase)


def _compared(quality: compiler_pb2.Quality) -> str:
    return f"{quality.positions} positions of {quality.text}" if quality.text else f"{quality.positions} answers"


def rejected_where_it_ran(variant: compiler_pb2.Variant, error: CompileFailed | WrongAnswer) -> compiler_pb2.Variant:
    """The variant, rejected when a device answered wrongly with it; as it was when the device did not run it."""
    if isinstance(error, CompileFailed):
        return variant
    wrong = compiler_pb2.Variant()
    wrong.CopyFrom(variant)
    wrong.state, wrong.state_reason = compiler_pb2.VARIANT_STATE_REJECTED, f"rejected {error.message}"
    return wrong


def described_search(wanted: SearchOrder, searches: Sequence[TargetSearch], spent_s: float) -> compiler_pb2.Search:
    """The record of a search."""
    record = compiler_pb2.Search(
        search_id=wanted.search_id,
        model_id=wanted.first.model.model.model_id,
        targets=wanted.orders,
        budget_s=wanted.budget_s,
        spent_s=spent_s,
        candidates=[candidate for search in searches for candidate in _candidates(search)],
    )
    record.create_time.GetCurrentTime()
    if wanted.floor.asks:
        record.min_quality.CopyFrom(message_of(wanted.floor))
    if wanted.chain:
        record.chain.CopyFrom(_chain(list(wanted.orders), record.candidates))
    return record


def kept_of(search: compiler_pb2.Search) -> list[str]:
    """Ids of the variants of a search, those kept first."""
    built = [c for c in search.candidates if c.variant_id]
    return list(dict.fromkeys(c.variant_id for c in sorted(built, key=lambda c: c.fate != _KEPT)))


def _chain(targets: Sequence[str], candidates: Sequence[compiler_pb2.RecipeCandidate]) -> compiler_pb2.FallbackChain:
    """For each target the kept candidate that is fastest on the whole model; the first where none was timed."""
    chain = compiler_pb2.FallbackChain(targets=targets)
    for target in targets:
        kept = [c for c in candidates if c.target == target and c.fate == _KEPT and c.variant_id]
        if kept:
            chain.variant_ids.append(min(kept, key=_whole_ms).variant_id)
    return chain


def _whole_ms(candidate: compiler_pb2.RecipeCandidate) -> float:
    return sum(cost.time_ms for trial in candidate.trials if not trial.layers for cost in trial.costs)


def _candidates(search: TargetSearch) -> list[compiler_pb2.RecipeCandidate]:
    made = []
    for verdict in search.verdicts:
        trials = sorted(
            (trial for trial in search.trials if trial.recipe == verdict.recipe), key=lambda t: t.layers or 1 << 30
        )
        made.append(
            compiler_pb2.RecipeCandidate(
                target=search.target.name,
                recipe=verdict.recipe,
                precision=search.orders[verdict.recipe].recipe.precision,
                fate=compiler_pb2.CandidateFate.Value(f"CANDIDATE_FATE_{verdict.fate}"),
                reason=verdict.words,
                variant_id=next((trial.variant_id for trial in trials if trial.variant_id), ""),
                trials=[_trial(trial) for trial in trials],
            )
        )
    return made


def _trial(trial: Trial) -> compiler_pb2.CandidateTrial:
    measured = trial.measured or Measured()
    told = compiler_pb2.CandidateTrial(
        layers=trial.layers,
        spent_s=trial.spent_s,
        memory_bytes=measured.memory_bytes,
        kl_divergence_nats=measured.kl_nats,
        relative_error=measured.relative_error,
        measured_on=measured.where,
        reason=trial.words,
        costs=[
            compiler_pb2.FunctionCost(
                function=cost.function, time_ms=cost.time_ms, cpu_ms=cost.cpu_ms, energy_mj=cost.energy_mj
            )
            for cost in measured.costs
        ],
    )
    if trial.fate is not None:
        told.fate = compiler_pb2.CandidateFate.Value(f"CANDIDATE_FATE_{trial.fate}")
    return told
