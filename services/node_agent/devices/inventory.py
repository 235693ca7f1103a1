"""The devices of a node, and which of them something goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.node_agent.devices.port import Device
from tradewind.domain.errors import InvalidField, UnsupportedModel


class Inventory:
    """Devices by id.

    Args:
        devices: at least one; the first is the default.
    """

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = {device.facts.device_id: device for device in devices}

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def find(self, device_id: str) -> Device:
        """A device; "" is the first.

        Raises:
            InvalidField: no such device.
        """
        if not device_id:
            return next(iter(self._devices.values()))
        try:
            return self._devices[device_id]
        except KeyError:
            raise InvalidField(
                "device_id", f"this node has no device {device_id!r}, only {', '.join(self._devices)}"
            ) from None

    def for_target(self, target: str, device_id: str) -> Device:
        """The device for a variant's target: the one named, else the first that runs it.

        Raises:
            InvalidField: no such device.
            UnsupportedModel: it, or none, runs the target.
        """
        candidates = [self.find(device_id)] if device_id else list(self)
        for device in candidates:
            if target in device.facts.targets:
                return device
        known = sorted({t for device in candidates for t in device.facts.targets})
        raise UnsupportedModel(
            f"no device here runs {target}; build a variant for one of {', '.join(known)}",
            {"supported": ",".join(known)},
        )
