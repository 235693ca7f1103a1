"""Who goes next: as many as possible in time, and nobody passed over for ever."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from services.node_agent.core.line import DUE_SHARE, PATIENCE, Waiting, first_in_line, is_late

LIMIT_S = 10.0


def in_time(order: list[Waiting], now_s: float) -> int:
    """How many of them begin their answers in time when taken in this order."""
    kept = 0
    for one in order:
        now_s += one.takes_s
        kept += now_s <= one.arrived_s + DUE_SHARE * LIMIT_S
    return kept


def taken(line: list[Waiting], now_s: float) -> list[Waiting]:
    """The order that the rule takes all of a line in."""
    left, order = list(line), list[Waiting]()
    while left:
        one = left.pop(first_in_line(left, LIMIT_S, now_s))
        order.append(one)
        now_s += one.takes_s
    return order


def test_without_danger_the_oldest_goes_first() -> None:
    line = [Waiting(0.0, 3.0), Waiting(1.0, 1.0), Waiting(2.0, 2.0)]
    assert taken(line, 2.0) == line


def test_the_longest_gives_way_when_somebody_would_be_late() -> None:
    line = [Waiting(0.0, 6.0), Waiting(1.0, 2.0), Waiting(1.5, 3.0)]
    assert taken(line, 2.0) == [line[1], line[2], line[0]]


def test_late_ones_come_last_and_oldest_first() -> None:
    line = [Waiting(-20.0, 1.0), Waiting(-15.0, 1.0), Waiting(0.0, 1.0)]
    assert taken(line, 1.0) == [line[2], line[0], line[1]]


def test_nobody_is_passed_over_beyond_patience() -> None:
    old, new = Waiting(0.0, 50.0), Waiting(PATIENCE * LIMIT_S, 1.0)
    assert first_in_line([old, new], LIMIT_S, PATIENCE * LIMIT_S) == 1
    assert first_in_line([old, new], LIMIT_S, PATIENCE * LIMIT_S + 0.1) == 0


def test_without_a_limit_it_is_first_come_first_served() -> None:
    assert first_in_line([Waiting(0.0, 9.0), Waiting(1.0, 1.0)], math.inf, 100.0) == 0


@pytest.mark.parametrize("seed", range(20))
def test_no_order_keeps_more_in_time(seed: int) -> None:
    draw = random.Random(seed)
    line = sorted(Waiting(draw.uniform(0.0, 5.0), draw.uniform(0.5, 6.0)) for _ in range(6))
    best = max(in_time(list(order), 5.0) for order in itertools.permutations(line))
    assert in_time(taken(line, 5.0), 5.0) == best


def test_late_for_certain_is_late_later_too() -> None:
    one = Waiting(0.0, 4.0)
    assert not is_late(one, LIMIT_S, 5.5)
    assert is_late(one, LIMIT_S, 5.6)
    assert is_late(one, LIMIT_S, 9.0)
