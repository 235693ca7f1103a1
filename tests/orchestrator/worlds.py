"""Small worlds for tests of the orchestrator's core: profiles made by a formula, nodes, deployments."""

from __future__ import annotations

from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import Device, Node, NodeState, ReplicaReport, ReplicaState
from services.orchestrator.core.facts.profile import Latency, Load, Profile
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.variant import Admission, Artifact, Variant
from services.orchestrator.core.facts.wish import Demand, Deployment, LatencyLimit, Metric, Objective, Slo
from tradewind.domain.figures import FigureSource

CPU = "cpu:test"
MODEL = "sha256:model"
GIB = 1 << 30


def latency(p50_ms: float, spread: float = 1.2) -> Latency:
    """A distribution with this median."""
    return Latency(p50_ms, p50_ms * spread, p50_ms * spread * 1.1, p50_ms)


def load(prompt: int, n: int, ttft_ms: float, tpot_ms: float, energy_mj: float, power_mw: float = 20_000.0) -> Load:
    """One measured load of 32 output tokens."""
    return Load(
        prompt, 32, n, latency(ttft_ms), latency(tpot_ms), energy_mj, FigureSource.MODELLED, "test@1", 0.0, power_mw
    )


def profile(
    variant_id: str,
    kind: str = "cpu/1",
    *,
    ttft_ms: float = 100.0,
    tpot_ms: float = 20.0,
    energy_mj: float = 300.0,
    batches: tuple[int, ...] = (1, 2, 4),
    device_class: str = CPU,
    memory_bytes: int = GIB // 2,
    load_s: float = 2.0,
) -> Profile:
    """A profile whose latencies grow with concurrency and prompt length and whose energy falls with concurrency."""
    loads = tuple(
        load(prompt, n, ttft_ms * prompt / 128 * (1 + 0.5 * (n - 1)), tpot_ms * (1 + 0.2 * (n - 1)), energy_mj / n**0.5)
        for prompt in (32, 128, 256)
        for n in batches
    )
    name = f"p-{variant_id}-{device_class}-{kind}"
    return Profile(name, variant_id, device_class, kind, max(batches), loads, memory_bytes, load_s, 10_000.0)


def variant(name: str, *, top1: float | None = 0.99, increase: float | None = 0.01, **changes: object) -> Variant:
    """An admitted variant of the test model."""
    values: dict[str, object] = {
        "variant_id": f"sha256:{name}",
        "name": name,
        "model_id": MODEL,
        "target": "cpu:host",
        "admission": Admission.ADMITTED,
        "manifest": Artifact("manifest.json", f"sha256:m-{name}", 100),
        "top1_agreement": top1,
        "perplexity_increase": increase,
        "context_tokens": 2048,
        "slots": 8,
    }
    return Variant(**{**values, **changes})  # type: ignore[arg-type]


def node(name: str = "n1", cores: int = 4, *, state: NodeState = NodeState.ACTIVE, **changes: object) -> Node:
    """A node with one CPU."""
    device = Device("cpu0", CPU, 16 * GIB, tuple(range(cores)), (), 10_000.0)
    values: dict[str, object] = {"node_id": name, "state": state, "devices": (device,), "address": f"{name}:7410"}
    return Node(**{**values, **changes})  # type: ignore[arg-type]


def wish(name: str = "chat", rate: float = 0.0, **changes: object) -> Deployment:
    """A deployment of the test model with 128 prompt and 32 output tokens."""
    values: dict[str, object] = {
        "deployment_id": f"d-{name}",
        "name": name,
        "model_id": MODEL,
        "demand": Demand(rate, 128, 32),
        "objective": Objective.ENERGY,
    }
    return Deployment(**{**values, **changes})  # type: ignore[arg-type]


def slo(*, ttft: float | None = None, tpot: float | None = None, e2e: float | None = None, **others: object) -> Slo:
    """An SLO with p95 limits."""
    given = ((Metric.TTFT, ttft), (Metric.TPOT, tpot), (Metric.E2E, e2e))
    limits = tuple(LatencyLimit(metric, 95.0, value) for metric, value in given if value is not None)
    return Slo(limits, **others)  # type: ignore[arg-type]


def two_variants() -> Catalog:
    """ "fast" (f32, 2 cores do it faster, more energy) and "lean" (slower, less energy), on one and two cores."""
    fast, lean = variant("fast"), variant("lean", top1=0.95, increase=0.03)
    return Catalog(
        (fast, lean),
        (
            profile(fast.variant_id, "cpu/1", ttft_ms=100, tpot_ms=20, energy_mj=400),
            profile(fast.variant_id, "cpu/2", ttft_ms=55, tpot_ms=11, energy_mj=450),
            profile(lean.variant_id, "cpu/1", ttft_ms=160, tpot_ms=30, energy_mj=250),
            profile(lean.variant_id, "cpu/2", ttft_ms=90, tpot_ms=17, energy_mj=280),
        ),
    )


def world(*deployments: Deployment, **changes: object) -> Situation:
    """A situation with two variants and one node of four cores."""
    values: dict[str, object] = {"deployments": deployments, "nodes": (node(),), "catalog": two_variants()}
    return Situation(**{**values, **changes})  # type: ignore[arg-type]


def ready(name: str) -> ReplicaReport:
    """A ready replica."""
    return ReplicaReport(name, ReplicaState.READY, starts=1)
