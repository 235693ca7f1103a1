"""What was seen of traffic and power: sums over short windows, as gateways count them. Pure values.

Windows are sums only, so that those of several gateways add up and repeating a window does no harm. Lengths are kept
as a sum and a sum of squares: mean and spread follow, and nothing grows with the number of requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

# Long enough to hold some requests at ordinary rates, short enough that danger is seen within two windows.
WINDOW_S: Final = 5.0
# Windows of one observation: five minutes, which is what the fast path and a new leader need.
MOST_WINDOWS: Final = 60
# The 95th percentile of the standard normal distribution.
_Z95: Final = 1.6449


@dataclass(frozen=True, slots=True)
class Window:
    """What happened to one deployment's requests in one window.

    Attributes:
        start_s: on the clock of `now_s`.
        arrivals: requests that came in.
        finished: requests that ended well; `lost` ones ended by a fault of ours.
        prompt_tokens: sum over arrivals; `prompt_squares` is the sum of squares.
        output_tokens: sum over finished; `output_squares` is the sum of squares.
        judged: requests whose outcome against the SLO became known: finished ones, and waiting ones past a limit.
        within: judged ones that met every latency limit; `ttft_within` and `tpot_within` those of one kind.
        queued: requests waiting at the window's end.
        at_work: requests being answered at the window's end.
    """

    start_s: float
    length_s: float = WINDOW_S
    arrivals: int = 0
    finished: int = 0
    lost: int = 0
    prompt_tokens: float = 0.0
    prompt_squares: float = 0.0
    output_tokens: float = 0.0
    output_squares: float = 0.0
    judged: int = 0
    within: int = 0
    ttft_within: int = 0
    tpot_within: int = 0
    queued: int = 0
    at_work: int = 0

    @property
    def end_s(self) -> float:
        """When it was over."""
        return self.start_s + self.length_s


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
    """How fast a replica was lately, against its own clock: means over the last minute.

    Attributes:
        sequences: mean number it worked on together.
        samples: requests behind the figures.
    """

    node_id: str
    replica_id: str
    ttft_ms: float
    tpot_ms: float
    sequences: float
    samples: int


def p95_of(total: float, squares: float, count: int) -> float:
    """The 95th percentile of a lognormal with these moments; lengths of prompts and answers are close to one.

    Args:
        total: sum of the values.
        squares: sum of their squares.
        count: how many there are; 0 gives 0.
    """
    if count <= 0 or total <= 0.0:
        return 0.0
    mean = total / count
    variance = max(squares / count - mean * mean, 0.0)
    sigma = math.sqrt(math.log1p(variance / (mean * mean)))
    return mean * math.exp(_Z95 * sigma - sigma * sigma / 2.0)
