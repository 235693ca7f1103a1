"""The operating points a deployment could use, before its SLO is looked at: what exists, is allowed, and fits a device.

Everything that is not possible at all comes back as a refused candidate with its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.catalog import Catalog, Quarantine
from services.orchestrator.core.explanation import Candidate, Refusal
from services.orchestrator.core.fleet import DEFAULT_POWER, Device, Node, cores_of
from services.orchestrator.core.loads import longest_prompt, most_concurrency
from services.orchestrator.core.profile import Profile
from services.orchestrator.core.variant import Admission, Variant
from services.orchestrator.core.wish import Deployment

# Share of a device's memory that replicas may fill; the rest is for the system, for buffers and for a measuring run.
USABLE_MEMORY_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Point:
    """An operating point that a deployment could use.

    Attributes:
        device: one device of its class, for idle power and size.
        places: replicas that would fit on all matching nodes if nothing else ran there.
    """

    variant: Variant
    profile: Profile
    batch_limit: int
    device: Device
    places: int

    @property
    def memory_bytes(self) -> int:
        """Memory of one replica: as measured, else as the compiler says."""
        return self.profile.memory_bytes or self.variant.memory_bytes

    @property
    def device_share(self) -> float:
        """Share of a device that one replica holds, in (0, 1]."""
        return share_of(self.device, self.profile.partition_kind)

    def candidate(self, refusal: Refusal | None = None, reason: str = "") -> Candidate:
        """As an option of the explanation, without figures."""
        return _candidate(self.variant, self.profile, self.batch_limit, refusal, reason, self.memory_bytes)


def points_of(
    deployment: Deployment, catalog: Catalog, nodes: tuple[Node, ...], quarantined: tuple[Quarantine, ...]
) -> tuple[tuple[Point, ...], tuple[Candidate, ...]]:
    """Every point, and every refusal of what is no point."""
    points: list[Point] = []
    refused: list[Candidate] = []
    for variant in sorted(catalog.variants_of(deployment.model_id), key=lambda v: (v.name, v.variant_id)):
        if refusal := _variant_refusal(deployment, variant):
            refused.append(Candidate(variant.variant_id, variant.name, refusal=refusal[0], reason=refusal[1]))
            continue
        profiles = tuple(p for p in catalog.profiles_of(variant.variant_id) if p.power == DEFAULT_POWER)
        if not profiles:
            reason = f"{variant.name} was never profiled; run `tradewind profile run` for its model"
            refused.append(Candidate(variant.variant_id, variant.name, refusal=Refusal.NO_PROFILE, reason=reason))
        for (_, _, batch), profile in sorted(_settings(variant, profiles).items()):
            point = _point(deployment, variant, profile, batch, nodes, quarantined)
            (points if isinstance(point, Point) else refused).append(point)  # type: ignore[arg-type]
    return tuple(points), tuple(refused)


def share_of(device: Device, kind: str) -> float:
    """Share of a device that a partition of this kind is."""
    if cores := cores_of(kind):
        return min(cores / max(len(device.cpu_ids), 1), 1.0)
    return 1.0 / max(sum(p.kind == kind for p in device.partitions), 1)


def places_on(device: Device, kind: str, memory_bytes: int) -> int:
    """Replicas of this size that an empty device takes."""
    cores = cores_of(kind)
    by_units = len(device.cpu_ids) // cores if cores else sum(p.kind == kind for p in device.partitions)
    if memory_bytes <= 0 or not cores:
        return by_units
    return min(by_units, int(device.memory_bytes * USABLE_MEMORY_SHARE) // memory_bytes)


def _settings(variant: Variant, profiles: tuple[Profile, ...]) -> dict[tuple[str, str, int], Profile]:
    """Batch limits worth weighing: the measured ones; each with the profile whose own limit is nearest above."""
    best: dict[tuple[str, str, int], Profile] = {}
    for profile in sorted(profiles, key=lambda p: (p.batch_limit, p.profile_id)):
        most = most_concurrency(profile)
        if variant.slots:
            most = min(most, variant.slots)
        for batch in sorted({load.concurrency for load in profile.loads if 0 < load.concurrency <= most}):
            best.setdefault((profile.device_class, profile.partition_kind, batch), profile)
    return best


def _variant_refusal(deployment: Deployment, variant: Variant) -> tuple[Refusal, str] | None:
    pinned = deployment.pinned_variant_id
    if pinned and variant.variant_id != pinned:
        return Refusal.NOT_PINNED, "the deployment asks for another variant by name"
    if variant.admission in (Admission.REJECTED, Admission.FAILED):
        return Refusal.VARIANT_REJECTED, variant.admission_reason or f"the variant is {variant.admission}"
    if variant.admission is Admission.UNCHECKED and not pinned:
        return Refusal.VARIANT_REJECTED, "its quality was never checked; pin it to use it all the same"
    tokens = deployment.demand.longest_tokens
    if variant.context_tokens and tokens > variant.context_tokens:
        return Refusal.CONTEXT, f"prompt and output are {tokens} tokens, its context is {variant.context_tokens}"
    return None


def _point(
    deployment: Deployment,
    variant: Variant,
    profile: Profile,
    batch: int,
    nodes: tuple[Node, ...],
    quarantined: tuple[Quarantine, ...],
) -> Point | Candidate:
    memory = profile.memory_bytes or variant.memory_bytes

    def refuse(refusal: Refusal, reason: str) -> Candidate:
        return _candidate(variant, profile, batch, refusal, reason, memory)

    for entry in quarantined:
        key = (entry.deployment_id, entry.variant_id, entry.device_class)
        if key == (deployment.deployment_id, variant.variant_id, profile.device_class):
            return refuse(Refusal.QUARANTINED, f"failed to start here lately: {entry.reason}")
    if deployment.demand.prompt_tokens > longest_prompt(profile, batch):
        wanted, reach = deployment.demand.prompt_tokens, int(longest_prompt(profile, batch))
        return refuse(Refusal.NO_PROFILE, f"measured prompts reach to {reach} tokens, {wanted} are asked for")
    matching = [n for n in nodes if n.keeps_work and n.matches(deployment.node_selector)]
    devices = [d for n in matching for d in n.devices if d.device_class == profile.device_class]
    if not devices:
        where = "with the labels asked for " if deployment.node_selector else ""
        return refuse(Refusal.NO_DEVICE, f"no node {where}that takes work has a {profile.device_class}")
    fitting = [d for d in devices if places_on(d, profile.partition_kind, 0)]
    if not fitting:
        return refuse(Refusal.NO_DEVICE, f"no {profile.device_class} can be cut into {profile.partition_kind}")
    places = sum(places_on(d, profile.partition_kind, memory) for d in fitting)
    if not places:
        most = max(int(d.memory_bytes * USABLE_MEMORY_SHARE) for d in fitting)
        return refuse(Refusal.MEMORY, f"a replica needs {memory} bytes, at most {most} can be used on a device")
    return Point(variant, profile, batch, min(fitting, key=lambda d: d.device_id), places)


def _candidate(
    variant: Variant, profile: Profile, batch: int, refusal: Refusal | None, reason: str, memory: int
) -> Candidate:
    return Candidate(
        variant_id=variant.variant_id,
        variant_name=variant.name,
        device_class=profile.device_class,
        partition_kind=profile.partition_kind,
        batch_limit=batch,
        refusal=refusal or "",
        reason=reason,
        memory_bytes=memory,
    )
