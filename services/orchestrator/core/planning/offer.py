"""What there is to choose from, indexed once for a plan: shapes of devices, variants by model, profiles by variant."""

from __future__ import annotations

import operator
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.facts.catalog import Quarantine
from services.orchestrator.core.facts.fleet import Device, PowerSetting, cores_of
from services.orchestrator.core.facts.levers import Levers
from services.orchestrator.core.facts.loads import Sheaf, sheaves_of
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.variant import Variant
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.boards import Board
from services.orchestrator.core.planning.ground import Ground, Group

# Share of a device's memory that replicas may fill; the rest is for the system, for buffers and for a measuring run.
USABLE_MEMORY_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Shape:
    """Devices that would be alike if nothing ran on them, and how many there are."""

    device: Device
    board: Board | None
    labels: tuple[tuple[str, str], ...]
    count: int

    def most_of(self, kind: str) -> int:
        """Partitions of this kind that an empty device can have at once."""
        if self.board is None:
            cores = cores_of(kind)
            return len(self.device.cpu_ids) // cores if cores else 0
        return dict(self.board.most).get(kind, 0)

    def share_of(self, kind: str) -> float:
        """Share of the device that a partition of this kind is, in (0, 1]."""
        if self.board is None:
            return min(cores_of(kind) / max(len(self.device.cpu_ids), 1), 1.0)
        return 1.0 / max(self.most_of(kind), 1)

    def places(self, kind: str, memory_bytes: int) -> int:
        """Replicas of this size that an empty device takes."""
        usable = int(self.device.memory_bytes * USABLE_MEMORY_SHARE)
        if memory_bytes <= 0:
            return self.most_of(kind)
        if self.board is None:
            return min(self.most_of(kind), usable // memory_bytes)
        room = self.board.memory_of(kind)
        if memory_bytes > usable or (room and memory_bytes > room):
            return 0
        return min(self.most_of(kind), usable // memory_bytes)

    def matches(self, selector: tuple[tuple[str, str], ...]) -> bool:
        """Whether its nodes have every label asked for."""
        mine = dict(self.labels)
        return all(mine.get(key) == value for key, value in selector)


@dataclass(frozen=True, slots=True)
class Offer:
    """The indexed whole.

    Attributes:
        sheaves: all profiles of each model's variants, by model.
    """

    shapes: dict[str, tuple[Shape, ...]]
    variants: dict[str, tuple[Variant, ...]]
    profiles: dict[str, tuple[Profile, ...]]
    sheaves: dict[str, tuple[Sheaf, ...]]
    quarantined: tuple[Quarantine, ...]
    levers: Levers

    def shapes_for(self, deployment: Deployment, device_class: str) -> tuple[Shape, ...]:
        """Shapes of a class that a deployment may use."""
        return tuple(s for s in self.shapes.get(device_class, ()) if s.matches(deployment.node_selector))


class Known:
    """Tables of profiles that a plan has worked out, for its caller to hand to the next one.

    A memo of a pure function: a plan is the same with it or without. It keeps the tables of the last catalogue only.
    """

    def __init__(self) -> None:
        self._sheaves: dict[str, tuple[tuple[Profile, ...], tuple[Sheaf, ...]]] = {}

    def sheaves(self, profiles: dict[str, list[Profile]]) -> dict[str, tuple[Sheaf, ...]]:
        """The sheaves of the profiles of each model."""
        before, self._sheaves = self._sheaves, {}
        for model_id, found in profiles.items():
            last = before.get(model_id)
            same = last is not None and len(last[0]) == len(found) and all(map(operator.is_, last[0], found))
            self._sheaves[model_id] = last if last and same else (tuple(found), sheaves_of(found))
        return {model_id: sheaves for model_id, (_, sheaves) in self._sheaves.items()}


def offer_of(situation: Situation, ground: Ground, known: Known | None = None) -> Offer:
    """The offer of a situation."""
    variants: dict[str, list[Variant]] = defaultdict(list)
    for variant in sorted(situation.catalog.variants, key=lambda v: (v.name, v.variant_id)):
        variants[variant.model_id].append(variant)
    profiles: dict[str, list[Profile]] = defaultdict(list)
    for profile in sorted(situation.catalog.profiles, key=lambda p: (p.batch_limit, p.profile_id)):
        profiles[profile.variant_id].append(profile)
    wanted = {deployment.model_id for deployment in situation.deployments}
    tables = {
        model_id: [p for v in found for p in profiles.get(v.variant_id, ())]
        for model_id, found in variants.items()
        if model_id in wanted
    }
    return Offer(
        shapes=_shapes(ground.groups),
        variants={model_id: tuple(found) for model_id, found in variants.items()},
        profiles={variant_id: tuple(found) for variant_id, found in profiles.items()},
        sheaves=(known or Known()).sheaves(tables),
        quarantined=situation.quarantined,
        levers=situation.levers,
    )


_Alike = tuple[str, int, int, float, tuple[PowerSetting, ...], int, tuple[tuple[str, str], ...]]


def _shapes(groups: tuple[Group, ...]) -> dict[str, tuple[Shape, ...]]:
    merged: dict[_Alike, list[Group]] = defaultdict(list)
    for group in groups:
        like = group.likeness
        power = (like.idle_power_mw, like.power_settings)
        merged[like.device_class, like.memory_bytes, like.cores, *power, like.board, like.labels].append(group)
    shapes: dict[str, list[Shape]] = defaultdict(list)
    for (device_class, *_), alike in merged.items():
        first = alike[0]
        count = sum(group.size for group in alike)
        shapes[device_class].append(Shape(first.device, first.board, first.likeness.labels, count))
    return {device_class: tuple(found) for device_class, found in shapes.items()}
