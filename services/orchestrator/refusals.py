"""Turns an infeasible explanation into the error that a caller gets. Pure."""

from __future__ import annotations

from typing import Final

from services.orchestrator.core.facts.explanation import Explanation, Refusal
from tradewind.domain.errors import ProfileMissing, SloInfeasible, TradewindError

# Refusals that say nothing about what could be had.
_ASIDE: Final = (Refusal.NOT_PINNED, Refusal.VARIANT_REJECTED)


def refusal_of(explanation: Explanation, model: str) -> TradewindError | None:
    """Why a wish is refused; None when it is met.

    Args:
        explanation: the planner's report.
        model: the model's name, for the hint.
    """
    if explanation.feasible:
        return None
    codes = [candidate.refusal for candidate in explanation.candidates if candidate.refusal not in _ASIDE]
    if codes and all(code == Refusal.NO_PROFILE for code in codes):
        hint = f"tradewind profile run {model}"
        reason = next(c.reason for c in explanation.candidates if c.refusal == Refusal.NO_PROFILE)
        return ProfileMissing(f"{reason}; run `{hint}`, then deploy again", {"hint": hint, "model": model})
    metadata, hardware = _metadata(explanation), " or ".join(explanation.nearest_hardware)
    others = metadata.keys() - {"binding_limit", "nearest_hardware"}
    words = [
        explanation.summary,
        f"More devices would do: {hardware}." if hardware else "",
        f"{'Ask for the nearest, or keep' if others else 'Keep'} the wish with allow_infeasible.",
    ]
    return SloInfeasible(" ".join(filter(None, words)), metadata)


def _metadata(explanation: Explanation) -> dict[str, str]:
    metadata = {"binding_limit": explanation.binding_limit}
    slo = explanation.nearest_slo
    if slo is not None:
        for limit in slo.latency:
            metadata[f"nearest_{limit.metric.lower()}_p{limit.percentile:g}_ms"] = f"{limit.limit_ms:g}"
        figures = {
            "nearest_energy_per_token_mj": slo.energy_per_token_mj,
            "nearest_power_mw": slo.power_mw,
            "nearest_min_top1_agreement": slo.min_top1_agreement,
            "nearest_max_perplexity_increase": slo.max_perplexity_increase,
            "nearest_availability": slo.availability,
        }
        metadata.update({name: f"{value:g}" for name, value in figures.items() if value is not None})
    if explanation.nearest_demand_requests_per_s is not None:
        metadata["nearest_requests_per_s"] = f"{explanation.nearest_demand_requests_per_s:g}"
    if explanation.nearest_hardware:
        metadata["nearest_hardware"] = ", ".join(explanation.nearest_hardware)
    return metadata
