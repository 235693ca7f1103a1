"""What sampling costs: eight boards with seven slices each on the fake library, through pynvml.

    python -m bench.gpu.telemetry                 # processor time of one look at all boards, at one look a second
    python -m bench.gpu.telemetry --threads 20    # while the agent's threads look, for 20 s: this process and its child

The fake answers at once; a real driver takes longer, and that time is mostly waiting. So this is what our own code and
pynvml cost, not what a real driver costs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pynvml

from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.board_watch import BoardWatch
from services.node_agent.gpu.nvml import NvmlAdmin, NvmlReader, open_nvml
from services.node_agent.gpu.reading.process import ReaderProcess
from services.node_agent.gpu.simulated.products import PRODUCTS
from services.node_agent.gpu.telemetry import PERIOD_S, Telemetry
from tests.gpu.fake_nvml.library import build
from tests.gpu.fake_nvml.machine import FakeMachine

BOARDS, SLICES, ONE_G = 8, 7, 19
ROUNDS, WARM_UP = 200, 20


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=float, default=0.0, metavar="SECONDS", help="through the agent's threads")
    parser.add_argument("--product", default="h100-80", choices=sorted(PRODUCTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.threads:
            figures = by_threads(Path(folder), arguments.product, arguments.threads)
        else:
            figures = by_hand(Path(folder), arguments.product)
    facts = {"boards": BOARDS, "slices": BOARDS * SLICES, "product": arguments.product}
    print(json.dumps({**facts, **figures}, indent=2))


def cut_machine(
    folder: Path, product: str, now_s: Callable[[], float]
) -> tuple[FakeMachine, list[BoardWatch], NvmlReader]:
    """Eight boards, each cut into seven slices at work."""
    library = build(folder)
    machine = FakeMachine(library, folder / "machine", [PRODUCTS[product]] * BOARDS)
    pynvml.nvmlLib = ctypes.CDLL(str(library))
    session = open_nvml()
    assert session is not None
    reader, admin = NvmlReader(session, now_s), NvmlAdmin(session)
    for uuid in machine.uuids:
        admin.set_mig_mode(uuid, True)
        for start in range(SLICES):
            gi_id = admin.create_gpu_instance(uuid, ONE_G, Placement(start, 1))
            admin.create_compute_instance(uuid, gi_id)
            machine.set_load(uuid, gi_id, 0.1 + start / 10, 0.2)
    return machine, [BoardWatch(reader, f, reader.table(f.uuid), now_s) for f in reader.boards()], reader


def by_hand(folder: Path, product: str) -> dict[str, float]:
    """Processor time of looking at every board once; between looks a second passes on the machine's clock."""
    now = [0.0]
    machine, watches, _ = cut_machine(folder, product, lambda: now[0])
    spent_ms, calls = [], 0
    for number in range(WARM_UP + ROUNDS):
        machine.advance(PERIOD_S)
        now[0] += PERIOD_S
        before_calls, before_s = machine.calls, time.process_time()
        for watch in watches:
            watch.look()
        if number >= WARM_UP:
            spent_ms.append((time.process_time() - before_s) * 1e3)
            calls = machine.calls - before_calls
    median_ms = statistics.median(spent_ms)
    return {
        "look_at_all_ms_median": round(median_ms, 3),
        "look_at_all_ms_p95": round(statistics.quantiles(spent_ms, n=20)[-1], 3),
        "library_calls": calls,
        "share_of_a_core": round(median_ms / 1e3 / PERIOD_S, 5),
    }


def by_threads(folder: Path, product: str, seconds: float) -> dict[str, float]:
    """Processor time while the agent's threads look through the child that reads NVML; events and switches included."""
    machine, _, _ = cut_machine(folder, product, time.monotonic)
    machine.run_in_real_time()
    os.environ |= {"FAKE_NVML_MACHINE": str(machine.file), "LD_LIBRARY_PATH": str(machine.path.parent)}
    reader = ReaderProcess()
    assert reader.open()
    watches = [BoardWatch(reader, f, reader.table(f.uuid), time.monotonic) for f in reader.boards()]
    telemetry = Telemetry(reader, watches)
    telemetry.start()
    ended = threading.Event()
    ended.wait(3 * PERIOD_S)
    child = psutil.Process(reader.pid)
    before_s, child_before, began_s = time.process_time(), child.cpu_times(), time.monotonic()
    ended.wait(seconds)
    agent_s, passed_s = time.process_time() - before_s, time.monotonic() - began_s
    child_s = sum(child.cpu_times()[:2]) - sum(child_before[:2])
    telemetry.stop()
    reader.close()
    shares = {"agent": agent_s / passed_s, "child": child_s / passed_s, "together": (agent_s + child_s) / passed_s}
    return {"seconds": round(passed_s, 1), **{f"share_of_a_core_{name}": round(v, 5) for name, v in shares.items()}}


if __name__ == "__main__":
    main()
