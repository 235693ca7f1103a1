"""Steps begin as late as their sequences' pace allows, and at once where one is behind."""

from __future__ import annotations

import math

import pytest

from services.node_agent.core.pacing import MOST_GONE, Pacer

PACE_S, STEP_S = 0.040, 0.010


def test_a_step_ends_when_the_token_is_due() -> None:
    pacer = Pacer(PACE_S)
    pacer.joins(1, 100.0)
    assert pacer.wait_s(STEP_S, 100.0) == pytest.approx(PACE_S - STEP_S)


def test_steps_are_no_more_than_a_pace_apart_although_nobody_is_behind() -> None:
    pacer = Pacer(PACE_S)
    pacer.joins(1, 100.0)
    for began_s in (100.010, 100.020, 100.030):
        pacer.stepped(began_s)
    assert pacer.wait_s(STEP_S, 100.040) == pytest.approx(100.030 + PACE_S - 100.040)


def test_who_is_behind_is_waited_for_by_nobody() -> None:
    pacer = Pacer(PACE_S)
    pacer.joins(1, 100.0)
    pacer.joins(2, 100.5)
    late_s = pacer.wait_s(STEP_S, 100.5)
    assert late_s == pytest.approx(PACE_S - STEP_S - 0.5)
    pacer.leaves(1)
    assert pacer.wait_s(STEP_S, 100.5) == pytest.approx(PACE_S - STEP_S)


def test_steps_at_once_catch_up() -> None:
    pacer = Pacer(PACE_S)
    pacer.joins(1, 100.0)
    now_s = 100.2
    while pacer.wait_s(STEP_S, now_s) < 0.0:
        pacer.stepped(now_s)
        now_s += STEP_S
    # 0.2 s are 5 paces; while a step takes a quarter of one, the debt is paid after less than twice as many.
    assert now_s < 100.2 + 10 * STEP_S
    assert pacer.wait_s(STEP_S, now_s) < PACE_S


def test_a_run_of_steps_counts_as_many() -> None:
    one, other = Pacer(PACE_S), Pacer(PACE_S)
    for pacer in (one, other):
        pacer.joins(1, 100.0)
    for k in range(5):
        one.stepped(100.0 + k * PACE_S)
    other.stepped(100.0 + 4 * PACE_S, 5)
    assert one.wait_s(STEP_S, 100.2) == other.wait_s(STEP_S, 100.2)


def test_nothing_to_decode_may_wait_for_ever_and_no_pace_never() -> None:
    pacer = Pacer(PACE_S)
    assert pacer.wait_s(STEP_S, 100.0) == math.inf
    pacer.joins(1, 100.0)
    pacer.leaves(1)
    pacer.leaves(2)
    assert pacer.wait_s(STEP_S, 100.0) == math.inf
    unpaced = Pacer()
    unpaced.joins(1, 100.0)
    assert unpaced.wait_s(STEP_S, 100.0) == 0.0


def test_who_is_gone_is_forgotten_although_somebody_is_always_there() -> None:
    pacer = Pacer(PACE_S)
    for sequence_id in range(10 * MOST_GONE):
        pacer.joins(sequence_id, 100.0 + 0.001 * sequence_id)
        pacer.stepped(100.0 + 0.001 * sequence_id)
        pacer.leaves(sequence_id - 1)
    assert len(pacer._due) <= MOST_GONE + 4
    assert pacer.wait_s(STEP_S, 100.0 + 0.640) == pytest.approx(0.639 + PACE_S - 0.640)


def test_a_new_pace_counts_from_now_on() -> None:
    pacer = Pacer(PACE_S)
    pacer.joins(1, 100.0)
    pacer.stepped(100.0)
    pacer.repace(0.080, 101.0)
    assert pacer.wait_s(STEP_S, 101.0) == pytest.approx(100.0 + 0.080 - 101.0)
    pacer.stepped(101.0)
    assert pacer.wait_s(STEP_S, 101.0) == pytest.approx(0.080)
