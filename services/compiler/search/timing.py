"""Times the functions of a loaded module, in turns, so that a slow moment does not fall on one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, Final

from services.compiler.quality.session import Session
from services.compiler.search.core.facts import Cost
from tradewind.domain.manifest import Function

# Rounds end when they took this long together, and are at least and at most so many.
_ROUNDS_S: Final = 2.0
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 40
# Tokens before the one that is timed: near the start, where every bucket reaches.
_POSITION: Final = 16


def time_functions(session: Session) -> tuple[Cost, ...]:
    """As `time_calls`, of every function of a model that generates."""
    return time_calls({function.name: _call(session, function) for function in session.functions})


def time_calls(calls: Mapping[str, Callable[[], Any]]) -> tuple[Cost, ...]:
    """Median time and processor time of each call, after one to warm up.

    Args:
        calls: by the name of the function that each calls.
    """
    for call in calls.values():
        call()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    began = time.perf_counter()
    for done in range(_MOST_ROUNDS):
        if done >= _LEAST_ROUNDS and time.perf_counter() - began > _ROUNDS_S:
            break
        for name, call in calls.items():
            times[name].append(_timed(call))
    return tuple(
        Cost(name, 1e3 * median(wall for wall, _ in seen), 1e3 * median(cpu for _, cpu in seen))
        for name, seen in times.items()
    )


def _timed(call: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def _call(session: Session, function: Function) -> Callable[[], Any]:
    """A call as an engine makes it: a full chunk of a prompt, or one token of each sequence."""
    if function.phase == "prefill":
        tokens = [1 + index % 7 for index in range(function.tokens)]
        return lambda: session.prefill(function, tokens, 0, 0)
    at = min(_POSITION, function.context - 1)
    return lambda: session.decode(function, [1] * function.batch, [at] * function.batch)
