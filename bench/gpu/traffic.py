"""Load on one slice of a simulated board while the rest of the board is cut anew again and again. No GPU takes part.

    python -m bench.gpu.traffic [--windows 8] [--seconds 10] [--per-s 20]

Agent, helper's server and replica are real; the replica runs a tiny CPU variant (tests/gpu/serving.py says what that
shows and what not). Windows with and without changes take turns in one run, each with the same open-loop load; printed
are failures, percentiles of both kinds, and how many layouts were reached meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path

import structlog

from tests.gpu.serving import Board, Load, serving_board
from tests.tiny_variant import TinyVariant, build_tiny_variant
from tradewind.v1 import node_pb2

KEPT = "19@0"
OTHERS = (("9@4",), ("14@4", "19@6"), ("14@2", "9@4"))
# A change each so often: far more than the one in ten minutes that a board is allowed.
CHANGE_EVERY_S = 1.0


async def change(board: Board, done: list[float]) -> None:
    """Cuts the rest of the board until cancelled."""
    while True:
        for others in OTHERS:
            begun_s = time.monotonic()
            board.tell([KEPT, *others], steady=KEPT)
            await board.ended(node_pb2.LAYOUT_OUTCOME_REACHED, KEPT, *others)
            done.append(time.monotonic() - begun_s)
            await asyncio.sleep(max(0.0, begun_s + CHANGE_EVERY_S - time.monotonic()))


async def measure(tiny: TinyVariant, folder: Path, windows: int, seconds: float, per_s: float) -> dict[str, object]:
    """Windows of both kinds in turn, the first one of each thrown away."""
    loads = {"still": Load(), "changing": Load()}
    changes: list[float] = []
    async with serving_board(tiny, folder) as board:
        board.tell([KEPT])
        await board.ended(node_pb2.LAYOUT_OUTCOME_REACHED, KEPT)
        board.tell([KEPT], steady=KEPT)
        await board.orchestrator.state("steady", node_pb2.REPLICA_STATE_READY)
        for number in range(2 * windows + 2):
            name = ("still", "changing")[number % 2]
            load = loads[name] if number >= 2 else Load()
            changing = asyncio.create_task(change(board, changes)) if name == "changing" else None
            await load.run(board.agent, "steady", per_s, time.monotonic() + seconds)
            if changing is not None:
                changing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await changing
    return {"layouts_reached": len(changes)} | {name: figures(load) for name, load in loads.items()}


def figures(load: Load) -> dict[str, object]:
    """Failures and percentiles in milliseconds."""
    cuts = statistics.quantiles(load.latencies_s, n=100)
    shown = {f"p{n}_ms": round(cuts[n - 1] * 1e3, 2) for n in (50, 95, 99)}
    return {"requests": len(load.latencies_s), "failed": len(load.failures), **shown}


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--per-s", type=float, default=20.0)
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    tiny = build_tiny_variant()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(tiny, Path(folder), chosen.windows, chosen.seconds, chosen.per_s))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
