"""Which of its two clocks a board runs at: pressed by either limit, by a crowd, and not to and fro."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from services.node_agent.core.easing import Easing, calm_since, shall_ease
from services.node_agent.core.governor import DWELL_S, Limits, Work, may_ease, needs_full_clock
from services.node_agent.core.in_hand import Paces, work_of
from services.node_agent.core.pace import Pace
from services.node_agent.core.schedule import Policy, Prefill, Progress, complete, empty, step, submit
from services.node_agent.core.target import ReplicaSpec
from services.node_agent.wire import setting_message, setting_of, target_of
from tests.node_agent.cache_model import shapes
from tradewind.v1 import common_pb2, node_pb2

LIMITS = Limits(ttft_s=1.0, tpot_s=0.05)
# A hundred tokens of prompt, a tenth of a second of work, beside decode steps of 10 ms.
WORK = Work(prompt_tokens=100, prefill_token_s=0.001, chunk_tokens=10, step_s=0.01)


@pytest.mark.parametrize(
    ("work", "limits", "eases"),
    [
        (Work(), LIMITS, True),
        (WORK, LIMITS, True),
        (WORK, Limits(), True),
        (replace(WORK, oldest_wait_s=0.4), LIMITS, False),
        (replace(WORK, prompt_tokens=400), LIMITS, False),
        (replace(WORK, crowded=True), LIMITS, False),
        (replace(WORK, step_s=0.03), LIMITS, False),
        (replace(WORK, chunk_tokens=40), LIMITS, False),
        # Without prompts in between, the same step is fast enough.
        (Work(step_s=0.025, prefill_token_s=0.001, chunk_tokens=40), LIMITS, True),
        (replace(WORK, oldest_wait_s=0.4), replace(LIMITS, ttft_s=math.inf), True),
    ],
)
def test_it_eases_only_while_both_limits_are_kept_with_room(work: Work, limits: Limits, eases: bool) -> None:
    assert may_ease(work, limits, 1.5) is eases


def test_one_replica_that_needs_it_takes_the_whole_board_up() -> None:
    calm, pressed = (WORK, LIMITS), (replace(WORK, oldest_wait_s=0.4), LIMITS)
    assert not needs_full_clock([], 2.0)
    assert not needs_full_clock([calm, calm], 1.5)
    assert needs_full_clock([calm, pressed], 1.5)


def test_times_seen_at_the_eased_clock_count_as_they_are() -> None:
    assert (Easing(1980, 990, False).slower, Easing(1980, 990, True).slower) == (2.0, 1.0)


def test_it_goes_down_only_after_a_while_without_need() -> None:
    since_s = calm_since(None, needs_full=False, now_s=10.0)
    assert not shall_ease(since_s, 10.0)
    since_s = calm_since(since_s, needs_full=False, now_s=10.4)
    assert not shall_ease(since_s, 10.4)
    since_s = calm_since(since_s, needs_full=True, now_s=10.45)
    assert not shall_ease(since_s, 10.45 + DWELL_S), "the while begins anew"
    since_s = calm_since(since_s, needs_full=False, now_s=10.5)
    assert shall_ease(since_s, 10.5 + DWELL_S)


def test_paces_weigh_steps_by_what_they_did_and_fade() -> None:
    pace = Pace()
    assert pace.each_s == 0.0
    pace.saw(0.1, 100)
    pace.saw(0.01, 1)
    assert pace.each_s == pytest.approx(0.11 / 101, rel=0.1), "a short rest of a prompt does not count as a whole"
    for _ in range(60):
        pace.saw(0.2, 100)
    assert pace.each_s == pytest.approx(0.002, rel=0.01)


def test_a_schedule_tells_what_it_has_in_hand() -> None:
    of, policy = shapes(slots=2), Policy(interleaved_chunk_tokens=8)
    state, paces = empty(of), Paces()
    paces.prefill.saw(0.02, 10)
    paces.decode.saw(0.01, 1)
    assert work_of(state, of, policy, paces, {}, 5.0) == Work(0, 0.0, False, 0.002, 16, 0.0)
    for sequence_id in (1, 2, 3):
        state = submit(state, Progress(sequence_id, 20, 4), policy)
    arrived_s = {1: 1.0, 2: 2.0, 3: 3.0}
    assert work_of(state, of, policy, paces, arrived_s, 5.0) == Work(60, 4.0, True, 0.002, 16, 0.0)
    while any(one is None or not one.decoding for one in state.slots[:1]):
        state, action = step(state, of, policy)
        assert isinstance(action, Prefill)
        state = complete(state, action, (), policy)
    assert work_of(state, of, policy, paces, arrived_s, 5.0) == Work(40, 3.0, True, 0.002, 4, 0.01)


def test_limits_and_the_eased_clock_come_over_the_wire_and_need_no_new_process() -> None:
    message = node_pb2.NodeTarget(
        node_id="n",
        replicas=[
            node_pb2.ReplicaSpec(replica_id="a", intent=node_pb2.REPLICA_INTENT_SERVE, ttft_limit_ms=250),
            node_pb2.ReplicaSpec(replica_id="b", intent=node_pb2.REPLICA_INTENT_SERVE, tpot_limit_ms=40),
        ],
        power_settings={"GPU-0": common_pb2.PowerSetting(eased_sm_clock_mhz=990)},
    )
    target = target_of(message)
    assert [replica.limits for replica in target.replicas] == [Limits(ttft_s=0.25), Limits(tpot_s=0.04)]
    first: ReplicaSpec = target.replicas[0]
    assert replace(first, limits=Limits()).process == first.process
    ((_, setting),) = target.power
    assert (setting.clock_mhz, setting.eased_clock_mhz) == (None, 990)
    assert setting_of(setting_message(setting)) == setting
