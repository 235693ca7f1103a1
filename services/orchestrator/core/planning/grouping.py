"""Keeps a report readable: of very many options, those alike are told together, the best of them with its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from services.orchestrator.core.facts.explanation import Candidate

# Options of one deployment that are told one by one; more of them are grouped.
MOST_TOLD: Final = 120
# Lines of a report in the end; the last of them says how many are left out.
MOST_LINES: Final = 200


class Line(NamedTuple):
    """What tells options apart or makes them alike, and the line itself, which is only written when it is told.

    Attributes:
        write: the line, told for so many options alike.
    """

    names: tuple[str, str, str]
    refusal: str
    write: Callable[[int], Candidate]
    alike: int = 1


def grouped(lines: Sequence[Line]) -> tuple[Candidate, ...]:
    """The lines, best first; beyond `MOST_TOLD` one for each variant, device class, kind and refusal."""
    if len(lines) <= MOST_TOLD:
        return tuple(line.write(1) for line in lines)
    for detail in (3, 2, 1):
        firsts = _merged(lines, detail)
        if len(firsts) <= MOST_LINES:
            return tuple(line.write(line.alike) for line in firsts)
    kept, rest = firsts[: MOST_LINES - 1], firsts[MOST_LINES - 1 :]
    left_out = sum(line.alike for line in rest)
    last = replace(rest[0].write(left_out), reason=f"and {left_out} more options, this one the best of them")
    return (*(line.write(line.alike) for line in kept), last)


def _merged(lines: Sequence[Line], detail: int) -> tuple[Line, ...]:
    """One for options that agree in the first so many of variant, device class, partition kind, and in refusal."""
    first: dict[tuple[str, ...], Line] = {}
    counts: dict[tuple[str, ...], int] = {}
    for line in lines:
        key = (line.refusal, *line.names[:detail])
        first.setdefault(key, line)
        counts[key] = counts.get(key, 0) + line.alike
    return tuple(line._replace(alike=counts[key]) for key, line in first.items())


def more_alike(reason: str, alike: int) -> str:
    """A reason told for so many options."""
    return reason if alike <= 1 else f"{reason} (and {alike - 1} more like it)"
