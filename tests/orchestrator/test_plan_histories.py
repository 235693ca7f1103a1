"""Random histories of a mixed fleet with every kind of wish at once: each plan passes the independent check.

Boards that are cut and clocked, CPUs, nodes that come and go, limits, labels, spread, trust, pinned variants, budgets,
cool-downs and levers together. A seed is a history; `HISTORIES=200` tries more of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.blueprint import Blueprint, NodeLayout
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import (
    DEFAULT_POWER,
    Budget,
    Device,
    Node,
    NodeState,
    ReplicaReport,
    ReplicaState,
)
from services.orchestrator.core.facts.levers import Levers
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment, Objective, Spread
from services.orchestrator.core.planning.plan import make_plan
from tests.orchestrator.test_plan_boards import H100, LOW, gpus
from tests.orchestrator.worlds import GIB, node, profile, slo, variant, wish

HISTORIES = int(os.environ.get("HISTORIES", "4"))
PLANS = 5
NAMES = "abcd"
# Share of a whole board's speed, and memory, of what boards are cut into.
PARTS = (("gpu/whole", 1.0, 30), ("mig/3g.40gb", 2.0, 17), ("mig/2g.20gb", 3.5, 9), ("mig/1g.10gb", 6.0, 4))
STATES = [*[NodeState.ACTIVE] * 5, NodeState.LOST, NodeState.DRAINING, NodeState.SUSPECT]
LEVERS = [*[Levers()] * 4, Levers(partitions=False), Levers(consolidation=False), Levers(power=False)]
SCOPES = ["site", "node/g0", "node/g1", "device/g0/GPU-0", "node/n0"]


def some(rng: random.Random, choices: Sequence[str], counts: list[int]) -> list[str]:
    """As many of these as one of the counts says."""
    return sorted(rng.sample(choices, rng.choice(counts)))


def catalog(rng: random.Random) -> Catalog:
    variants, profiles = [], []
    for number in range(rng.randint(1, 3)):
        made = variant(f"v{number}", top1=rng.choice([0.9, 0.99]))
        variants.append(made)
        base_ms, energy_mj = rng.choice([40.0, 80.0, 160.0]), rng.choice([100.0, 300.0, 800.0])
        for kind, slow, memory in PARTS:
            for power, slower in ((DEFAULT_POWER, 1.0), (LOW, 1.3)):
                if rng.random() < 0.4:
                    continue
                times = {"ttft_ms": base_ms * slow * slower, "tpot_ms": base_ms / 5 * slow * slower}
                energy = {"energy_mj": energy_mj * (1.0 if slower == 1.0 else 0.8) * slow**-0.1}
                place = {"device_class": H100, "memory_bytes": memory * GIB, "batches": rng.choice([(1, 2, 4), (1, 4)])}
                one = profile(made.variant_id, kind, **times, **energy, **place)  # type: ignore[arg-type]
                profiles.append(replace(one, power=power, profile_id=f"{one.profile_id} {power.sm_clock_mhz}"))
        for cores in some(rng, ["1", "2", "3"], [0, 1, 3]):
            slow_ms, kind = base_ms / int(cores) ** 0.7, f"cpu/{cores}"
            ttft_ms, tpot_ms, dearer_mj = slow_ms * 8, slow_ms * 1.5, energy_mj * 2
            profiles.append(
                profile(made.variant_id, kind, ttft_ms=ttft_ms, tpot_ms=tpot_ms, energy_mj=dearer_mj, batches=(1, 2))
            )
    return Catalog(tuple(variants), tuple(sorted(profiles, key=lambda p: p.profile_id)))


def deployment(name: str, rng: random.Random) -> Deployment:
    limits = slo(
        ttft=rng.choice([None, 100.0, 400.0, 3000.0]),
        tpot=rng.choice([None, 20.0, 80.0]),
        e2e=rng.choice([None, None, 6000.0]),
        min_top1_agreement=rng.choice([None, 0.95]),
        power_mw=rng.choice([None, None, None, 4e4, 1e5]),
        energy_per_token_mj=rng.choice([None, None, 250.0]),
        availability=rng.choice([None, None, 0.9999]),
    )
    return wish(
        name,
        rng.choice([0.0, 0.5, 3.0, 12.0]),
        slo=limits,
        objective=rng.choice(list(Objective)),
        min_replicas=rng.choice([1, 1, 2, 3]),
        max_replicas=rng.choice([0, 0, 0, 3]),
        trust_level=rng.choice(["", "", "x"]),
        spread=rng.choice([None, None, Spread("rack", 2), Spread("node", 2)]),
        pinned_variant_id=rng.choice(["", "", "", "sha256:v0"]),
        node_selector=rng.choice([(), (), (), (("rack", "r0"),)]),
    )


def under(device: Device, layout: NodeLayout) -> Device:
    """A device once a layout is in force."""
    cut = tuple(p for p in layout.partitions if p.device_id == device.device_id)
    setting = dict(layout.power_settings).get(device.device_id, DEFAULT_POWER)
    asleep = device.device_id in layout.asleep
    return replace(device, partitions=cut or device.partitions, setting=setting, asleep=asleep)


def rolled_out(nodes: tuple[Node, ...], blueprint: Blueprint, rng: random.Random) -> tuple[Node, ...]:
    """Nodes once a blueprint is in force, but for replicas that fail."""
    layouts = {layout.node_id: layout for layout in blueprint.layouts}
    reports: dict[str, list[ReplicaReport]] = {one.node_id: [] for one in nodes}
    for replica in blueprint.replicas:
        state = rng.choice([*[ReplicaState.READY] * 9, ReplicaState.FAILED])
        reports[replica.node_id].append(ReplicaReport(replica.replica_id, state))
    return tuple(
        replace(
            one,
            devices=tuple(under(d, layouts.get(one.node_id, NodeLayout(one.node_id))) for d in one.devices),
            replicas=tuple(reports[one.node_id]),
        )
        for one in nodes
    )


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_every_plan_of_a_history_passes_the_check(seed: int) -> None:
    rng = random.Random(seed)
    cpus = (node(f"n{number}", rng.randint(2, 4)) for number in range(rng.randint(0, 2)))
    situation = Situation((), (*gpus(rng.randint(1, 3), rng.randint(1, 2)), *cpus), catalog(rng))
    for _ in range(PLANS):
        situation = replace(
            situation,
            deployments=tuple(deployment(name, rng) for name in some(rng, NAMES, [1, 2, 3, 4])),
            nodes=tuple(replace(one, state=rng.choice(STATES)) for one in situation.nodes),
            budgets=tuple(Budget(s, rng.choice([3e4, 8e4, 1.6e5, 3e5, 6e5])) for s in some(rng, SCOPES, [0, 0, 1, 2])),
            settled=tuple(f"d-{name}" for name in some(rng, NAMES, [0, 0, 1, 2])),
            levers=rng.choice(LEVERS),
        )
        plan = make_plan(situation)
        assert check(situation, plan.blueprint, plan.explanations) == ()
        situation = replace(
            situation,
            nodes=rolled_out(situation.nodes, plan.blueprint, rng),
            parent=plan.blueprint,
            gone=tuple(replica.replica_id for replica in plan.blueprint.leaving),
        )
