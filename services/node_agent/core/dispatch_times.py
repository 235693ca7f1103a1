"""Where a call's time goes: reads what IREE's profiler tells of one function's calls. Pure.

`iree-profile statistics --format=jsonl` writes one JSON object a line; rows of type "host_execution_function" add up
every run of one dispatch. IREE gives equal code of several functions one name, so a dispatch may bear another's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from tradewind.domain.manifest import Function

_ROW: Final = "host_execution_function"


@dataclass(frozen=True, slots=True)
class DispatchTime:
    """One dispatch of a function's call: how often it runs in it, and microseconds of all these runs."""

    function: str
    name: str
    count: float
    total_us: float


def read_statistics(text: str, function: str, calls: int) -> list[DispatchTime]:
    """Dispatches of one function, most expensive first.

    Args:
        text: JSON lines of `iree-profile statistics`.
        function: whose calls were profiled.
        calls: how many there were.

    Raises:
        ValueError: not what the profiler writes.
    """
    if calls < 1:
        raise ValueError(f"{function} was not called")
    found: list[DispatchTime] = []
    try:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        for row in rows:
            if row.get("row_type") != _ROW or not row.get("has_timing"):
                continue
            count, total_us = row["sample_count"] / calls, row["total_duration_ns"] / 1e3 / calls
            found.append(DispatchTime(function, str(row["function_name"]), count, total_us))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"the profile of {function} cannot be read: {error}") from error
    return sorted(found, key=lambda d: (-d.total_us, d.name))


def inputs_of(function: Function) -> tuple[str, ...]:
    """Arguments of a call at half of the function's context, in the form of IREE's tools."""
    middle = function.context // 2
    if function.phase == "prefill":
        start = min(middle, function.context - function.tokens)
        return (f"1x{function.tokens}xi64=1", "1xi64=0", f"1xi64={start}", f"1xi64={function.tokens}")
    return (f"{function.batch}xi64=1", f"{function.batch}xi64={middle}")
