"""Which measurements are worth having: the winners of a rung, and the Pareto set of the whole. Pure.

Timings of one machine differ by a few per cent between runs, so that two figures closer than that count as equal; ties
go to the candidate that stands first in the plan, whatever order the measurements came in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Final

from services.compiler.search.core.facts import Candidate, Measured

# Medians of the same module differed by up to this between quiet runs on the reference machine.
NOISE: Final = 0.05
# Divergences below this are rounding of f32 and bf16; nobody can tell them apart in an answer.
KL_RESOLUTION_NATS: Final = 1e-4
# Relative errors of tensors below this are the order of additions in f32.
ERROR_RESOLUTION: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Beaten:
    """Who beats a candidate, by what."""

    recipe: str
    by: str
    words: str


def rung_winners(candidates: Sequence[Candidate], seen: Mapping[str, Measured]) -> dict[str, Beaten | None]:
    """Who goes on from a rung: in each precision, whoever is fastest in some function, and at most half of all.

    A precision never loses its last candidate here: what its rounding costs is seen on the whole model only.

    Args:
        candidates: in the plan's order.
        seen: measurements by recipe; candidates without one are left out.

    Returns:
        None for a winner, else who beats it, for each measured candidate.
    """
    ranked = [c for c in candidates if c.recipe in seen]
    groups = list(dict.fromkeys(c.precision for c in ranked))
    most = max(len(groups), -(-len(ranked) // 2))
    winners: list[str] = []
    for precision in groups:
        group = [c.recipe for c in ranked if c.precision == precision]
        winners += _fastest_in_some(group, seen)
    if len(winners) > most:
        winners = _cut(ranked, winners, seen, most)
    return {c.recipe: None if c.recipe in winners else _beaten(c, ranked, winners, seen) for c in ranked}


def pareto(candidates: Sequence[Candidate], seen: Mapping[str, Measured]) -> dict[str, Beaten | None]:
    """The Pareto set over time of each function, energy (or processor time), memory and divergence (or error).

    Returns:
        None for one that belongs to it, else who dominates it.
    """
    order = sorted((c.recipe for c in candidates if c.recipe in seen), key=lambda r: _mean_ms(seen[r]))
    kept: list[str] = []
    answer: dict[str, Beaten | None] = {}
    for recipe in order:
        by = next((other for other in kept if _dominates(_axes(seen[other]), _axes(seen[recipe]))), None)
        answer[recipe] = Beaten(recipe, by, _dominated_words(seen[by], seen[recipe], by)) if by else None
        if by is None:
            kept.append(recipe)
    return answer


def _fastest_in_some(group: Sequence[str], seen: Mapping[str, Measured]) -> list[str]:
    """A small set that holds, for each function, one whose time is the least but for noise."""
    chosen: list[str] = []
    for function in _functions(seen, group):
        least = min(seen[recipe].time_ms(function) for recipe in group)
        near = [recipe for recipe in group if seen[recipe].time_ms(function) <= least * (1 + NOISE)]
        if not any(recipe in chosen for recipe in near):
            chosen.append(near[0])
    return chosen or list(group[:1])


def _cut(ranked: Sequence[Candidate], winners: list[str], seen: Mapping[str, Measured], most: int) -> list[str]:
    """The fastest of the winners, but one of each precision."""
    order = sorted(winners, key=lambda recipe: _mean_ms(seen[recipe]))
    precision = {c.recipe: c.precision for c in ranked}
    first_of = {precision[recipe]: recipe for recipe in reversed(order)}
    kept = set(first_of.values())
    for recipe in order:
        if len(kept) < most:
            kept.add(recipe)
    return [recipe for recipe in winners if recipe in kept]


def _beaten(
    loser: Candidate, ranked: Sequence[Candidate], winners: Sequence[str], seen: Mapping[str, Measured]
) -> Beaten:
    rivals = [c.recipe for c in ranked if c.precision == loser.precision and c.recipe in winners]
    by = min(rivals, key=lambda recipe: _mean_ms(seen[recipe]))
    told = ", ".join(
        f"{function} {seen[loser.recipe].time_ms(function):.2f} ms against {seen[by].time_ms(function):.2f}"
        for function in _functions(seen, [by])
    )
    return Beaten(loser.recipe, by, f"{by} is faster in {loser.precision}: {told}")


def _dominated_words(one: Measured, other: Measured, by: str) -> str:
    better = [name for name, value in _axes(one).items() if value < _axes(other)[name] * (1 - NOISE)]
    told = ", ".join(f"{name} {_axes(other)[name]:.4g} against {_axes(one)[name]:.4g}" for name in better)
    return f"{by} is as good in everything and better in {told}"


def _dominates(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """At least as good on every axis but for noise, and better than noise on one."""
    return all(one[name] <= other[name] * (1 + NOISE) for name in other) and any(
        one[name] < other[name] * (1 - NOISE) for name in other
    )


def _axes(measured: Measured) -> dict[str, float]:
    axes = {f"{cost.function} ms": cost.time_ms for cost in measured.costs}
    energy_mj = sum(cost.energy_mj for cost in measured.costs)
    axes["energy mJ" if energy_mj else "CPU ms"] = energy_mj or sum(cost.cpu_ms for cost in measured.costs)
    axes["memory MiB"] = measured.memory_bytes / 2**20
    axes["KL nats"] = max(measured.kl_nats or 0.0, KL_RESOLUTION_NATS)
    axes["relative error"] = max(measured.relative_error or 0.0, ERROR_RESOLUTION)
    return axes


def _functions(seen: Mapping[str, Measured], recipes: Sequence[str]) -> list[str]:
    return sorted({cost.function for recipe in recipes for cost in seen[recipe].costs})


def _mean_ms(measured: Measured) -> float:
    """Geometric mean over the functions; 0 for one that was not timed."""
    times = [cost.time_ms for cost in measured.costs if cost.time_ms > 0]
    return exp(sum(map(log, times)) / len(times)) if times else 0.0
