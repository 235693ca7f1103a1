"""How much of a fleet may change for savings in a while. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ChangeBound:
    """Within a rolling window changes for savings touch at most a share of the fleet's devices.

    Attributes:
        share: of all devices, in (0, 1]; 1 is no bound.
        least: devices that are admitted in any fleet, however small its share is.
        window_s: length of the window.
    """

    share: float = 0.10
    least: int = 4
    window_s: float = 600.0

    def admits(self, devices: int) -> int:
        """Devices of a fleet of so many that may change within a window."""
        return max(self.least, int(self.share * devices))


# A tenth in ten minutes turns a whole fleet over in the hundred minutes that loads of a day change in; four devices are
# what one deployment of moderate size moves at once (docs/adr/0113).
DEFAULT_BOUND: Final = ChangeBound()
