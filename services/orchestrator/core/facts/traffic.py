"""What was seen of traffic and power, of deployments, devices and replicas. Pure values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from tradewind.domain.traffic import MOST_WINDOWS, WINDOW_S, Window

__all__ = ["MOST_WINDOWS", "WINDOW_S", "DeploymentTraffic", "PowerReading", "Speed", "Window", "p95_of"]

# The 95th percentile of the standard normal distribution.
_Z95: Final = 1.6449


@dataclass(frozen=True, slots=True)
class DeploymentTraffic:
    """One deployment's newest windows, oldest first, at most `MOST_WINDOWS`; windows may be missing.

    Attributes:
        queued: requests waiting right now, held ones of a sleeping deployment included.
        at_work: requests being answered right now.
    """

    deployment_id: str
    windows: tuple[Window, ...] = ()
    queued: int = 0
    at_work: int = 0


@dataclass(frozen=True, slots=True)
class PowerReading:
    """Mean power of one device over its last report period, as its node reports it."""

    node_id: str
    device_id: str
    power_mw: float


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a replica was lately: means over the last minute.

    Attributes:
        sequences: number it worked on together.
        samples: requests behind the figures.
        variant_id: what it runs; "" when that is not told.
    """

    node_id: str
    replica_id: str
    ttft_ms: float
    tpot_ms: float
    sequences: float
    samples: int
    variant_id: str = ""


def p95_of(total: float, squares: float, count: float) -> float:
    """The 95th percentile of a lognormal with these moments; lengths of prompts and answers are close to one.

    Args:
        total: sum of the values.
        squares: sum of their squares.
        count: how many there are; 0 gives 0.
    """
    if count <= 0.0 or total <= 0.0:
        return 0.0
    mean = total / count
    variance = max(squares / count - mean * mean, 0.0)
    sigma = math.sqrt(math.log1p(variance / (mean * mean)))
    return mean * math.exp(_Z95 * sigma - sigma * sigma / 2.0)
