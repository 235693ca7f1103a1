"""Trials in whole runs: a device that draws more than its profile says takes the change back, a good one stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from services.orchestrator.core.adaptation.trial import TRIAL_S
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, WHOLE_KIND, PowerSetting
from services.orchestrator.core.facts.policy import POLICIES
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.wish import Deployment
from services.simulator.catalogue import catalog_of, cost_of
from services.simulator.engine.cost import StepCost
from services.simulator.engine.world import Service, Setting, World
from services.simulator.run import demand_of
from services.simulator.trace import Trace
from tests.simulation.house import LIMITS, menu

# Prompts of 200 and answers of 40 tokens, one each half second for a quarter of an hour.
STEADY = Trace("steady", *zip(*((0.5 * n, 200, 40) for n in range(1800)), strict=True), "made")  # type: ignore[arg-type]
NEW_AT_S = 360.0


def world(true_cost: Callable[[str, int, StepCost], StepCost], promises: Callable[[Profile], bool]) -> World:
    """Whole boards at their default clock are known at first; what promises less power is profiled later."""
    cluster, points = menu()
    resting, rate = points.resting(), 2.0
    demand = demand_of(STEADY, 1.5 * rate, rate)
    found = catalog_of(resting, demand.output_tokens)
    boards = [p for p in found.profiles if p.device_class == "h100-sxm" and p.variant_id.endswith("-bf16")]
    known = tuple(p for p in boards if is_known(p))
    later = replace(found, profiles=tuple(p for p in boards if is_known(p) or promises(p)))
    wish = Deployment("chat", "chat", cluster.model_id, LIMITS.slo(), demand=demand)
    made = World(
        Setting(
            nodes=cluster.placed(),
            costs=lambda variant, board, kind, clock: true_cost(
                kind, clock, cost_of(resting, variant, board, kind, clock)
            ),
            catalog=replace(found, profiles=known),
            services=(Service(wish, STEADY, LIMITS.ttft_s, LIMITS.tpot_s),),
            policy=POLICIES["energy"],
            metered=True,
        )
    )

    def learn(_: float, __: object) -> None:
        made.conductor.catalog = later

    made.timeline.at(NEW_AT_S, learn)
    return made


def is_known(profile: Profile) -> bool:
    return profile.partition_kind == WHOLE_KIND and profile.power == DEFAULT_POWER


def is_slow(profile: Profile) -> bool:
    return profile.partition_kind == WHOLE_KIND and profile.power == PowerSetting(sm_clock_mhz=1590)


def is_slice(profile: Profile) -> bool:
    return profile.partition_kind == "mig/2g.20gb" and profile.power == PowerSetting(sm_clock_mhz=1590)


def as_profiled(_: str, __: int, cost: StepCost) -> StepCost:
    return cost


def hungry(kind: str, clock_mhz: int, cost: StepCost) -> StepCost:
    """A lower clock, and a slice, draws 600 W more at work than its profile says."""
    if kind == WHOLE_KIND and not clock_mhz:
        return cost
    decode = tuple(w + (600.0 if n else 0.0) for n, w in enumerate(cost.decode_power_w))
    return replace(cost, decode_power_w=decode, prefill_power_w=600.0 + cost.prefill_power_w)


def points(run: World) -> set[tuple[str, PowerSetting]]:
    blueprint = run.conductor.blueprint
    return {(r.partition.kind, blueprint.power_of(r.node_id, r.partition.device_id)) for r in blueprint.replicas}


@pytest.mark.parametrize("promises", [is_slow, is_slice])
def test_power_that_rises_though_it_was_to_fall_takes_a_change_back(promises: Callable[[Profile], bool]) -> None:
    run = world(hungry, promises)
    run.run()
    triggers = [(line["at_s"], line["trigger"]) for line in run.conductor.journal]
    back = [(at_s, words) for at_s, words in triggers if "taken back: power rose" in words]
    assert back, triggers
    assert "mW were promised" in back[0][1] and "mW were seen" in back[0][1]
    assert back[0][0] >= NEW_AT_S + TRIAL_S
    assert points(run) == {(WHOLE_KIND, DEFAULT_POWER)}, "not tried again soon"
    assert not run.checks.findings


@pytest.mark.parametrize("promises", [is_slow, is_slice])
def test_a_change_that_keeps_its_promise_stays(promises: Callable[[Profile], bool]) -> None:
    run = world(as_profiled, promises)
    run.run()
    assert points(run) != {(WHOLE_KIND, DEFAULT_POWER)}
    assert not [line for line in run.conductor.journal if "taken back" in line["trigger"]]
    assert run.conductor.state.learnt.trials == ()
    assert not run.checks.findings


def test_meters_read_what_devices_spend() -> None:
    run = world(as_profiled, is_slow)
    run.run()
    end_s = run.end_s
    run.power.read(end_s + 10.0)
    before_j = run.meter.energy(end_s + 10.0).total_j
    spent_j = run.meter.energy(end_s + 20.0).total_j - before_j
    assert sum(r.power_mw for r in run.power.read(end_s + 20.0)) / 1000.0 == pytest.approx(spent_j / 10.0)
