"""Operating points of our own store as the simulator takes them: the live catalog, costs, and device types.

The catalog is made by the orchestrator's own translation, so a simulated planner sees exactly what the live one sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.translate.catalog import profiles_of, variant_of
from services.orchestrator.translate.nodes import power_of
from services.simulator.devices.boards import ASSUMPTIONS, Board
from services.simulator.devices.fits import Error
from services.simulator.engine.cost import StepCost
from services.simulator.stored.cost import cost_of_profile
from services.simulator.stored.residuals import residuals
from tradewind.client.profile_file import StoredProfiles
from tradewind.domain.errors import ProfileMissing
from tradewind.v1 import node_pb2

# What runs from our own store take for granted; printed with each report.
STORED_ASSUMPTIONS: Final = (
    "speed, power and load times of replicas are the store's profiles; what was not measured follows from their fit",
    "idle power is what the node told; a CPU with fewer cores than its profile's node draws it in proportion, and "
    "never sleeps unless its node says it can",
    "nothing but replicas works on the devices: services and clients that share their cores are not simulated",
)
# Of profiles without a clock setting.
_DEFAULT_CLOCK = 0
_Point = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True)
class StoredMenu:
    """What a model may run at, measured.

    Attributes:
        name: of the model.
        catalog: as the live orchestrator reads it.
        boards: device types by class; `cores` of a CPU as it was when its node was asked.
        errors: how far the engine's model is from the measured loads themselves.
    """

    name: str
    catalog: Catalog
    boards: Mapping[str, Board]
    cores: Mapping[str, int]
    costs: Mapping[_Point, StepCost]
    errors: tuple[Error, ...]

    def cost(self, variant_id: str, device_class: str, kind: str, clock_mhz: int) -> StepCost:
        """What the engine pays at a point of the catalog."""
        return self.costs[variant_id, device_class, kind, clock_mhz]

    def board(self, device_class: str) -> Board:
        """A device type.

        Raises:
            ProfileMissing: nothing was measured on it; the nearest that was is named.
        """
        if device_class in self.boards:
            return self.boards[device_class]
        near = get_close_matches(device_class, self.boards, 1, 0.0)
        raise ProfileMissing(
            f"{self.name} has no profiles on {device_class!r}; did you mean {near[0]!r}? Else run `tradewind profile "
            f"run {self.name}` where such a device is connected, and export again",
            {"model": self.name, "device_class": device_class},
        )


def stored_menu(stored: StoredProfiles) -> StoredMenu:
    """The menu of an export.

    Raises:
        ProfileMissing: a profile cannot be played from, or none is left.
    """
    recipes = {v.variant_id: v.recipe for v in stored.variants}
    usable = [p for p in stored.profiles if p.point.variant_id in recipes]
    if not usable or not stored.devices:
        raise ProfileMissing(
            f"the export of {stored.model.name} has no profile of a variant and device that it names; "
            f"run `tradewind profile run {stored.model.name}` and export again",
            {"model": stored.model.name},
        )
    # Newest first, as the store lists them: an older one of the same point does not count.
    costs: dict[_Point, StepCost] = {}
    errors = list[Error]()
    for profile in usable:
        point = profile.point
        clock = power_of(point.power).sm_clock_mhz or _DEFAULT_CLOCK
        key = (point.variant_id, point.device_class, point.partition_kind, clock)
        if key not in costs:
            costs[key] = cost_of_profile(profile, recipes[point.variant_id])
            errors += residuals(profile, costs[key], _name(stored, point.variant_id))
    variants = tuple(variant_of(v) for v in stored.variants)
    return StoredMenu(
        stored.model.name,
        Catalog(variants, profiles_of(usable)),
        {d.device_class: _board(d) for d in stored.devices},
        {d.device_class: len(d.cpu_ids) for d in stored.devices},
        costs,
        tuple(errors),
    )


def _name(stored: StoredProfiles, variant_id: str) -> str:
    return next(v.name for v in stored.variants if v.variant_id == variant_id)


def _board(device: node_pb2.Device) -> Board:
    """A device type: idle power is the node's own figure, for all cores that it offered; it sleeps if it says so."""
    idle_w = device.idle_power_mw / 1000.0
    sleep_w = device.sleep_power_mw / 1000.0 if device.HasField("sleep_power_mw") else idle_w
    return Board(
        name=device.device_class, hardware="", vidur="", kind="cpu" if device.cpu_ids else "gpu",
        memory_bytes=device.memory_bytes, bare_idle_w=idle_w, loaded_idle_w=idle_w, rested_idle_w=idle_w,
        ramp_s=0.0, most_w=0.0, peak_flops=0.0,
        sleep_w=sleep_w, wake_s=device.wake_s, load_bytes_per_s=0.0, start_s=0.0, clocks_mhz=(), mig=False,
        price_per_hour=device.price_per_hour, precisions=(),
    )  # fmt: skip


def assumptions_of(menu: object) -> tuple[str, ...]:
    """What a run of this menu takes for granted, for its report."""
    return STORED_ASSUMPTIONS if isinstance(menu, StoredMenu) else ASSUMPTIONS
