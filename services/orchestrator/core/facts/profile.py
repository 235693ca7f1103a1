"""Profiles: what an operating point costs, as measured. Pure values; `loads` interpolates between them."""

from __future__ import annotations

from dataclasses import dataclass

from services.orchestrator.core.facts.fleet import DEFAULT_POWER, PowerSetting
from tradewind.domain.figures import FigureSource


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution of one latency."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float


@dataclass(frozen=True, slots=True)
class Load:
    """What one load costs: a prompt length with a number of sequences at work together.

    Attributes:
        energy_per_token_mj: of a generated token, prefill's share included, idle's share excluded.
        energy_per_prefill_mj: of one whole prefill; 0 when not known.
        power_mw: while at work, idle included.
    """

    prompt_tokens: int
    output_tokens: int
    concurrency: int
    ttft: Latency
    tpot: Latency
    energy_per_token_mj: float
    energy_source: FigureSource = FigureSource.MODELLED
    energy_method: str = ""
    energy_per_prefill_mj: float = 0.0
    power_mw: float = 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything measured of one operating point on one device class, at one power setting."""

    profile_id: str
    variant_id: str
    device_class: str
    partition_kind: str
    batch_limit: int
    loads: tuple[Load, ...]
    memory_bytes: int = 0
    load_s: float = 0.0
    idle_power_mw: float = 0.0
    power: PowerSetting = DEFAULT_POWER
