"""Times calls in turns, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

K = TypeVar("K")

# Turns that are not counted: code is paged in and caches are filled.
WARM_UP_TURNS: Final = 2


def timed_in_turns(calls: Mapping[K, Callable[[], Any]], rounds: int) -> dict[K, list[float]]:
    """Seconds of each call, one for each round."""
    samples: dict[K, list[float]] = {key: [] for key in calls}
    for turn in range(rounds + WARM_UP_TURNS):
        for key, call in calls.items():
            began = time.perf_counter()
            call()
            if turn >= WARM_UP_TURNS:
                samples[key].append(time.perf_counter() - began)
    return samples
