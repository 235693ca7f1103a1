"""Waiting on a condition, with a limit and words for when it does not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LIMIT_S = 40.0
_LOOK_S = 0.02


async def until(condition: Callable[[], bool], limit_s: float = LIMIT_S, words: Callable[[], str] = lambda: "") -> None:
    """Returns when the condition holds; fails with the words after the limit."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {limit_s:.0f} s: {words()}"
        await asyncio.sleep(_LOOK_S)
