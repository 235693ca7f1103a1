"""Clocks and caps that a device is measured at: what was asked for, or what plans can use of what it offers. Pure.

A plan eases a whole board from its default to the one clock that the board offers for it, and weighs no other clock of
a board that eases; a slice cannot ease, so that each locked clock counts. More would be measured for nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tradewind.domain.errors import InvalidField
from tradewind.v1 import common_pb2, node_pb2, profiler_pb2

DEFAULT: Final = common_pb2.PowerSetting()
SLICE_PREFIX: Final = "mig/"
# A ladder of settings; each is a whole measurement.
MAX_SETTINGS: Final = 16
NO_CLOCKS: Final = "CPUs and Vulkan devices offer none, boards do whose agent has the helper (docs/helper.md)"


def check_settings(request: profiler_pb2.RunProfileRequest) -> None:
    """Refuses settings that nothing can be measured at.

    Raises:
        InvalidField: two clocks in one, a zero, too many, or both ways of asking at once.
    """
    field = "power_settings"
    if request.planned_clocks and request.power_settings:
        raise InvalidField(field, "leave it empty with planned_clocks, which are those that plans can use")
    if len(request.power_settings) > MAX_SETTINGS:
        raise InvalidField(field, f"{len(request.power_settings)} are too many; at most {MAX_SETTINGS}")
    for one in request.power_settings:
        if one.HasField("eased_sm_clock_mhz"):
            raise InvalidField(field, "a measurement runs at one clock: name it as sm_clock_mhz")
        if (one.HasField("sm_clock_mhz") and not one.sm_clock_mhz) or (
            one.HasField("power_cap_mw") and not one.power_cap_mw
        ):
            raise InvalidField(field, "a clock or cap of 0; leave it unset for the default")


def settings_for(
    request: profiler_pb2.RunProfileRequest, device: node_pb2.Device, kind: str
) -> list[common_pb2.PowerSetting]:
    """The settings to measure a partition kind of a device at, the default first; none when it takes none asked for."""
    offered = list(device.power_settings)
    if request.planned_clocks:
        return [DEFAULT, *_planned(offered, is_slice=kind.startswith(SLICE_PREFIX))]
    wanted = _ordered(request.power_settings) or [DEFAULT]
    return [one for one in wanted if one == DEFAULT or offered or device.can_set_power]


def key_of(setting: common_pb2.PowerSetting) -> bytes:
    """What profiles of a point are told apart by; unset is the default."""
    return setting.SerializeToString(deterministic=True)


def words(setting: common_pb2.PowerSetting) -> str:
    """For a person; "" for the default."""
    clock = f"{setting.sm_clock_mhz} MHz" if setting.HasField("sm_clock_mhz") else ""
    cap = f"{setting.power_cap_mw / 1e3:g} W" if setting.HasField("power_cap_mw") else ""
    return ", ".join(filter(None, (clock, cap)))


def _planned(offered: Sequence[common_pb2.PowerSetting], *, is_slice: bool) -> list[common_pb2.PowerSetting]:
    eased = {one.eased_sm_clock_mhz for one in offered if one.HasField("eased_sm_clock_mhz")}
    locked = {one.sm_clock_mhz for one in offered if one.HasField("sm_clock_mhz")}
    clocks = locked if is_slice else eased or locked
    return [common_pb2.PowerSetting(sm_clock_mhz=clock) for clock in sorted(clocks, reverse=True)]


def _ordered(settings: Iterable[common_pb2.PowerSetting]) -> list[common_pb2.PowerSetting]:
    """Each once, the default and higher clocks first."""
    once = {key_of(one): one for one in settings}
    return sorted(once.values(), key=lambda one: (one != DEFAULT, -one.sm_clock_mhz, -one.power_cap_mw))
