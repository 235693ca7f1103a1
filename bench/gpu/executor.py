"""Changes of a layout, killed and failed at every step, on a simulated H100. No GPU takes part.

    python -m bench.gpu.executor [--every 1] [--folder /dev/shm]

Every pair of maximal layouts (19 × 18, plain profiles): killed in the answer to each device call, and at each write of
the journal with a part of the line lost; then each kind of failure at each call. `--every N` takes each Nth pair. Time
is simulated: what is printed is time that an executor waits, not time of a driver.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice, permutations
from pathlib import Path
from typing import Final

import structlog

from services.node_agent.core.mig.ledger import Outcome
from services.node_agent.core.mig.model import Layout
from services.node_agent.core.mig.space import LayoutSpace
from services.node_agent.gpu.executor.board import Planners
from services.node_agent.gpu.simulated import Fault, FaultKind
from tests.gpu.executor.bench import Bench
from tests.gpu.executor.crashes import Crashes
from tests.mig.fixtures import H100_80, PLAIN, only

# Bytes of the last line that a crash leaves unwritten.
TORN_BYTES: Final = 9
CHANGES: Final = ("create_gpu_instance", "create_compute_instance", "destroy_compute_instance", "destroy_gpu_instance")
# How often each kind strikes before the executor gives a call up.
FAILURES: Final = {
    FaultKind.IN_USE: 5,
    FaultKind.NO_ROOM: 2,
    FaultKind.NO_PERMISSION: 1,
    FaultKind.NOT_FOUND: 2,
    FaultKind.TROUBLE: 2,
    FaultKind.MISSING_SYMBOL: 1,
}


def pairs(every: int) -> Iterator[tuple[Layout, Layout]]:
    """Ordered pairs of maximal layouts."""
    full = list(LayoutSpace(only(H100_80, *PLAIN)).maximal_layouts())
    return islice(permutations(full, 2), 0, None, every)


def crash(folder: Path, planners: Planners, every: int) -> None:
    """Kills; `Crashes` asserts that the next process converges without orphans."""
    calls = writes = plans = 0
    longest_s = 0.0
    for index, (before, after) in enumerate(pairs(every)):
        plans += 1
        at_calls = Crashes(folder / f"calls-{index}", planners, before, after)
        at_calls.at_every_call()
        at_writes = Crashes(folder / f"writes-{index}", planners, before, after)
        at_writes.at_every_sync(TORN_BYTES)
        calls, writes = calls + at_calls.count, writes + at_writes.count
        longest_s = max(longest_s, at_calls.longest_s, at_writes.longest_s)
    print(f"{plans} changes killed: in {calls} device calls, at {writes} journal writes; all converged, 0 orphans")
    print(f"longest wait of a restarted executor: {longest_s:.1f} s")


def fail(folder: Path, planners: Planners, every: int) -> None:
    """Fails each call of each verb for good, once for each kind, until the change survives."""
    outcomes: Counter[str] = Counter()
    restored = injected = 0
    longest_s = 0.0
    for index, (before, after) in enumerate(pairs(every)):
        for kind, times in FAILURES.items():
            for verb in CHANGES:
                for number in range(len(before) + len(after)):
                    place = folder / f"{index}-{kind}-{verb}-{number}"
                    place.mkdir()
                    bench = Bench(place, sync=lambda _file: None, planners=planners)
                    bench.reach(bench.wish(before, 1))
                    bench.machine.inject(Fault(kind, verb=verb, after=number, times=times))
                    begun_s = bench.clock.now_s
                    outcome = bench.reach(bench.wish(after, 2))
                    bench.executor.close()
                    if outcome is Outcome.REACHED:
                        break
                    injected += 1
                    longest_s = max(longest_s, bench.clock.now_s - begun_s)
                    outcomes[str(outcome)] += 1
                    restored += bench.layout == before and not bench.orphans
    print(f"{injected} failures that stay: {restored} back in the earlier layout ({dict(outcomes)})")
    print(f"longest wait until the earlier layout stood again: {longest_s:.1f} s")


def main() -> None:
    """Runs both."""
    parser = argparse.ArgumentParser(description="crashes and failures of the MIG executor")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None)
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        planners = Planners()
        crash(Path(folder), planners, chosen.every)
        fail(Path(folder), planners, chosen.every)


if __name__ == "__main__":
    main()
