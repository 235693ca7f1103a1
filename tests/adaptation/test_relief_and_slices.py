"""Rollouts of layouts, power and relief: what serves is never destroyed, slices are waited for, danger is answered."""

from __future__ import annotations

from dataclasses import replace

from services.orchestrator.core.adaptation.alarm import Alarm, Danger
from services.orchestrator.core.adaptation.relief import NO_RELIEF, Relief, relief_for
from services.orchestrator.core.facts.blueprint import EMPTY, Blueprint, NodeLayout, Replica, child_of
from services.orchestrator.core.facts.fleet import (
    DEFAULT_POWER,
    Device,
    DeviceKind,
    Node,
    NodeState,
    Partition,
    PowerSetting,
    ReplicaReport,
    ReplicaState,
    SliceKind,
)
from services.orchestrator.core.facts.variant import Artifact
from services.orchestrator.core.rollout.rollout import STAND_BY_S, Intent, Rollout, RolloutMemory, roll_out

S = ReplicaState
GIB = 1 << 30
# Of an 80 GB board: 1g at any of seven places, 3g at two.
SMALL = SliceKind(19, "mig/1g.10gb", 10 * GIB, 1, 1, (0, 1, 2, 3, 4, 5, 6), 7)
HALF = SliceKind(9, "mig/3g.40gb", 40 * GIB, 3, 4, (0, 4), 2)
SLOW = PowerSetting(sm_clock_mhz=900)
EASED = PowerSetting(eased_sm_clock_mhz=900)


def piece(kind: SliceKind, start: int, uuid: str = "") -> Partition:
    return Partition(f"GPU-1:mig:{kind.profile_id}@{start}", "GPU-1", kind.kind, (), uuid)


def replica(name: str, partition: Partition, deployment: str = "chat", *, hold: bool = False) -> Replica:
    return Replica(name, deployment, "g1", "m", "v", Artifact("m", "d", 1), partition, 8, "gpu:test", GIB, hold)


OLD, KEPT = piece(SMALL, 0, "MIG-old"), piece(SMALL, 6, "MIG-kept")
NEW_LEFT, NEW_RIGHT = piece(HALF, 0), piece(HALF, 4)


def look(
    blueprint: Blueprint,
    states: dict[str, ReplicaState],
    made: tuple[Partition, ...],
    memory: RolloutMemory | None = None,
    now_s: float = 100.0,
    relief: Relief = NO_RELIEF,
    setting: PowerSetting = DEFAULT_POWER,
) -> Rollout:
    device = Device("GPU-1", "gpu:test", 80 * GIB, (), made, kind=DeviceKind.GPU, table=(HALF, SMALL), setting=setting)
    reports = tuple(ReplicaReport(name, state) for name, state in states.items())
    node = Node("g1", NodeState.ACTIVE, (device,), reports)
    return roll_out(blueprint, (node,), memory or RolloutMemory(), now_s, relief)


def told(rollout: Rollout) -> tuple[dict[str, str], list[str]]:
    (target,) = rollout.targets
    intents = {r.replica_id: str(intent) for r, intent in target.replicas}
    return intents, [p.partition_id.partition(":mig:")[2] for p in target.partitions]


def test_a_slice_in_use_stays_until_its_work_has_moved() -> None:
    new = replica("new", NEW_RIGHT, "other")
    old = replica("old", OLD, "other", hold=True)
    blueprint = child_of(EMPTY, (new,), (old,), (NodeLayout("g1", (NEW_LEFT, NEW_RIGHT), ()),))
    start = look(blueprint, {"old": S.READY}, (OLD,))
    assert told(start) == ({"old": "serve"}, ["19@0", "9@4"]), "what lies clear of it is made, the rest waits"
    made = (OLD, replace(NEW_RIGHT, uuid="MIG-right"))
    loading = look(blueprint, {"old": S.READY}, made)
    assert told(loading)[0] == {"old": "serve", "new": "serve"}
    (target,) = loading.targets
    assert {r.partition.uuid for r, _ in target.replicas} == {"MIG-old", "MIG-right"}, "on the slice as it was made"
    moved = look(blueprint, {"old": S.READY, "new": S.READY}, made)
    drained = look(blueprint, {"old": S.DRAINED, "new": S.READY}, made, moved.memory, 110.0)
    assert told(drained) == ({"new": "serve"}, ["9@0", "9@4"]), "only then the whole layout"


def test_work_that_can_come_only_in_the_place_of_its_own_old_replica_makes_room() -> None:
    new, old = replica("new", NEW_LEFT), replica("old", OLD, hold=True)
    blueprint = child_of(EMPTY, (new,), (old,), (NodeLayout("g1", (NEW_LEFT,), ()),))
    start = look(blueprint, {"old": S.READY}, (OLD,))
    drain = look(blueprint, {"old": S.READY}, (OLD,), start.memory, 110.0)
    assert told(drain)[0] == {"old": "drain"}, "no blueprint waits for itself for ever"
    gone = look(blueprint, {"old": S.DRAINED}, (OLD,), drain.memory, 120.0)
    assert told(gone) == ({}, ["9@0"])


def test_clocks_wait_for_what_is_on_its_way_out_and_danger_lifts_them() -> None:
    new, old = replica("new", KEPT), replica("old", OLD, hold=True)
    layout = NodeLayout("g1", (KEPT,), (("GPU-1", SLOW),))
    blueprint = child_of(EMPTY, (new,), (old,), (layout,))
    both = {"old": S.READY, "new": S.STARTING}
    (target,) = look(blueprint, both, (OLD, KEPT)).targets
    assert target.power_settings == (), "the old one was planned for the default"
    settled = child_of(EMPTY, (new,), (), (layout,))
    (target,) = look(settled, {"new": S.READY}, (KEPT,)).targets
    assert target.power_settings == (("GPU-1", SLOW),)
    danger = relief_for((Alarm("chat", Danger.QUEUE, 0.0, 100.0, ""),), frozenset())
    (target,) = look(settled, {"new": S.READY}, (KEPT,), relief=danger).targets
    assert target.power_settings == ()


def test_a_board_goes_on_easing_while_one_eased_replica_takes_the_place_of_another() -> None:
    new, old = replica("new", KEPT), replica("old", OLD, hold=True)
    layout = NodeLayout("g1", (KEPT,), (("GPU-1", EASED),))
    both, swapped = {"old": S.READY, "new": S.STARTING}, child_of(EMPTY, (new,), (old,), (layout,))
    (target,) = look(swapped, both, (OLD, KEPT), setting=EASED).targets
    assert target.power_settings == (("GPU-1", EASED),)
    (target,) = look(swapped, both, (OLD, KEPT)).targets
    assert target.power_settings == (), "what was not planned for easing serves at the full clock until its end"


def test_a_standby_is_kept_loaded_and_woken_by_danger() -> None:
    new, old = replica("new", KEPT), replica("old", OLD, hold=True)
    blueprint = child_of(EMPTY, (new,), (old,))
    on_trial = relief_for((), frozenset({"chat"}))
    memory = RolloutMemory((("old", 50.0),))
    states = {"old": S.DRAINED, "new": S.READY}
    waits = look(blueprint, states, (OLD, KEPT), memory, relief=on_trial)
    assert (told(waits)[0], waits.memory.gone) == ({"old": "drain", "new": "serve"}, ())
    danger = relief_for((Alarm("chat", Danger.TTFT, 0.0, 100.0, ""),), frozenset())
    woken = look(blueprint, states, (OLD, KEPT), memory, relief=danger)
    assert told(woken)[0] == {"old": "serve", "new": "serve"}
    late = look(blueprint, states, (OLD, KEPT), memory, 50.0 + STAND_BY_S, on_trial)
    assert late.memory.gone == ("old",), "not for ever"
    other = replica("other", OLD, "else")
    wanted = child_of(EMPTY, (new, other), (old,))
    assert look(wanted, states, (OLD, KEPT), memory, relief=on_trial).memory.gone == ("old",), "nor against others"


def test_slow_tokens_make_batches_smaller_and_a_queue_does_not() -> None:
    blueprint = child_of(EMPTY, (replica("new", KEPT),), ())
    slow = relief_for((Alarm("chat", Danger.TPOT, 0.0, 0.0, ""),), frozenset())
    assert look(blueprint, {"new": S.READY}, (KEPT,), relief=slow).limits == (("new", 6),)
    both = (Alarm("chat", Danger.TPOT, 0.0, 0.0, ""), Alarm("chat", Danger.QUEUE, 0.0, 0.0, ""))
    assert look(blueprint, {"new": S.READY}, (KEPT,), relief=relief_for(both, frozenset())).limits == ()
    assert all(intent is Intent.SERVE for t in look(blueprint, {}, (KEPT,)).targets for _, intent in t.replicas)
