"""What there is to choose from, indexed once for a plan: shapes of devices, variants by model, profiles by variant."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from services.orchestrator.core.facts.catalog import Quarantine
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, Device, PowerSetting, cores_of
from services.orchestrator.core.facts.levers import Levers
from services.orchestrator.core.facts.loads import Sheaf, sheaves_of
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.variant import Variant
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.boards import Board, Boards
from services.orchestrator.core.planning.ground import Ground, Group, step_of

if TYPE_CHECKING:
    from services.orchestrator.core.planning.points import Point, Setting
    from services.orchestrator.core.planning.weigh import Able, Option, Refused

# Share of a device's memory that replicas may fill; the rest is for the system, for buffers and for a measuring run.
USABLE_MEMORY_SHARE: Final = 0.9
# Wishes whose weighing is kept, about a hundred kilobytes each; deployments come and go, and with them their ids.
MOST_WEIGHED: Final = 400


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


Shapes = dict[str, tuple[Shape, ...]]
Variants = dict[str, tuple[Variant, ...]]
Profiles = dict[str, tuple[Profile, ...]]
Selector = tuple[tuple[str, str], ...]
Settings = dict[tuple[str, Selector], "tuple[Setting, ...]"]
Weighed = tuple["Option | Refused", ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """The indexed whole.

    Attributes:
        sheaves: all profiles of each model's variants, by model.
        settings: what batch limits of a variant's profiles are on nodes with some labels; filled where it is asked for.
    """

    shapes: Shapes
    variants: Variants
    profiles: Profiles
    sheaves: dict[str, tuple[Sheaf, ...]]
    quarantined: tuple[Quarantine, ...]
    levers: Levers
    settings: Settings

    def shapes_for(self, selector: Selector, device_class: str) -> tuple[Shape, ...]:
        """Shapes of a class on nodes with these labels."""
        return tuple(s for s in self.shapes.get(device_class, ()) if s.matches(selector))


class Known:
    """What a plan has worked out of the catalogue and the kinds of devices, for its caller to hand to the next one.

    A memo of pure functions: a plan is the same with it or without. It keeps what the last plan used only, and of
    wishes what was last weighed for each.
    """

    def __init__(self) -> None:
        self.boards = Boards()
        self._sheaves: dict[str, tuple[tuple[Profile, ...], tuple[Sheaf, ...]]] = {}
        self._source: tuple[Shapes, Variants, Profiles] | None = None
        self._settings: Settings = {}
        self._weighed: _Memo[Weighed] = _Memo()
        self._able: _Memo[Able] = _Memo()

    def sheaves(self, profiles: dict[str, list[Profile]]) -> dict[str, tuple[Sheaf, ...]]:
        """The sheaves of the profiles of each model."""
        before, self._sheaves = self._sheaves, {}
        for model_id, found in profiles.items():
            last = before.get(model_id)
            self._sheaves[model_id] = last if last and _same(last[0], found) else (tuple(found), sheaves_of(found))
        return {model_id: sheaves for model_id, (_, sheaves) in self._sheaves.items()}

    def settings(self, shapes: Shapes, variants: Variants, profiles: Profiles) -> Settings:
        """Settings worked out so far of these shapes, variants and profiles."""
        before = self._source
        if before is None or before[:2] != (shapes, variants) or not _same_by_key(before[2], profiles):
            self._source, self._settings = (shapes, variants, profiles), {}
        return self._settings

    def weighed(self, asked: Sequence[Asked], weigh: Callable[[Sequence[int]], Sequence[Weighed]]) -> list[Weighed]:
        """What points of wishes were weighed to.

        Args:
            weigh: does it for those, by number, of which the wish or a point is another than last time.
        """
        return self._weighed.of([(wish.deployment_id, wish, points) for wish, points in asked], weigh)

    def able(self, asked: Sequence[Asked], find: Callable[[Sequence[int]], Sequence[Able]]) -> list[Able]:
        """What points of wishes can do, whatever the rate is.

        Args:
            find: does it for those, by number, of which a limit, the shape of a request or a point is another.
        """
        return self._able.of([(wish.deployment_id, _shape_of(wish), points) for wish, points in asked], find)


Asked = tuple[Deployment, tuple["Point", ...]]
T = TypeVar("T")


class _Memo(Generic[T]):
    """What was last found for each wish, by what it was asked for and the points."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, tuple[Point, ...], T]] = {}

    def of(
        self,
        asked: Sequence[tuple[str, object, tuple[Point, ...]]],
        find: Callable[[Sequence[int]], Sequence[T]],
    ) -> list[T]:
        """What is known, or found now for those numbers of which it is not."""
        new = [number for number, one in enumerate(asked) if not self._has(*one)]
        fresh = dict(zip(new, find(new), strict=True)) if new else {}
        if len(self._known) + len(fresh) > MOST_WEIGHED:
            self._known = {name: self._known[name] for name, _, _ in asked if name in self._known}
        for number, found in fresh.items():
            name, key, points = asked[number]
            self._known[name] = (key, points, found)
        return [self._known[name][2] for name, _, _ in asked]

    def _has(self, name: str, key: object, points: tuple[Point, ...]) -> bool:
        last = self._known.get(name)
        return last is not None and last[0] == key and _same(last[1], points)


def _shape_of(wish: Deployment) -> object:
    """What of a wish says what a replica can do for it."""
    return (wish.slo, wish.demand.prompt_tokens, wish.demand.output_tokens)


def _same(one: Sequence[object], other: Sequence[object]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _same_by_key(one: Profiles, other: Profiles) -> bool:
    """The same objects, for tables of what was read from a profile go by which it is, not by what it says."""
    return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)


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
    known = known or Known()
    shapes = _shapes(ground.groups)
    by_model = {model_id: tuple(found) for model_id, found in variants.items()}
    by_variant = {variant_id: tuple(found) for variant_id, found in profiles.items()}
    return Offer(
        shapes=shapes,
        variants=by_model,
        profiles=by_variant,
        sheaves=known.sheaves(tables),
        quarantined=situation.quarantined,
        levers=situation.levers,
        settings=known.settings(shapes, by_model, by_variant),
    )


_Alike = tuple[str, int, int, float, tuple[PowerSetting, ...], int, tuple[tuple[str, str], ...]]


def _shapes(groups: tuple[Group, ...]) -> dict[str, tuple[Shape, ...]]:
    merged: dict[_Alike, list[Group]] = defaultdict(list)
    for group in groups:
        like = group.likeness
        power = (step_of(like.idle_power_mw), like.power_settings)
        merged[like.device_class, like.memory_bytes, like.cores, *power, like.board, like.labels].append(group)
    shapes: dict[str, list[Shape]] = defaultdict(list)
    for (device_class, *_), alike in merged.items():
        first = alike[0]
        count = sum(group.size for group in alike)
        shapes[device_class].append(Shape(_bare(alike), first.board, first.likeness.labels, count))
    return {device_class: tuple(found) for device_class, found in shapes.items()}


def _bare(alike: list[Group]) -> Device:
    """One of the devices as if it had just been switched on, the same one whatever runs: what idles at most."""
    devices = (spot.device for group in alike for spot in group.spots)
    first = min(devices, key=lambda device: (-device.idle_power_mw, device.device_id))
    return replace(first, partitions=(), setting=DEFAULT_POWER, asleep=False, sleep_power_mw=None)
