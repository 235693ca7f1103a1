"""Records what a machine's NVIDIA boards are, offer and tell. Reads only: mode, clocks, caps and layout stay.

    python -m bench.gpu.discover > bench/gpu/results/<board>-<driver>.json      # about a minute for each board

Never run on hardware so far. What it records, and what for:

    facts, table, instances     compared with the known boards (services/node_agent/gpu/known_boards.py)
    refresh_ms                  how often the energy counter shows a new value; board_energy.REFRESH_S assumes 100 ms
    windows                     counter against the integral of power over windows of several lengths; the rule that
                                figures under 5 s are no measurement rests on the spread of these
    call_us                     what each reading costs with the real driver
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from services.node_agent.gpu.differences import differences
from services.node_agent.gpu.faults import GpuError
from services.node_agent.gpu.nvml import NvmlReader, open_nvml

POLL_S: Final = 0.005
WINDOWS_S: Final = (0.5, 1.0, 2.0, 5.0)
REPEATS: Final = 5
CALLS: Final = 50


def main() -> int:
    """Prints the record as JSON; 1 when there is nothing to record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refresh-s", type=float, default=10.0, help="how long to watch the counter")
    parser.add_argument("--windows-s", type=float, nargs="*", default=WINDOWS_S, help="lengths of windows")
    arguments = parser.parse_args()
    try:
        session = open_nvml()
    except GpuError as error:
        print(f"the NVIDIA driver cannot be used: {error.message}", file=sys.stderr)
        return 1
    if session is None:
        print("no NVIDIA driver here: there is no libnvidia-ml.so.1", file=sys.stderr)
        return 1
    reader = NvmlReader(session)
    boards = [_board(reader, facts.uuid, arguments) for facts in reader.boards()]
    record = {"system": dataclasses.asdict(reader.system()), "boards": boards, "lost": reader.lost()}
    print(json.dumps(record, indent=2))
    return 0


def _board(reader: NvmlReader, uuid: str, arguments: argparse.Namespace) -> dict[str, Any]:
    facts = next(one for one in reader.boards() if one.uuid == uuid)
    mode = reader.mig_mode(uuid)
    return {
        "facts": dataclasses.asdict(facts),
        "mig": dataclasses.asdict(mode),
        "table": _told(lambda: dataclasses.asdict(reader.table(uuid))),
        "differences": _told(lambda: differences(facts.device_class, reader.table(uuid))),
        "instances": _told(lambda: [dataclasses.asdict(one) for one in reader.instances(uuid)]),
        "reading": dataclasses.asdict(reader.read(uuid)),
        "slices": _told(lambda: [dataclasses.asdict(one) for one in reader.read_slices(uuid)]),
        "call_us": {
            "read": _cost_us(lambda: reader.read(uuid)),
            "read_slices": _cost_us(lambda: reader.read_slices(uuid)),
        },
        "refresh_ms": _refresh_ms(reader, uuid, arguments.refresh_s),
        "windows": [_window(reader, uuid, length_s) for length_s in arguments.windows_s],
    }


def _told(question: Callable[[], Any]) -> Any:
    """The answer, or why there is none: a right may be missing for one and not for others."""
    try:
        return question()
    except GpuError as error:
        return {"refused": type(error).__name__, "code": error.code, "message": error.message}


def _cost_us(call: Callable[[], object]) -> dict[str, float]:
    spent_us = []
    for _ in range(CALLS):
        began_s = time.perf_counter()
        call()
        spent_us.append((time.perf_counter() - began_s) * 1e6)
    return {"median": round(statistics.median(spent_us), 1), "most": round(max(spent_us), 1)}


def _refresh_ms(reader: NvmlReader, uuid: str, length_s: float) -> dict[str, float] | None:
    """Time between two values of the counter; None without a counter, or when it did not move."""
    changes_s, before = [], reader.read(uuid).energy_mj
    end_s, pause = time.monotonic() + length_s, threading.Event()
    while before is not None and time.monotonic() < end_s:
        pause.wait(POLL_S)
        now = reader.read(uuid).energy_mj
        if now != before:
            changes_s.append(time.monotonic())
            before = now
    gaps_ms = [(later - sooner) * 1e3 for sooner, later in itertools.pairwise(changes_s)]
    if not gaps_ms:
        return None
    return {
        "median": round(statistics.median(gaps_ms), 1),
        "least": round(min(gaps_ms), 1),
        "most": round(max(gaps_ms), 1),
    }


def _window(reader: NvmlReader, uuid: str, length_s: float) -> dict[str, Any]:
    """Energy over windows of one length by counter and by power, with start offsets that differ."""
    by_counter, by_power = [], []
    pause = threading.Event()
    for repeat in range(REPEATS):
        pause.wait(0.017 * repeat)
        first = last = reader.read(uuid)
        began_s = before_s = time.monotonic()
        integral_mj = 0.0
        while (now_s := time.monotonic()) - began_s < length_s:
            pause.wait(POLL_S * 4)
            last = reader.read(uuid)
            integral_mj += (last.power_mw or 0) * (time.monotonic() - before_s)
            before_s = time.monotonic()
        passed_s = now_s - began_s
        if first.energy_mj is not None and last.energy_mj is not None:
            by_counter.append((last.energy_mj - first.energy_mj) / passed_s)
        by_power.append(integral_mj / passed_s)
    return {"length_s": length_s, "counter_mw": _spread(by_counter), "power_mw": _spread(by_power)}


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": round(statistics.median(values)), "least": round(min(values)), "most": round(max(values))}


if __name__ == "__main__":
    sys.exit(main())
