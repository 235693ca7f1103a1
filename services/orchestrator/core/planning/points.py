"""The operating points a deployment could use, before its SLO is looked at: what exists, is allowed, and fits a device.

Everything that is not possible at all comes back as a refused candidate with its numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from services.orchestrator.core.facts.catalog import Quarantine
from services.orchestrator.core.facts.explanation import Candidate, Refusal
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, Device, PowerSetting
from services.orchestrator.core.facts.levers import Levers
from services.orchestrator.core.facts.loads import figures_at, longest_prompts
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.variant import Admission, Variant
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.links import first_links
from services.orchestrator.core.planning.offer import USABLE_MEMORY_SHARE, Offer, Shape
from tradewind.domain.figures import FigureSource

PointKey = tuple[str, str, str, int, tuple[int, int, int]]


class Point(NamedTuple):
    """An operating point that a deployment could use.

    Attributes:
        shape: one kind of device that it fits on, for idle power, size and price.
        places: replicas that would fit on all matching nodes if nothing else ran there.
        device_share: share of a device that one replica holds, in (0, 1].
        idle_mw: idle power charged to one replica: its share of the device's, and what being loaded adds.
        at_work_mw: the most power that was measured at work.
        energy_source: the weakest source of the loads, with its method: a rate between measured loads is no better.
        key: variant, device class, partition kind, batch limit, power setting.
    """

    variant: Variant
    profile: Profile
    batch_limit: int
    shape: Shape
    places: int
    device_share: float
    idle_mw: float
    at_work_mw: float
    energy_source: tuple[FigureSource, str]
    key: PointKey

    @property
    def device(self) -> Device:
        """One device that it fits on."""
        return self.shape.device

    @property
    def memory_bytes(self) -> int:
        """Memory of one replica: as measured, else as the compiler says."""
        return self.profile.memory_bytes or self.variant.memory_bytes

    def candidate(self, refusal: Refusal | None = None, reason: str = "", alike: int = 1) -> Candidate:
        """As an option of the explanation, without figures."""
        return _candidate(self.variant, self.profile, self.batch_limit, refusal, reason, self.memory_bytes, alike)


@dataclass(frozen=True, slots=True)
class Room:
    """Where replicas of one size fit: a kind of device, and how many of them on all nodes if nothing else ran there."""

    shape: Shape
    places: int


def points_of(deployment: Deployment, offer: Offer) -> tuple[tuple[Point, ...], tuple[Candidate, ...]]:
    """Every point that the levers allow, and every refusal of what is no point."""
    points: list[Point] = []
    refused: list[Candidate] = []
    prompt = max(deployment.demand.prompt_tokens, deployment.demand.prompt_tokens_p95)
    for variant in offer.variants.get(deployment.model_id, ()):
        if refusal := _variant_refusal(deployment, variant):
            refused.append(Candidate(variant.variant_id, variant.name, refusal=refusal[0], reason=refusal[1]))
            continue
        if not offer.profiles.get(variant.variant_id):
            reason = f"{variant.name} was never profiled; run `tradewind profile run` for its model"
            refused.append(Candidate(variant.variant_id, variant.name, refusal=Refusal.NO_PROFILE, reason=reason))
        failed = _failed(deployment, variant, offer)
        for setting in _settings_at(variant, deployment.node_selector, offer):
            profile = setting.profile
            if not _may_be_set(profile.power, offer.levers):
                continue
            if reason := _why_failed(failed, variant, profile):
                refused.append(setting.refused(variant, Refusal.QUARANTINED, reason))
            elif prompt > setting.reach:
                reason = f"measured prompts reach to {int(setting.reach)} tokens, {prompt} are asked for"
                refused.append(setting.refused(variant, Refusal.NO_PROFILE, reason))
            elif isinstance(setting.found, Point):
                points.append(setting.found)
            else:
                refused.append(setting.found)
    if deployment.chain:
        points, later = first_links(deployment.chain, points)
        refused += later
    return _allowed(deployment, points, offer.levers), tuple(refused)


class Setting(NamedTuple):
    """A batch limit of a profile, and what it is before any demand is looked at.

    Attributes:
        reach: the longest prompt in tokens that figures can be given for.
    """

    profile: Profile
    batch_limit: int
    reach: float
    found: Point | Candidate

    def refused(self, variant: Variant, refusal: Refusal, reason: str) -> Candidate:
        """As a refused option."""
        memory = self.profile.memory_bytes or variant.memory_bytes
        return _candidate(variant, self.profile, self.batch_limit, refusal, reason, memory)


def _failed(deployment: Deployment, variant: Variant, offer: Offer) -> list[Quarantine]:
    """What keeps a variant from being started again for a deployment."""
    mine = (deployment.deployment_id, variant.variant_id)
    return [entry for entry in offer.quarantined if (entry.deployment_id, entry.variant_id) == mine]


def _why_failed(failed: list[Quarantine], variant: Variant, profile: Profile) -> str:
    """Why it is not started again at this point; "" when it may be."""
    point = (variant.variant_id, profile.device_class, profile.partition_kind, profile.power)
    reasons = (entry.reason for entry in failed if entry.covers(*point))
    return next((f"given up here lately: {reason}" for reason in reasons), "")


def _settings_at(variant: Variant, selector: tuple[tuple[str, str], ...], offer: Offer) -> tuple[Setting, ...]:
    """Settings of a variant on nodes with these labels, worked out once for an offer."""
    key = (variant.variant_id, selector)
    if key not in offer.settings:
        offer.settings[key] = tuple(_settings(variant, selector, offer))
    return offer.settings[key]


def _allowed(deployment: Deployment, points: list[Point], levers: Levers) -> tuple[Point, ...]:
    """Points that are left when a lever is missing: of each device class the fastest variant, the largest partition.

    Where every board can ease its clock, no other clock of it is weighed: what it can do is of the full one, and
    nothing takes less than the eased one.
    """
    eased = {p.key[:4]: p.places for p in points if p.profile.power.eased_sm_clock_mhz is not None}
    left = [p for p in points if p.profile.power.eased_sm_clock_mhz is not None or eased.get(p.key[:4], 0) < p.places]
    if not levers.variants:
        fastest: dict[str, tuple[float, str]] = {}
        for point in left:
            figures = figures_at(point.profile, deployment.demand.prompt_tokens, 1)
            time_ms = figures.ttft.mean_ms + deployment.demand.output_tokens * figures.tpot.mean_ms
            rank, name = (time_ms, point.variant.variant_id), point.profile.device_class
            fastest[name] = min(fastest.get(name, rank), rank)
        left = [p for p in left if fastest[p.profile.device_class][1] == p.variant.variant_id]
    if not levers.partitions:
        largest: dict[str, float] = {}
        for point in left:
            name = point.profile.device_class
            largest[name] = max(largest.get(name, 0.0), point.device_share)
        left = [p for p in left if p.device_share == largest[p.profile.device_class]]
    return tuple(left)


def _settings(variant: Variant, selector: tuple[tuple[str, str], ...], offer: Offer) -> list[Setting]:
    """Batch limits worth weighing: the measured ones; each with the profile whose own limit is nearest above."""
    best: dict[tuple[str, str, int, tuple[int, int, int]], tuple[Profile, float]] = {}
    for profile in offer.profiles.get(variant.variant_id, ()):
        for batch, reach in longest_prompts(profile).items():
            if not variant.slots or batch <= variant.slots:
                key = (profile.device_class, profile.partition_kind, batch, profile.power.order)
                best.setdefault(key, (profile, reach))
    founds: dict[int, Callable[[int], Point | Candidate]] = {}
    for profile, _ in best.values():
        if id(profile) not in founds:
            founds[id(profile)] = _places_of(variant, profile, selector, offer)
    return [
        Setting(profile, key[2], reach, founds[id(profile)](key[2]))
        for key, (profile, reach) in sorted(best.items(), key=lambda entry: entry[0])
    ]


def _variant_refusal(deployment: Deployment, variant: Variant) -> tuple[Refusal, str] | None:
    named = deployment.names(variant.variant_id)
    if not named and (deployment.pinned_variant_id or deployment.chain):
        return Refusal.NOT_PINNED, "the deployment asks for other variants by name"
    if variant.admission in (Admission.REJECTED, Admission.FAILED):
        return Refusal.VARIANT_REJECTED, variant.admission_reason or f"the variant is {variant.admission}"
    if variant.admission is Admission.UNCHECKED and not named:
        return Refusal.VARIANT_REJECTED, "its quality was never checked; pin it to use it all the same"
    tokens = deployment.demand.longest_tokens
    if variant.context_tokens and tokens > variant.context_tokens:
        words = f"prompt and output are {tokens} tokens, its context is {variant.context_tokens}; build a longer one"
        return Refusal.CONTEXT, words
    return None


def _places_of(
    variant: Variant, profile: Profile, selector: tuple[tuple[str, str], ...], offer: Offer
) -> Callable[[int], Point | Candidate]:
    """What a profile is with each batch limit: a point, or refused for want of room."""
    memory, loads = profile.memory_bytes or variant.memory_bytes, profile.loads
    room = _room(selector, offer, profile.device_class, profile.partition_kind, profile.power, memory)
    if isinstance(room, tuple):
        return lambda batch: _candidate(variant, profile, batch, *room, memory)
    share, idle_mw = room.shape.share_of(profile.partition_kind), room.shape.device.idle_power_mw
    added = max(profile.idle_power_mw - idle_mw, 0.0) if profile.idle_power_mw else 0.0
    held = (room.shape, room.places, share, idle_mw * share + added)
    at_work_mw = max(load.power_mw for load in loads)
    source = max((load.energy_source, load.energy_method) for load in loads)
    names, order = (variant.variant_id, profile.device_class, profile.partition_kind), profile.power.order
    return lambda batch: Point(variant, profile, batch, *held, at_work_mw, source, (*names, batch, order))


def _room(
    selector: tuple[tuple[str, str], ...],
    offer: Offer,
    device_class: str,
    kind: str,
    power: PowerSetting,
    memory: int,
) -> Room | tuple[Refusal, str]:
    shapes = offer.shapes_for(selector, device_class)
    if not shapes:
        where = "with the labels asked for " if selector else ""
        return Refusal.NO_DEVICE, f"no node {where}that takes work has a {device_class}"
    fitting = [s for s in shapes if s.most_of(kind) and _can_be_set(s.device, power)]
    if not fitting:
        if troubled := next((s.device for s in shapes if s.device.layout_trouble and not s.most_of(kind)), None):
            words = f"{troubled.device_id} is not cut into {kind} for now: {troubled.layout_trouble}"
            return Refusal.QUARANTINED, words
        how = f"cut into {kind}" if not any(s.most_of(kind) for s in shapes) else f"set to {power}"
        return Refusal.NO_DEVICE, f"no {device_class} can be {how}"
    places = sum(s.count * s.places(kind, memory) for s in fitting)
    if not places:
        most = max(int(s.device.memory_bytes * USABLE_MEMORY_SHARE) for s in fitting)
        seats = (seat for s in fitting if s.board for seat in s.board.seats if seat.kind == kind)
        room = max((seat.memory_bytes for seat in seats), default=0)
        most = min(most, room) if room else most
        return Refusal.MEMORY, f"a replica needs {memory} bytes, at most {most} can be used on a {kind}"
    taking = [s for s in fitting if s.places(kind, memory)]
    return Room(min(taking, key=lambda s: s.device.device_id), places)


def _may_be_set(power: PowerSetting, levers: Levers) -> bool:
    return power == DEFAULT_POWER or (levers.easing if power.eased_sm_clock_mhz is not None else levers.power)


def _can_be_set(device: Device, power: PowerSetting) -> bool:
    return power == DEFAULT_POWER or power in device.power_settings


def _candidate(
    variant: Variant,
    profile: Profile,
    batch: int,
    refusal: Refusal | None,
    reason: str,
    memory: int,
    alike: int = 1,
) -> Candidate:
    return Candidate(
        variant_id=variant.variant_id,
        variant_name=variant.name,
        device_class=profile.device_class,
        partition_kind=profile.partition_kind,
        batch_limit=batch,
        power=profile.power,
        refusal=refusal or "",
        reason=reason,
        memory_bytes=memory,
        alike=alike,
    )
