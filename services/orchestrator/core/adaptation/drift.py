"""How far profiles are from what replicas really do, and profiles corrected by it. Pure.

A factor speaks of one variant on one device class: measured over predicted time of an output token at the number of
sequences at work. It is bounded, moves in steps, and scales every latency of those profiles; energy stays as measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.adaptation.fading import NOTHING, Faded
from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import DEFAULT_POWER
from services.orchestrator.core.facts.loads import figures_at, longest_prompt, most_concurrency
from services.orchestrator.core.facts.profile import Latency, Load, Profile
from services.orchestrator.core.facts.traffic import Speed

# Drift is heat, neighbours, other prompts: it comes over minutes.
DRIFT_S: Final = 300.0
# Fewer requests of the last minute are noise.
LEAST_SAMPLES: Final = 20
# Profiles repeat within about a tenth; a factor inside this band is 1.
DEAD_BAND: Final = 0.15
# Factors move in steps of this share, so that each plan made by them differs from the last for a reason.
STEP: Final = 0.10
# Outside these the profile is of something else; the planner then errs on the safe side and says so.
LEAST_FACTOR: Final = 0.5
MOST_FACTOR: Final = 3.0
# Tokens that come within this share of their pace were held back by it.
PACED_SHARE: Final = 1.1
# Weight of history below which no factor is drawn: about half a `DRIFT_S` of samples.
_LEAST_WEIGHT: Final = 0.4


@dataclass(frozen=True, slots=True)
class Drift:
    """What one variant on one device class does against its profile.

    Attributes:
        ratio: measured over predicted.
        factor: what profiles are scaled by; 1 inside the dead band.
    """

    variant_id: str
    device_class: str
    ratio: Faded = NOTHING
    factor: float = 1.0

    @property
    def key(self) -> tuple[str, str]:
        """What it speaks of."""
        return (self.variant_id, self.device_class)


def drifted(
    before: Iterable[Drift], speeds: Iterable[Speed], blueprint: Blueprint, catalog: Catalog, passed_s: float
) -> tuple[Drift, ...]:
    """Drifts after one look, by variant and device class.

    Args:
        catalog: profiles as measured, not corrected.
        passed_s: seconds since the last look that counted.
    """
    known = {drift.key: drift for drift in before}
    replicas = {(r.node_id, r.replica_id): r for r in blueprint.replicas}
    profiles = {(p.variant_id, p.device_class, p.partition_kind, p.power): p for p in catalog.profiles}
    powers = {(n.node_id, device_id): power for n in blueprint.layouts for device_id, power in n.power_settings}
    seen: dict[tuple[str, str], list[tuple[float, int]]] = {}
    predicted_ms: dict[tuple[int, int], float] = {}
    for speed in speeds:
        replica = replicas.get((speed.node_id, speed.replica_id))
        if replica is None or speed.samples < LEAST_SAMPLES:
            continue
        if speed.variant_id and speed.variant_id != replica.variant_id:
            continue  # a fallback says nothing of the variant that was planned
        power = powers.get((replica.node_id, replica.partition.device_id), DEFAULT_POWER)
        if power.eased_sm_clock_mhz is not None:
            continue  # its profile says what it can do, not at which of its clocks it was
        if speed.tpot_ms <= PACED_SHARE * replica.pace_ms:
            continue  # it was held back, so that nothing is known of what it can do
        profile = profiles.get((replica.variant_id, replica.device_class, replica.partition.kind, power))
        if profile is not None and (ratio := _ratio(profile, speed, predicted_ms)):
            seen.setdefault((replica.variant_id, replica.device_class), []).append((ratio, speed.samples))
    for key, ratios in seen.items():
        mean = sum(r * n for r, n in ratios) / sum(n for _, n in ratios)
        old = known.get(key, Drift(*key))
        faded = old.ratio.after(mean, passed_s, DRIFT_S)
        known[key] = replace(old, ratio=faded, factor=_stepped(old.factor, faded))
    return tuple(known[key] for key in sorted(known))


def corrected(catalog: Catalog, drifts: Iterable[Drift]) -> Catalog:
    """The catalog with profiles scaled by their factors; the same object when there is nothing to scale."""
    factors = {d.key: d.factor for d in drifts if d.factor != 1.0}
    if not factors:
        return catalog
    profiles = tuple(
        _scaled(p, factors[p.variant_id, p.device_class]) if (p.variant_id, p.device_class) in factors else p
        for p in catalog.profiles
    )
    return replace(catalog, profiles=profiles)


def _ratio(profile: Profile, speed: Speed, predicted_ms: dict[tuple[int, int], float]) -> float | None:
    """Measured over predicted; what is predicted for replicas alike is worked out once for a look."""
    sequences = min(max(round(speed.sequences), 1), most_concurrency(profile))
    if sequences < 1 or speed.tpot_ms <= 0.0:
        return None
    if (like := (id(profile), sequences)) not in predicted_ms:
        # Time of an output token hardly depends on the prompt; the longest measured one is the safe side.
        prompt = int(longest_prompt(profile, sequences) / 2.0)
        predicted_ms[like] = figures_at(profile, prompt, sequences).tpot.mean_ms if prompt > 0 else 0.0
    predicted = predicted_ms[like]
    return speed.tpot_ms / predicted if predicted > 0.0 else None


def _stepped(factor: float, ratio: Faded) -> float:
    if ratio.weight < _LEAST_WEIGHT:
        return factor
    mean = min(max(ratio.mean, LEAST_FACTOR), MOST_FACTOR)
    # Leaving the band and coming back to it are a step apart, so that noise at its edge moves nothing.
    if abs(mean - factor) <= (DEAD_BAND if factor == 1.0 else STEP):
        return factor
    return 1.0 if abs(mean - 1.0) <= DEAD_BAND - STEP / 2.0 else round(mean / STEP) * STEP


def _scaled(profile: Profile, factor: float) -> Profile:
    def latency(value: Latency) -> Latency:
        return Latency(value.p50_ms * factor, value.p95_ms * factor, value.p99_ms * factor, value.mean_ms * factor)

    def load(value: Load) -> Load:
        return replace(value, ttft=latency(value.ttft), tpot=latency(value.tpot))

    return replace(profile, loads=tuple(load(value) for value in profile.loads))
