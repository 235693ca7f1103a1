"""Boards that are cut, clocks, sleep, failure domains and trust: planned together, and checked by other code."""

from __future__ import annotations

from dataclasses import replace

from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import (
    Device,
    DeviceKind,
    Node,
    NodeState,
    Partition,
    PowerSetting,
    SliceKind,
)
from services.orchestrator.core.facts.levers import Levers
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Spread
from services.orchestrator.core.planning.boards import Boards
from services.orchestrator.core.planning.plan import Plan, make_plan
from tests.orchestrator.worlds import GIB, node, profile, ready, slo, variant, wish, world

H100 = "gpu:test"
LOW = PowerSetting(1200)
TABLE = tuple(
    SliceKind(number, kind, memory * 10 * GIB, compute, memory, starts, most)
    for number, kind, compute, memory, starts, most in (
        (19, "mig/1g.10gb", 1, 1, tuple(range(7)), 7),
        (14, "mig/2g.20gb", 2, 2, (0, 2, 4), 3),
        (9, "mig/3g.40gb", 3, 4, (0, 4), 2),
        (0, "mig/7g.80gb", 7, 8, (0,), 1),
    )
)


def board(number: int) -> Device:
    name = f"GPU-{number}"
    whole = Partition(f"{name}:whole", name, "gpu/whole", memory_bytes=80 * GIB)
    return Device(
        name, H100, 80 * GIB, (), (whole,), 70_000.0, DeviceKind.GPU, (LOW,), table=TABLE, sleep_power_mw=20_000.0
    )


def gpus(count: int = 1, boards: int = 2, **changes: object) -> tuple[Node, ...]:
    made = (
        Node(f"g{n}", NodeState.ACTIVE, tuple(board(b) for b in range(boards)), (), (("rack", f"r{n}"),))
        for n in range(count)
    )
    return tuple(replace(one, **changes) for one in made)  # type: ignore[arg-type]


def catalog() -> Catalog:
    """Slices are slower and draw less for each token; a low clock draws less still."""
    made = variant("lean")
    profiles = []
    for kind, slow in (("gpu/whole", 1.0), ("mig/3g.40gb", 2.0), ("mig/1g.10gb", 6.0)):
        for power, energy in ((PowerSetting(), 300.0), (LOW, 240.0)):
            clock = 1.0 if power == PowerSetting() else 1.3
            one = profile(
                made.variant_id,
                kind,
                ttft_ms=30 * slow * clock,
                tpot_ms=5 * slow * clock,
                energy_mj=energy - 20 * slow,
                device_class=H100,
            )
            profiles.append(replace(one, power=power, profile_id=f"{one.profile_id}-{power}", idle_power_mw=0.0))
    return Catalog((made,), tuple(profiles))


def planned(situation: Situation) -> Plan:
    plan = make_plan(situation)
    assert check(situation, plan.blueprint, plan.explanations) == ()
    return plan


def test_layouts_are_those_of_the_board_itself() -> None:
    found = Boards().of(board(0))
    largest = set(found.largest_beside(0))
    assert (("mig/3g.40gb", 2),) in largest
    assert (("gpu/whole", 1),) in largest
    assert max(dict(kinds).get("mig/1g.10gb", 0) for kinds in largest) == 7
    assert all(sum(c * int(k[4]) for k, c in kinds if k != "gpu/whole") <= 7 for kinds in largest)


def test_board_is_cut_clocked_down_and_its_neighbour_sleeps() -> None:
    situation = world(wish(rate=0.2), wish("second", rate=0.2), nodes=gpus(), catalog=catalog())
    plan = planned(situation)
    layout = plan.blueprint.layout_of("g0")
    assert layout is not None
    assert {r.partition.kind for r in plan.blueprint.replicas} == {"mig/1g.10gb"}
    assert len({r.partition.device_id for r in plan.blueprint.replicas}) == 1, "packed, for an idle board can sleep"
    assert len(layout.asleep) == 1
    assert [setting for _, setting in layout.power_settings] == [LOW]


def test_a_cap_is_planned_like_a_clock_where_it_is_offered_and_was_profiled() -> None:
    cap = PowerSetting(power_cap_mw=300_000)
    capped = tuple(
        replace(p, power=cap, profile_id=f"{p.profile_id}-cap") if p.power == LOW else p for p in catalog().profiles
    )
    nodes = tuple(
        replace(n, devices=tuple(replace(d, power_settings=(cap,)) for d in n.devices)) for n in gpus(boards=1)
    )
    situation = world(wish(rate=0.2), nodes=nodes, catalog=replace(catalog(), profiles=capped))
    layout = planned(situation).blueprint.layout_of("g0")
    assert layout is not None
    assert [setting for _, setting in layout.power_settings] == [cap]
    unoffered = planned(replace(situation, nodes=gpus(boards=1))).blueprint.layout_of("g0")
    assert unoffered is not None
    assert not unoffered.power_settings


def test_each_lever_can_be_taken_away() -> None:
    situation = world(wish(rate=0.2), nodes=gpus(), catalog=catalog())
    whole = planned(replace(situation, levers=Levers(partitions=False))).blueprint
    assert {r.partition.kind for r in whole.replicas} == {"gpu/whole"}
    assert not any(n.power_settings for n in planned(replace(situation, levers=Levers(power=False))).blueprint.layouts)
    assert not any(n.asleep for n in planned(replace(situation, levers=Levers(consolidation=False))).blueprint.layouts)


def test_plan_rolled_out_stays_and_slices_in_use_are_never_taken() -> None:
    situation = world(wish(rate=0.2), wish("second", rate=0.2), nodes=gpus(boards=1), catalog=catalog())
    first = planned(situation).blueprint
    standing = replace(situation.nodes[0].devices[0], partitions=first.layouts[0].partitions, setting=LOW)
    there = replace(
        situation.nodes[0], devices=(standing,), replicas=tuple(ready(r.replica_id) for r in first.replicas)
    )
    settled = replace(situation, nodes=(there,), parent=first)
    assert planned(settled).blueprint is first
    fast = wish("fast", rate=0.1, slo=slo(tpot=13))
    both = planned(replace(settled, deployments=(*settled.deployments, fast)))
    assert set(first.replicas) <= set(both.blueprint.replicas)
    assert both.blueprint.of("d-fast")[0].partition.kind == "mig/3g.40gb"


def test_trust_levels_share_no_board_and_racks_are_spread_over() -> None:
    apart = world(
        wish(rate=0.2, trust_level="a"), wish("b", rate=0.2, trust_level="b"), nodes=gpus(), catalog=catalog()
    )
    assert len({r.partition.device_id for r in planned(apart).blueprint.replicas}) == 2
    wide = world(wish(rate=0.2, spread=Spread("rack", 3)), nodes=gpus(3), catalog=catalog())
    assert len({r.node_id for r in planned(wide).blueprint.replicas}) == 3
    narrow = make_plan(replace(wide, nodes=gpus(2)))
    assert not narrow.explanations[0].feasible


def test_what_is_missing_is_named_and_would_do() -> None:
    situation = world(wish(rate=12.0, slo=slo(ttft=1500)), nodes=(node("n1", 4),))
    explanation = make_plan(situation).explanations[0]
    (words,) = explanation.nearest_hardware
    count = int(words.removeprefix("+").split()[0])
    for added, enough in ((count, True), (count - 1, False)):
        more = tuple(node(f"m{n}", 4) for n in range(added))
        assert make_plan(replace(situation, nodes=(*situation.nodes, *more))).explanations[0].feasible is enough


def test_mix_of_device_classes_meets_what_none_meets_alone() -> None:
    cpu = profile("sha256:lean", "cpu/1", ttft_ms=100, tpot_ms=20, energy_mj=400)
    both = catalog()
    both = replace(both, profiles=(*both.profiles, cpu))
    alone = world(wish(rate=45.0, slo=slo(ttft=3000)), nodes=gpus(1, 1), catalog=both)
    with_cpu = replace(alone, nodes=(*alone.nodes, node("c", 64)))
    chosen = [c for c in planned(with_cpu).explanations[0].candidates if c.chosen]
    assert chosen
    assert not make_plan(alone).explanations[0].feasible


def test_a_replica_larger_than_its_slice_is_found_though_the_board_has_room() -> None:
    situation = world(wish(rate=0.2), wish("second", rate=0.2), nodes=gpus(), catalog=catalog())
    plan = planned(situation)
    small, other = plan.blueprint.replicas
    assert small.partition.kind == "mig/1g.10gb"

    def found(memory_bytes: int) -> tuple[str, ...]:
        grown = replace(plan.blueprint, replicas=(replace(small, memory_bytes=memory_bytes), other))
        return check(situation, grown, plan.explanations)

    assert found(10 * GIB) == ()
    assert [words for words in found(11 * GIB) if f"{small.partition.partition_id} has {10 * GIB}" in words]


def test_a_replica_larger_than_a_slice_that_no_table_knows_is_found() -> None:
    piece = Partition("GPU-0:else", "GPU-0", "mig/1g.10gb", memory_bytes=10 * GIB)
    fixed = replace(board(0), partitions=(piece,), table=())
    situation = world(wish(rate=0.2), nodes=gpus(devices=(fixed,)), catalog=catalog())
    plan = planned(situation)
    grown = tuple(replace(r, memory_bytes=11 * GIB) for r in plan.blueprint.replicas)
    assert grown
    findings = check(situation, replace(plan.blueprint, replicas=grown), plan.explanations)
    assert [words for words in findings if "bytes, GPU-0:else has" in words]
