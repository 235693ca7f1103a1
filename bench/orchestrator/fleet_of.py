"""Synthetic fleets for timing the planner: mixed boards and CPUs, profiles by a formula. Not a model of any product.

Shapes are realistic (nodes of 8 boards or one CPU, MIG tables, three clocks, prompts of many lengths), figures are made
up: only the planner's time and its gap may be read off them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import (
    DEFAULT_POWER,
    Device,
    DeviceKind,
    Node,
    NodeState,
    PowerSetting,
    ReplicaReport,
    ReplicaState,
    SliceKind,
)
from services.orchestrator.core.facts.profile import Latency, Load, Profile
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.variant import Admission, Artifact, Variant
from services.orchestrator.core.facts.wish import Demand, Deployment, LatencyLimit, Metric, Objective, Slo
from tradewind.domain.figures import FigureSource

GIB: Final = 1 << 30
MODELS: Final = 12
BATCHES: Final = (1, 8, 32)
PROMPTS: Final = (64, 512, 2048)
# Profile, slices of compute and memory, starts, most: the plain profiles of an 8/7 board (docs/mig.md).
_SLICES: Final = (
    (19, "mig/1g.10gb", 1, 1, tuple(range(7)), 7),
    (14, "mig/2g.20gb", 2, 2, (0, 2, 4), 3),
    (9, "mig/3g.40gb", 3, 4, (0, 4), 2),
    (0, "mig/7g.80gb", 7, 8, (0,), 1),
)
TABLE: Final = tuple(
    SliceKind(number, kind, memory * 10 * GIB, compute, memory, starts, most)
    for number, kind, compute, memory, starts, most in _SLICES
)
CLOCKS: Final = (PowerSetting(1200), PowerSetting(1590))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of device: its speed and power relative to the first, partition kinds with their share of it."""

    device_class: str
    speed: float
    active_w: float
    idle_w: float
    parts: tuple[tuple[str, float], ...]
    boards: int
    share: float


KINDS: Final = (
    Kind("gpu:h100-80", 1.0, 600.0, 70.0, (("gpu/whole", 1.0), ("mig/3g.40gb", 0.43), ("mig/1g.10gb", 0.14)), 8, 0.35),
    Kind("gpu:a100-80", 0.55, 330.0, 55.0, (("gpu/whole", 1.0), ("mig/3g.40gb", 0.43), ("mig/1g.10gb", 0.14)), 8, 0.35),
    Kind("gpu:l4", 0.16, 60.0, 14.0, (("gpu/whole", 1.0),), 4, 0.15),
    Kind("cpu:epyc-64", 0.03, 220.0, 90.0, (("cpu/8", 0.125), ("cpu/16", 0.25), ("cpu/64", 1.0)), 1, 0.15),
)


def situation(nodes: int, deployments: int, seed: int = 0) -> Situation:
    """A fleet with wishes that take about half of it."""
    rng = random.Random(seed)
    catalog = Catalog(*_models())
    fleet = tuple(_node(number, nodes) for number in range(nodes))
    wishes = tuple(_wish(number, nodes, deployments, rng) for number in range(deployments))
    return Situation(wishes, fleet, catalog)


def ready(before: Situation, blueprint: Blueprint) -> Situation:
    """The fleet once a blueprint is rolled out."""
    here: dict[str, list[ReplicaReport]] = {}
    for replica in blueprint.replicas:
        here.setdefault(replica.node_id, []).append(ReplicaReport(replica.replica_id, ReplicaState.READY))
    layouts = {layout.node_id: layout for layout in blueprint.layouts}
    nodes = []
    for node in before.nodes:
        layout = layouts.get(node.node_id)
        devices = tuple(
            replace(
                device,
                partitions=tuple(p for p in layout.partitions if p.device_id == device.device_id) or device.partitions,
                setting=dict(layout.power_settings).get(device.device_id, DEFAULT_POWER),
                asleep=device.device_id in layout.asleep,
            )
            if layout
            else device
            for device in node.devices
        )
        nodes.append(replace(node, devices=devices, replicas=tuple(here.get(node.node_id, ()))))
    return replace(before, nodes=tuple(nodes), parent=blueprint, gone=tuple(r.replica_id for r in blueprint.leaving))


def busier(before: Situation, factor: float, seed: int = 1) -> Situation:
    """The same wishes with other demands, about `factor` times what they were."""
    rng = random.Random(seed)
    wishes = tuple(
        replace(d, demand=replace(d.demand, requests_per_s=d.demand.requests_per_s * factor * rng.uniform(0.8, 1.2)))
        for d in before.deployments
    )
    return replace(before, deployments=wishes)


def _node(number: int, nodes: int) -> Node:
    place, kind = (number + 0.5) / nodes, KINDS[-1]
    for candidate in KINDS:
        if place < candidate.share:
            kind = candidate
            break
        place -= candidate.share
    name, watts = f"n{number:05d}", kind.idle_w * 1000.0
    if kind.device_class.startswith("cpu:"):
        cpu = Device(
            "cpu0", kind.device_class, 512 * GIB, tuple(range(64)), idle_power_mw=watts, sleep_power_mw=9_000.0
        )
        devices: tuple[Device, ...] = (replace(cpu, wake_s=30.0),)
    else:
        memory = 24 if kind.device_class == "gpu:l4" else 80
        whole = replace(_whole(f"GPU-{number}-0", kind, memory, watts))
        devices = tuple(replace(whole, device_id=f"GPU-{number}-{board}") for board in range(kind.boards))
        devices = tuple(_parted(device) for device in devices)
    return Node(name, NodeState.ACTIVE, devices, (), (("rack", f"r{number // 40}"),), f"{name}:7410")


def _whole(device_id: str, kind: Kind, memory_gib: int, idle_mw: float) -> Device:
    return Device(
        device_id,
        kind.device_class,
        memory_gib * GIB,
        idle_power_mw=idle_mw,
        kind=DeviceKind.GPU,
        power_settings=CLOCKS,
        table=TABLE if len(kind.parts) > 1 else (),
        sleep_power_mw=idle_mw * 0.3,
        wake_s=20.0,
    )


def _parted(device: Device) -> Device:
    from services.orchestrator.core.facts.fleet import Partition

    whole = Partition(f"{device.device_id}:whole", device.device_id, "gpu/whole", memory_bytes=device.memory_bytes)
    return replace(device, partitions=(whole,))


def _models() -> tuple[tuple[Variant, ...], tuple[Profile, ...]]:
    variants, profiles = [], []
    for model in range(MODELS):
        size = 1.0 + model % 4
        for target in ("cuda", "cpu"):
            for precision, speed, quality in (("f16", 1.0, 0.999), ("int8", 1.5, 0.985), ("int4", 2.1, 0.95)):
                name = f"m{model}-{target}-{precision}"
                variants.append(
                    Variant(
                        name,
                        name,
                        f"m{model}",
                        target,
                        Admission.ADMITTED,
                        Artifact("manifest.json", name, 1),
                        top1_agreement=quality,
                        perplexity_increase=0.01,
                        context_tokens=8192,
                        slots=64,
                    )
                )
                for kind in KINDS:
                    if kind.device_class.startswith("cpu") == (target == "cpu"):
                        profiles += _profiles(name, kind, size / speed)
    return tuple(variants), tuple(profiles)


def _profiles(variant: str, kind: Kind, work: float) -> list[Profile]:
    found = []
    for part, share in kind.parts:
        memory = int((4 + 3 * work) * GIB)
        if part == "mig/1g.10gb" and memory > 9 * GIB:
            continue
        powers = (DEFAULT_POWER,) if kind.device_class.startswith("cpu") else (DEFAULT_POWER, *CLOCKS)
        for power in powers:
            clock = (power.sm_clock_mhz or 1980) / 1980
            loads = tuple(
                _load(prompt, batch, work / kind.speed / share**0.9 / clock**0.7, kind.active_w * share * clock**1.6)
                for prompt in PROMPTS
                for batch in BATCHES
            )
            name = f"p-{variant}-{kind.device_class}-{part}-{power}"
            found.append(
                Profile(name, variant, kind.device_class, part, BATCHES[-1], loads, memory, 8.0 * work, 0.0, power)
            )
    return found


def _load(prompt: int, batch: int, slow: float, active_w: float) -> Load:
    tpot, ttft = 6.0 * slow * (1 + 0.02 * batch), 20.0 * slow * (1 + prompt / 512) * (1 + 0.1 * batch)
    power_mw = active_w * 1000.0 * (0.5 + 0.5 * batch / BATCHES[-1])
    per_token_mj = power_mw * tpot / 1000.0 / batch
    stats = [Latency(p, p * 1.2, p * 1.4, p) for p in (ttft, tpot)]
    return Load(prompt, 256, batch, *stats, per_token_mj, FigureSource.SIMULATED, "made-up@1", 0.0, power_mw)


def _wish(number: int, nodes: int, deployments: int, rng: random.Random) -> Deployment:
    limits = (
        LatencyLimit(Metric.TTFT, 95.0, rng.choice([800.0, 2000.0, 6000.0])),
        LatencyLimit(Metric.TPOT, 95.0, rng.choice([40.0, 80.0, 200.0])),
    )
    rate = nodes / deployments * rng.uniform(2.0, 12.0)
    return Deployment(
        f"d{number:03d}",
        f"w{number:03d}",
        f"m{rng.randrange(MODELS)}",
        Slo(limits, min_top1_agreement=rng.choice([None, 0.98])),
        Objective.ENERGY,
        Demand(rate, rng.randrange(64, 2000), rng.randrange(40, 300)),
        min_replicas=rng.choice([1, 1, 2]),
    )
