"""Boards whose clock eases: what is known of them, and that they are planned before every other clock of theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.eased import with_eased
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, Node, PowerSetting
from services.orchestrator.core.facts.levers import Levers
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment, Objective
from services.orchestrator.core.planning.plan import make_plan
from services.orchestrator.translate.blueprints import blueprint_message, blueprint_of
from tests.orchestrator.test_plan_boards import LOW, catalog, gpus
from tests.orchestrator.worlds import slo, wish, world
from tradewind.domain.figures import FigureSource

EASED = PowerSetting(eased_sm_clock_mhz=LOW.sm_clock_mhz)


def known() -> Catalog:
    return replace(catalog(), profiles=with_eased(catalog().profiles))


def easing(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    return tuple(replace(n, devices=tuple(replace(d, power_settings=(EASED, LOW)) for d in n.devices)) for n in nodes)


def settings(situation: Situation) -> set[PowerSetting]:
    blueprint = make_plan(situation).blueprint
    return {blueprint.power_of(r.node_id, r.partition.device_id) for r in blueprint.replicas}


def test_an_eased_profile_can_what_the_full_clock_can_and_takes_what_the_lowest_takes() -> None:
    profiles = {(p.partition_kind, p.power): p for p in known().profiles}
    made = [p for p in profiles.values() if p.power.eased_sm_clock_mhz is not None]
    assert [p.partition_kind for p in made] == ["gpu/whole"], "a clock acts on all slices of a board"
    full, low = profiles["gpu/whole", DEFAULT_POWER], profiles["gpu/whole", LOW]
    assert [(load.ttft, load.tpot) for load in made[0].loads] == [(load.ttft, load.tpot) for load in full.loads]
    assert [load.energy_per_token_mj for load in made[0].loads] == [load.energy_per_token_mj for load in low.loads]
    assert made[0].power == EASED


def test_energy_that_was_put_together_is_modelled_even_where_both_profiles_were_measured() -> None:
    measured = [
        replace(p, loads=tuple(replace(load, energy_source=FigureSource.MEASURED_COUNTER) for load in p.loads))
        for p in catalog().profiles
    ]
    made = [p for p in with_eased(measured) if p.power == EASED]
    assert {load.energy_source for p in made for load in p.loads} == {FigureSource.MODELLED}


def test_nothing_is_made_of_a_board_that_was_measured_at_one_clock() -> None:
    full = tuple(p for p in catalog().profiles if p.power == DEFAULT_POWER)
    assert with_eased(full) == full


def test_a_store_with_clocks_that_no_node_offers_still_eases_to_the_one_that_is_offered() -> None:
    lower = [
        replace(p, power=PowerSetting(600), profile_id=f"{p.profile_id}-600")
        for p in catalog().profiles
        if p.power == LOW
    ]
    measured = (*catalog().profiles, *lower)
    assert {p.power.eased_sm_clock_mhz for p in with_eased(measured)} == {None, 600}
    made = with_eased(measured, each_clock=True)
    assert {p.power.eased_sm_clock_mhz for p in made} == {None, 600, LOW.sm_clock_mhz}
    situation = world(wish(rate=2.0), nodes=easing(gpus()), catalog=replace(catalog(), profiles=made))
    assert settings(replace(situation, levers=Levers(partitions=False))) == {EASED}


def test_loads_that_were_measured_at_one_clock_only_are_left_out() -> None:
    shorter = [replace(p, loads=p.loads[:1]) if p.power == LOW else p for p in catalog().profiles]
    made = [p for p in with_eased(shorter) if p.power == EASED]
    assert [len(p.loads) for p in made] == [1]


def test_where_every_board_eases_no_other_clock_is_weighed() -> None:
    levers = Levers(partitions=False)
    situation = replace(world(wish(rate=2.0), nodes=easing(gpus()), catalog=known()), levers=levers)
    assert settings(situation) == {EASED}
    assert EASED not in settings(replace(situation, levers=replace(levers, easing=False)))
    assert settings(replace(situation, nodes=gpus())) <= {LOW, DEFAULT_POWER}, "these nodes do not offer it"


def test_boards_that_cannot_ease_are_used_beside_those_that_can() -> None:
    nodes = (*easing(gpus(1, boards=1)), *gpus(2, boards=1)[1:])
    plans = (make_plan(world(wish(rate=float(rate)), nodes=nodes, catalog=known())) for rate in range(1, 200))
    assert any({r.node_id for r in plan.blueprint.replicas} == {"g0", "g1"} for plan in plans)


def test_nodes_are_told_the_limits_of_what_they_serve() -> None:
    situation = world(wish(slo=slo(ttft=900, tpot=60)), nodes=easing(gpus()), catalog=known())
    blueprint = make_plan(situation).blueprint
    assert {(r.ttft_limit_ms, r.tpot_limit_ms) for r in blueprint.replicas} == {(900.0, 60.0)}
    again = blueprint_of(blueprint_message(blueprint))
    assert again.replicas == blueprint.replicas
    assert again.layouts == blueprint.layouts


@pytest.mark.parametrize(
    ("wished", "levers", "told_ms"),
    [
        (wish(rate=2.0, slo=slo(ttft=900, tpot=60)), Levers(), 48.0),
        (wish(rate=2.0, slo=slo(ttft=900, tpot=60)), Levers(pacing=False), 0.0),
        (wish(rate=2.0, slo=slo(ttft=900, tpot=60), objective=Objective.LATENCY), Levers(), 0.0),
        (wish(rate=2.0, slo=slo(tpot=60, e2e=9000)), Levers(), 0.0),
        (wish(rate=2.0, slo=slo(ttft=900)), Levers(), 0.0),
        (wish(rate=0.5, slo=slo(ttft=900, tpot=60)), Levers(), 0.0),
        (wish(slo=slo(ttft=900, tpot=60)), Levers(), 0.0),
    ],
    ids=["energy", "no lever", "latency", "end to end", "no limit", "too few to share a step", "no demand"],
)
def test_tokens_are_held_back_where_least_energy_is_wanted_and_their_limit_allows(
    wished: Deployment, levers: Levers, told_ms: float
) -> None:
    situation = replace(world(wished, nodes=easing(gpus()), catalog=known()), levers=levers)
    blueprint = make_plan(situation).blueprint
    assert {r.pace_ms for r in blueprint.replicas} == {told_ms}
    assert blueprint_of(blueprint_message(blueprint)).replicas == blueprint.replicas


@pytest.mark.parametrize(
    ("limits", "outputs", "told_ms"),
    [
        ({"e2e": 6000}, (100, 0), 60.0),
        ({"e2e": 6000}, (100, 300), 20.0),
        ({"e2e": 6000, "tpot": 15}, (100, 300), 15.0),
        ({"tpot": 15}, (100, 300), 15.0),
        ({"ttft": 900}, (100, 300), None),
    ],
)
def test_an_end_to_end_limit_is_shared_out_over_the_longest_answer(
    limits: dict[str, float], outputs: tuple[int, int], told_ms: float | None
) -> None:
    wished = wish(slo=slo(**limits))
    demand = replace(wished.demand, output_tokens=outputs[0], output_tokens_p95=outputs[1])
    assert replace(wished, demand=demand).token_limit_ms == told_ms
