"""Rollouts walked with agents that are slow, fail, restart, and whose reports are lost, late and repeated."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from services.orchestrator.core.facts.blueprint import Blueprint, Replica, child_of
from services.orchestrator.core.facts.fleet import NodeState, Partition, ReplicaReport, ReplicaState
from services.orchestrator.core.facts.variant import Artifact
from services.orchestrator.core.rollout.rollout import ROUTE_SETTLE_S, Intent, Rollout, RolloutMemory, roll_out
from tests.orchestrator.worlds import node

S = ReplicaState


def replica(name: str, cores: tuple[int, ...], deployment: str = "chat", *, hold: bool = False) -> Replica:
    partition = Partition(f"cpu0:{cores}", "cpu0", f"cpu/{len(cores)}", cores)
    return Replica(name, deployment, "n1", "m", "v", Artifact("m", "d", 1), partition, 1, "cpu:test", 1, hold)


OLD = replica("old", (0,))
NEW = replica("new", (0, 1))
FIRST = child_of(Blueprint("", 0, ""), (OLD,), ())
SWAP = child_of(FIRST, (NEW,), (replace(OLD, hold=True),))


def look(
    blueprint: Blueprint, states: dict[str, ReplicaState], memory: RolloutMemory | None = None, now_s: float = 100.0
) -> Rollout:
    reports = tuple(ReplicaReport(name, state) for name, state in states.items())
    return roll_out(blueprint, (node(replicas=reports),), memory or RolloutMemory(), now_s)


def intents(rollout: Rollout) -> dict[str, str]:
    return {r.replica_id: str(intent) for target in rollout.targets for r, intent in target.replicas}


def routed(rollout: Rollout, deployment: str = "chat") -> list[str]:
    return [r.replica_id for r in dict(rollout.routes)[deployment]]


def test_the_steps_of_a_swap() -> None:
    start = look(SWAP, {"old": S.READY})
    assert (intents(start), routed(start)) == ({"old": "serve", "new": "serve"}, ["old"])
    both = look(SWAP, {"old": S.READY, "new": S.STARTING})
    assert routed(both) == ["old"]
    moved = look(SWAP, {"old": S.READY, "new": S.READY})
    assert (intents(moved), routed(moved)) == ({"old": "serve", "new": "serve"}, ["new"]), "routes first"
    soon = look(SWAP, {"old": S.READY, "new": S.READY}, moved.memory, 100.0 + ROUTE_SETTLE_S / 2)
    assert intents(soon)["old"] == "serve"
    drain = look(SWAP, {"old": S.READY, "new": S.READY}, soon.memory, 100.0 + ROUTE_SETTLE_S)
    assert intents(drain)["old"] == "drain", "then the drain"
    busy = look(SWAP, {"old": S.DRAINING, "new": S.READY}, drain.memory, 110.0)
    assert intents(busy)["old"] == "drain"
    done = look(SWAP, {"old": S.DRAINED, "new": S.READY}, busy.memory, 120.0)
    assert (intents(done), done.memory.gone) == ({"new": "serve"}, ("old",))
    assert "old" not in intents(look(SWAP, {"new": S.FAILED}, done.memory, 130.0)), "what has ended stays ended"


@pytest.mark.parametrize("state", [None, S.FETCHING, S.STARTING, S.FAILED, S.STOPPING])
def test_a_new_replica_that_is_not_ready_takes_nothing_away(state: ReplicaState | None) -> None:
    states = {"old": S.READY} | ({"new": state} if state else {})
    rollout = look(SWAP, states, now_s=10_000.0)
    assert (intents(rollout)["old"], routed(rollout)) == ("serve", ["old"])


def test_an_old_one_already_draining_comes_back_when_the_new_one_dies() -> None:
    rollout = look(SWAP, {"old": S.DRAINING, "new": S.FAILED}, RolloutMemory((("old", 1.0),)), 100.0)
    assert intents(rollout)["old"] == "serve"


def test_all_new_ones_must_be_ready() -> None:
    two = child_of(FIRST, (NEW, replica("new2", (2, 3))), (replace(OLD, hold=True),))
    rollout = look(two, {"old": S.READY, "new": S.READY, "new2": S.STARTING})
    assert intents(rollout)["old"] == "serve"
    assert routed(rollout) == ["new", "old"], "both serve meanwhile"


def test_a_deleted_deployment_drains_at_once() -> None:
    gone = child_of(FIRST, (), (replace(OLD, hold=False),))
    first = look(gone, {"old": S.READY})
    assert routed(first) == []
    assert intents(look(gone, {"old": S.READY}, first.memory, 101.0)) == {"old": "drain"}


def test_a_newcomer_waits_for_cores_of_another_deployment() -> None:
    other = replica("other", (0,), "second")
    blueprint = child_of(FIRST, (other,), (replace(OLD, hold=False),))
    waiting = look(blueprint, {"old": S.DRAINING})
    assert "other" not in intents(waiting)
    assert "other" in intents(look(blueprint, {}, waiting.memory))


def test_a_lost_node_says_nothing() -> None:
    lost = node(state=NodeState.LOST, replicas=(ReplicaReport("new", S.READY), ReplicaReport("old", S.READY)))
    rollout = roll_out(SWAP, (lost,), RolloutMemory(), 100.0)
    assert routed(rollout) == []
    assert intents(rollout) == {"old": "serve", "new": "serve"}


class Walk:
    """One node with random luck; the orchestrator sees reports late, twice or never."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.states: dict[str, ReplicaState] = {"old": S.READY}
        self.reports: list[tuple[ReplicaReport, ...]] = [self.report()]
        self.seen = self.reports[0]
        self.target: dict[str, Intent] = {"old": Intent.SERVE}

    def report(self) -> tuple[ReplicaReport, ...]:
        return tuple(ReplicaReport(name, state) for name, state in sorted(self.states.items()))

    def agent(self, *, may_fail: bool) -> None:
        """The agent takes a step; READY replicas never fail by themselves here, new ones may."""
        for name in [n for n in self.states if n not in self.target]:
            del self.states[name]
        for name, intent in self.target.items():
            state = self.states.get(name)
            if state is None:
                self.states[name] = S.FETCHING
            elif self.rng.random() < 0.5:
                self.states[name] = self.after(state, intent, may_fail=may_fail and name != "old")

    def after(self, state: ReplicaState, intent: Intent, *, may_fail: bool) -> ReplicaState:
        if may_fail and state in (S.FETCHING, S.STARTING) and self.rng.random() < 0.3:
            return S.FAILED
        if intent is Intent.DRAIN:
            return {S.READY: S.DRAINING, S.DRAINING: S.DRAINED}.get(state, state)
        return {
            S.FETCHING: S.STARTING,
            S.STARTING: S.READY,
            S.FAILED: S.FETCHING,
            S.DRAINING: S.READY,
            S.DRAINED: S.READY,
        }.get(state, state)

    def deliver(self) -> None:
        """Reports go up in order, but some are lost and some come again."""
        self.reports.append(self.report())
        if self.rng.random() < 0.6:
            self.seen = self.reports[-1] if self.rng.random() < 0.7 else self.seen


@pytest.mark.parametrize("seed", range(150))
def test_there_is_always_a_ready_replica_and_the_swap_ends(seed: int) -> None:
    walk, memory, now_s = Walk(seed), RolloutMemory(), 0.0
    for turn in range(400):
        now_s += walk.rng.choice([0.1, 0.5, 2.0])
        rollout = roll_out(SWAP, (node(replicas=walk.seen),), memory, now_s)
        memory = rollout.memory
        if walk.rng.random() < 0.8:
            walk.target = {r.replica_id: i for t in rollout.targets for r, i in t.replicas}
        # Failures stop at some time, else the swap need not end.
        walk.agent(may_fail=turn < 200)
        walk.deliver()
        ready = [name for name, state in walk.states.items() if state is S.READY]
        assert ready, f"turn {turn}: {walk.states}"
        for name in dict(rollout.routes)["chat"]:
            assert name.replica_id in ("old", "new")
    assert walk.states == {"new": S.READY}
