"""Trials in whole runs: a device that draws more than its profile says takes the change back, a good one stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.policy import POLICIES
from services.orchestrator.core.facts.wish import Deployment
from services.simulator.catalogue import catalog_of, cost_of
from services.simulator.engine.cost import StepCost
from services.simulator.engine.world import Service, Setting, World
from services.simulator.run import demand_of
from services.simulator.trace import Trace
from tests.simulation.house import LIMITS, menu

# Prompts of 200 and answers of 40 tokens, one each half second for a quarter of an hour.
STEADY = Trace("steady", *zip(*((0.5 * n, 200, 40) for n in range(1800)), strict=True), "made")  # type: ignore[arg-type]
NEW_AT_S = 240.0


def world(true_cost: Callable[[str, StepCost], StepCost]) -> World:
    """Only bf16 is known at first; fp8, which promises less power, comes later."""
    cluster, points = menu()
    rate = 2.0
    demand = demand_of(STEADY, 1.5 * rate, rate)
    found = catalog_of(points.resting(), demand.output_tokens)
    only = Catalog(
        tuple(v for v in found.variants if v.name.endswith("bf16")),
        tuple(p for p in found.profiles if p.variant_id.endswith("bf16") and p.device_class == "h100-sxm"),
    )
    both = replace(found, profiles=tuple(p for p in found.profiles if p.device_class == "h100-sxm"))
    wish = Deployment("chat", "chat", cluster.model_id, LIMITS.slo(), demand=demand)
    made = World(
        Setting(
            nodes=cluster.placed(),
            costs=lambda variant, board, kind, clock: true_cost(
                variant, cost_of(points.resting(), variant, board, kind, clock)
            ),
            catalog=only,
            services=(Service(wish, STEADY, LIMITS.ttft_s, LIMITS.tpot_s),),
            policy=POLICIES["energy"],
            metered=True,
        )
    )

    def learn(_: float, __: object) -> None:
        made.conductor.catalog = both

    made.timeline.at(NEW_AT_S, learn)
    return made


def as_profiled(_: str, cost: StepCost) -> StepCost:
    return cost


def hungry(variant: str, cost: StepCost) -> StepCost:
    """fp8 draws four times what its profile says."""
    if variant.endswith("bf16"):
        return cost
    idle_w = cost.decode_power_w[0]
    decode = tuple(idle_w + 4.0 * (w - idle_w) + (200.0 if n else 0.0) for n, w in enumerate(cost.decode_power_w))
    return replace(cost, decode_power_w=decode, prefill_power_w=4.0 * cost.prefill_power_w)


def variants(run: World) -> set[str]:
    return {r.variant_id.rpartition("-")[2] for r in run.conductor.blueprint.replicas}


def test_power_that_rises_though_it_was_to_fall_takes_a_swap_back() -> None:
    run = world(hungry)
    run.run()
    triggers = [(line["at_s"], line["trigger"]) for line in run.conductor.journal]
    back = [(at_s, words) for at_s, words in triggers if "taken back: power rose" in words]
    assert back, triggers
    assert "mW were promised" in back[0][1] and "mW were seen" in back[0][1]
    assert NEW_AT_S + 120.0 < back[0][0] < NEW_AT_S + 400.0
    assert variants(run) == {"bf16"}, "not tried again soon"
    assert not run.checks.findings


def test_a_swap_that_keeps_its_promise_stays() -> None:
    run = world(as_profiled)
    run.run()
    assert variants(run) == {"fp8"}
    assert not [line for line in run.conductor.journal if "taken back" in line["trigger"]]
    assert run.conductor.state.learnt.trials == ()
    assert not run.checks.findings


def test_meters_read_what_devices_spend() -> None:
    run = world(as_profiled)
    run.run()
    end_s = run.end_s
    run.power.read(end_s)
    before = run.meter.energy(end_s).total_j
    readings = run.power.read(end_s + 10.0)
    assert sum(r.power_mw for r in readings) / 1000.0 == pytest.approx(
        (run.meter.energy(end_s + 10.0).total_j - before) / 10.0
    )
