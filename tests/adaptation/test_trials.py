"""Trials: each kind of change is held against what it brought, and goes back as narrowly as it was made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.orchestrator.core.adaptation.adapt import Memory
from services.orchestrator.core.adaptation.hold import Hold, held_to
from services.orchestrator.core.adaptation.trial import (
    MOST_TRIAL_S,
    ROLLED_BACK_S,
    TRIAL_S,
    Change,
    Outcome,
    Trial,
    begin,
    judge,
)
from services.orchestrator.core.facts.blueprint import EMPTY, Blueprint, NodeLayout, Replica, child_of
from services.orchestrator.core.facts.catalog import Quarantine
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, Node, Partition, PowerSetting
from services.orchestrator.core.facts.traffic import WINDOW_S, Window
from services.orchestrator.core.facts.variant import Artifact
from services.orchestrator.core.facts.wish import Spread
from services.orchestrator.core.memo import from_text, to_text
from tests.adaptation.house import House
from tests.orchestrator.worlds import CPU, node, ready, slo, wish

WISH = wish(rate=4.0, slo=slo(ttft=400))
LOW = PowerSetting(sm_clock_mhz=900)


def replica(name: str, on: str = "n1", *, variant: str = "fast", kind: str = "cpu/1") -> Replica:
    return Replica(
        name, "d-chat", on, "m", variant, Artifact("m", "d", 1), Partition(f"{on}:{name}", "cpu0", kind), 4, CPU
    )


def plan(*replicas: Replica, power: PowerSetting = DEFAULT_POWER) -> Blueprint:
    names = sorted({r.node_id for r in replicas})
    layouts = tuple(NodeLayout(name, (), (("cpu0", power),)) for name in names) if power != DEFAULT_POWER else ()
    return child_of(EMPTY, replicas, (), layouts)


OLD = plan(replica("a"), replica("b", "n2"))
NEW = {
    Change.SWAP: plan(replica("c", variant="lean"), replica("d", "n2", variant="lean")),
    Change.REPARTITION: plan(replica("c", kind="cpu/2"), replica("d", "n2", kind="cpu/2")),
    Change.POWER: plan(replica("a"), replica("b", "n2"), power=LOW),
    Change.FEWER: plan(replica("a")),
    Change.MORE: plan(replica("a"), replica("b", "n2"), replica("c", "n2")),
    Change.CONSOLIDATION: plan(replica("a"), replica("c", "n1")),
}
CHANGES = sorted(NEW)


def windows(to_s: float, seconds: float, *, within: float = 1.0, per_s: float = 4.0) -> tuple[Window, ...]:
    """Windows until a time, with this share of requests in time."""
    count = int(per_s * WINDOW_S)
    return tuple(
        Window(
            to_s - seconds + n * WINDOW_S, arrivals=count, finished=count, judged=count, within=int(within * count),
            ttft_within=int(within * count), tpot_within=count,
        )
        for n in range(int(seconds / WINDOW_S))
    )  # fmt: skip


def running(blueprint: Blueprint) -> tuple[Node, ...]:
    return tuple(
        node(name, replicas=tuple(ready(r.replica_id) for r in blueprint.replicas if r.node_id == name))
        for name in ("n1", "n2")
    )


def power_of(blueprint: Blueprint, mw: float) -> dict[tuple[str, str], float]:
    return dict.fromkeys(((name, "cpu0") for name in ("n1", "n2")), mw / 2.0)


def begun(change: Change, *, saving: bool = True, predicted_mw: float | None = -5_000.0) -> Trial:
    trial = begin(
        WISH, OLD, NEW[change], windows(0.0, 60.0), power_of(OLD, 100_000.0), predicted_mw, 0.0, saving=saving
    )
    assert trial is not None and trial.change is change
    settled = judge(trial, WISH, NEW[change], running(NEW[change]), (), {}, 10.0)
    assert isinstance(settled, Trial) and settled.settled_s == 10.0
    return settled


def judged(
    trial: Trial, passed_s: float, mw: float = 100_000.0, *, within: float = 1.0, per_s: float = 4.0
) -> Trial | Outcome:
    now_s = 10.0 + passed_s
    new = NEW[trial.change]
    seen = windows(now_s, min(passed_s, 120.0), within=within, per_s=per_s)
    return judge(trial, WISH, new, running(new), seen, power_of(new, mw), now_s)


def taken_back(outcome: Trial | Outcome) -> tuple[object, ...]:
    """What keeps a change from being tried again, without reasons."""
    assert isinstance(outcome, Outcome) and (outcome.quarantine or outcome.hold)
    assert all(0.0 < q.until_s - ROLLED_BACK_S <= MOST_TRIAL_S for q in outcome.quarantine)
    hold = outcome.hold
    found = {(q.variant_id, q.device_class, q.partition_kind, q.power) for q in outcome.quarantine}
    return (*sorted(found, key=repr), *([(hold.least, hold.nodes, hold.most)] if hold else []))


BACK = {
    Change.SWAP: (("lean", CPU, "", None),),
    Change.REPARTITION: (("fast", CPU, "cpu/2", None),),
    Change.POWER: (("fast", CPU, "cpu/1", LOW),),
    Change.FEWER: ((2, 0, 0),),
    Change.MORE: ((0, 0, 2),),
    Change.CONSOLIDATION: ((2, 2, 0),),
}


@pytest.mark.parametrize("change", CHANGES)
def test_limits_that_broke_through_it_take_it_back_at_once(change: Change) -> None:
    outcome = judged(begun(change), 30.0, within=0.5)
    assert taken_back(outcome) == BACK[change]
    assert isinstance(outcome, Outcome) and "limits broken" in outcome.words and "50.0%" in outcome.words


@pytest.mark.parametrize("change", CHANGES)
def test_power_that_rose_where_a_saving_was_promised_takes_it_back(change: Change) -> None:
    trial = begun(change)
    assert isinstance(judged(trial, TRIAL_S - 10.0, 150_000.0), Trial), "meters need two minutes"
    outcome = judged(trial, TRIAL_S, 150_000.0)
    assert taken_back(outcome) == BACK[change]
    assert isinstance(outcome, Outcome) and "-5000 mW were promised, +5e+04 mW were seen" in outcome.words
    assert isinstance(judged(trial, TRIAL_S, 150_000.0, per_s=8.0), Outcome)
    assert not taken(judged(trial, TRIAL_S, 150_000.0, per_s=8.0)), "another load cannot be compared"
    assert not taken(judged(trial, TRIAL_S, 105_000.0)), "noise"


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_no_worse_stays_and_says_what_it_brought(change: Change) -> None:
    outcome = judged(begun(change), TRIAL_S, 80_000.0)
    assert not taken(outcome)
    assert isinstance(outcome, Outcome)
    assert outcome.words.startswith(f"the {change} stays: -5000 mW were promised, -2e+04 mW were seen")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_for_danger_is_not_taken_back_by_power(change: Change) -> None:
    trial = begin(WISH, OLD, NEW[change], windows(0.0, 60.0), power_of(OLD, 100_000.0), -5_000.0, 0.0)
    assert (trial is None) == (change is not Change.SWAP)
    if trial is not None:
        assert not taken(judged(replace(trial, settled_s=10.0), TRIAL_S, 150_000.0))


@pytest.mark.parametrize("change", [c for c in CHANGES if c is not Change.SWAP])
def test_limits_that_a_greater_load_breaks_are_not_its_fault(change: Change) -> None:
    assert isinstance(judged(begun(change), 30.0, within=0.5, per_s=8.0), Trial)


def test_a_danger_at_no_greater_load_takes_fewer_replicas_back_before_limits_are_judged() -> None:
    trial = begun(Change.FEWER)
    again = judge(trial, WISH, OLD, running(OLD), windows(40.0, 30.0), {}, 40.0, alarmed=True)
    assert taken_back(again) == BACK[Change.FEWER]
    calm = judge(trial, WISH, OLD, running(OLD), windows(40.0, 30.0), {}, 40.0)
    busy = judge(trial, WISH, OLD, running(OLD), windows(40.0, 30.0, per_s=9.0), {}, 40.0, alarmed=True)
    assert not taken(calm) and not taken(busy)


def test_without_meters_power_is_not_judged_and_says_so() -> None:
    trial = begin(WISH, OLD, NEW[Change.POWER], windows(0.0, 60.0), {}, -5_000.0, 0.0, saving=True)
    assert trial is not None
    outcome = judged(replace(trial, settled_s=10.0), TRIAL_S, 900_000.0)
    assert not taken(outcome) and isinstance(outcome, Outcome) and "power is not measured" in outcome.words


def test_a_hold_is_a_floor_or_a_ceiling_and_danger_goes_before_it() -> None:
    floor = Hold("d-chat", "", 0.0, least=3, nodes=2)
    held = held_to(WISH, floor, alarmed=False)
    assert (held.min_replicas, held.spread) == (3, Spread("node", 2))
    assert held_to(replace(WISH, max_replicas=2), floor, alarmed=False).min_replicas == 2
    ceiling = Hold("d-chat", "", 0.0, most=2, up_to_per_s=4.0)
    assert held_to(WISH, ceiling, alarmed=False).max_replicas == 2
    assert held_to(WISH, ceiling, alarmed=True) == WISH
    more = replace(WISH, demand=replace(WISH.demand, requests_per_s=5.0))
    assert held_to(more, ceiling, alarmed=False) == more
    assert held_to(WISH, None, alarmed=False) is WISH


def test_a_hold_that_cannot_be_had_is_left_out() -> None:
    house = House(lambda t: 0.5, nodes=1, deployments=(wish(rate=0.5, slo=slo(ttft=400)),))
    hold = Hold("d-chat", "no room", 1e9, least=9, nodes=3, fleet=1)
    house.state = replace(house.state, learnt=Memory(holds=(hold,)))
    house.run(20)
    assert house.replicas and all(e.feasible for e in house.state.explanations)


def test_trials_and_holds_are_read_as_they_were_written() -> None:
    hold = Hold("d-chat", "why", 9.0, least=2, nodes=2, fleet=3)
    quarantine = Quarantine("d-chat", "lean", CPU, "why", 9.0, "cpu/2", LOW)
    memory = Memory(trials=tuple(begun(c) for c in CHANGES), holds=(hold,), rolled_back=(quarantine,))
    assert from_text(Memory, to_text(memory)) == memory


def taken(outcome: Trial | Outcome) -> bool:
    return isinstance(outcome, Outcome) and bool(outcome.quarantine or outcome.hold)
