"""Which means a planner may use; an ablation takes one away. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Levers:
    """What may be chosen.

    Attributes:
        variants: any admitted variant; without it only the fastest of each model.
        partitions: any partition of a device; without it whole devices or the largest core set.
        power: any clock and cap a device offers; without it the default.
        easing: clocks fall while nothing on a board would be late by it, and are full else. Done by the node agents.
        resting: engines let the clocks of an idle board fall; without it their contexts keep them up. Set at the node
            agents (`idle_boost`), told here so that the simulator compares policies with and without.
        deadlines: engines take in prompts so that as many as possible are in time; without it, first come, first
            served. Done by the replicas, told here so that the simulator compares policies with and without.
        pacing: tokens come as late as their limit allows, so that batches are larger. Done by the replicas.
        packing: requests fill one replica before the next one works; without it they are shared out evenly.
        consolidation: devices with nothing on them may sleep, and work is packed for that.
    """

    variants: bool = True
    partitions: bool = True
    power: bool = True
    easing: bool = True
    resting: bool = True
    consolidation: bool = True
    packing: bool = True
    deadlines: bool = True
    pacing: bool = True


ALL_LEVERS: Final = Levers()
