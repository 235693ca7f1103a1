"""Keeps a report readable: of very many options, those alike are told together, the best of them with its figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.orchestrator.core.facts.explanation import Candidate

# Options of one deployment that are told one by one; more of them are grouped.
MOST_TOLD: Final = 120
# Lines of a report in the end; the last of them says how many are left out.
MOST_LINES: Final = 200


def grouped(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The candidates, best first; beyond `MOST_TOLD` one line for each variant, device class, kind and refusal."""
    if len(candidates) <= MOST_TOLD:
        return candidates
    for detail in (3, 2, 1):
        lines = _merged(candidates, detail)
        if len(lines) <= MOST_LINES:
            return lines
    kept, rest = lines[: MOST_LINES - 1], lines[MOST_LINES - 1 :]
    left_out = sum(line.alike for line in rest)
    return (*kept, replace(rest[0], alike=left_out, reason=f"and {left_out} more options, this one the best of them"))


def _merged(candidates: tuple[Candidate, ...], detail: int) -> tuple[Candidate, ...]:
    """One line for options that agree in the first so many of variant, device class, partition kind, and in refusal."""
    first: dict[tuple[str, ...], Candidate] = {}
    counts: dict[tuple[str, ...], int] = {}
    for candidate in candidates:
        names = (candidate.variant_id, candidate.device_class, candidate.partition_kind)
        key = (candidate.refusal, *names[:detail])
        first.setdefault(key, candidate)
        counts[key] = counts.get(key, 0) + candidate.alike
    return tuple(
        replace(line, alike=counts[key], reason=f"{line.reason} (and {counts[key] - 1} more like it)")
        if counts[key] > 1
        else line
        for key, line in first.items()
    )
