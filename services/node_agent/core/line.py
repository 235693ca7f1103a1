"""Which waiting prompt is taken in next, so that as many as possible get their first token in time. Pure.

First come, first served makes everybody late who comes behind a burst, until the line is empty again. Moore's algorithm
("An n job, one machine sequencing algorithm for minimizing the number of late jobs", Management Science 15(1), 1968)
makes the fewest late that can be: it goes through them by when they are due, and whenever one would be late it leaves
out the one so far that takes longest. What is left out comes after all others, oldest first, and nobody is passed over
for more than `PATIENCE` times the limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

# Limits after which one that was passed over goes first, late as it is.
PATIENCE: Final = 10.0
# Share of the limit that is reckoned with: a step is under way when a prompt comes, and times are estimates.
DUE_SHARE: Final = 0.95


class Waiting(NamedTuple):
    """A prompt in line.

    Attributes:
        arrived_s: when it came.
        takes_s: how long it keeps the device until the next one can begin.
    """

    arrived_s: float
    takes_s: float


def is_late(one: Waiting, limit_s: float, now_s: float) -> bool:
    """Whether it could not be in time even if it began now."""
    return now_s + one.takes_s > one.arrived_s + DUE_SHARE * limit_s


def first_in_line(line: Sequence[Waiting], limit_s: float, now_s: float) -> int:
    """Number of the one that goes next.

    Args:
        line: at least one, oldest first.
        limit_s: what a first token may take; infinite for first come, first served.
        now_s: by the clock of the arrivals.
    """
    if len(line) == 1 or math.isinf(limit_s) or now_s - line[0].arrived_s > PATIENCE * limit_s:
        return 0
    left_out, ends_s, longest = set[int](), now_s, list[tuple[float, int]]()
    for number, one in enumerate(line):
        if is_late(one, limit_s, now_s):
            left_out.add(number)
            continue
        ends_s += one.takes_s
        heappush(longest, (-one.takes_s, number))
        if ends_s > one.arrived_s + DUE_SHARE * limit_s:
            less_s, out = heappop(longest)
            ends_s += less_s
            left_out.add(out)
    return next((number for number in range(len(line)) if number not in left_out), 0)
