"""Changes of a layout, killed and failed at every step, on simulated boards. No GPU takes part.

    python -m bench.gpu.executor [--board h100-80] [--every 1] [--jobs 2] [--only kills] [--folder /dev/shm]

Every ordered pair of maximal layouts of plain profiles (19 × 18; of an A30 5 × 4): killed in the answer to each device
call, and at each write of the journal with a part of the line lost; then each kind of failure at each call. `--every N`
takes each Nth pair. Time is simulated: what is printed is time that an executor waits, not time of a driver.

A kill costs a whole change before it and a recovery after it, some 15 ms of one core, most of it planning and journal;
on a folder in memory the disk adds nothing. Pairs are shared out to `--jobs` processes, forked with planners built.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
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
from tests.mig.fixtures import A30, A100_40, A100_80, B200_180, H100_80, H200_141, PLAIN, only

BOARDS: Final = {
    "a100-40": A100_40,
    "a100-80": A100_80,
    "h100-80": H100_80,
    "h200-141": H200_141,
    "b200-180": B200_180,
    "a30": A30,
}
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

Pair = tuple[int, Layout, Layout]
# Filled before processes are forked, so that layouts are enumerated once.
_PLANNERS: Final = Planners()


@dataclass
class Sum:
    """What became of some changes."""

    counts: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0

    def add(self, other: Sum) -> None:
        """Takes in another sum."""
        self.counts += other.counts
        self.longest_s = max(self.longest_s, other.longest_s)


def pairs(board: str, every: int) -> Iterator[Pair]:
    """Numbered ordered pairs of maximal layouts."""
    plain = ("1g", "2g", "4g") if board == "a30" else PLAIN
    full = list(LayoutSpace(only(BOARDS[board], *plain)).maximal_layouts())
    for number, (before, after) in enumerate(islice(permutations(full, 2), 0, None, every)):
        yield number, before, after


def killed(folder: Path, board: str, pair: Pair) -> Sum:
    """Kills; `Crashes` asserts that the next process converges without orphans."""
    number, before, after = pair
    at_calls = Crashes(folder / f"calls-{number}", _PLANNERS, before, after, board)
    at_calls.at_every_call()
    at_writes = Crashes(folder / f"writes-{number}", _PLANNERS, before, after, board)
    at_writes.at_every_sync(TORN_BYTES)
    counts = Counter(changes=1, calls=at_calls.count, writes=at_writes.count)
    return Sum(counts, max(at_calls.longest_s, at_writes.longest_s))


def failed(folder: Path, board: str, pair: Pair) -> Sum:
    """Fails each call of each verb for good, once for each kind, until the change survives."""
    _, before, after = pair
    total = Sum()
    for kind, times in FAILURES.items():
        for verb in CHANGES:
            for number in range(len(before) + len(after)):
                one = _failed_once(folder, board, pair, Fault(kind, verb=verb, after=number, times=times))
                if one is None:
                    break
                total.add(one)
    return total


def _failed_once(folder: Path, board: str, pair: Pair, fault: Fault) -> Sum | None:
    """What became of one change with one fault; None when the fault never came."""
    number, before, after = pair
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{number}-") as place:
        bench = Bench(Path(place), board, sync=lambda _file: None, planners=_PLANNERS, mode_on=True)
        bench.reach(bench.wish(before, 1))
        bench.machine.inject(fault)
        begun_s = bench.clock.now_s
        outcome = bench.reach(bench.wish(after, 2))
        bench.executor.close()
    if outcome is Outcome.REACHED:
        return None
    back = bench.layout == before and not bench.orphans
    return Sum(Counter({"failures": 1, "back": int(back), str(outcome): 1}), bench.clock.now_s - begun_s)


def swept(work: Callable[[Pair], Sum], board: str, every: int, jobs: int) -> Sum:
    """The sum over all pairs, in several processes."""
    total = Sum()
    with multiprocessing.get_context("fork").Pool(jobs, _quiet) as pool:
        for one in pool.imap_unordered(work, pairs(board, every)):
            total.add(one)
    return total


def _quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def main() -> None:
    """Runs what is asked for and prints the sums."""
    parser = argparse.ArgumentParser(description="crashes and failures of the MIG executor")
    parser.add_argument("--board", choices=BOARDS, default="h100-80")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=("kills", "failures"))
    parser.add_argument("--folder", type=Path, default=None)
    chosen = parser.parse_args()
    _PLANNERS.of(BOARDS[chosen.board].table)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for name, work in {"kills": killed, "failures": failed}.items():
            if chosen.only in (None, name):
                begun_s = time.perf_counter()
                total = swept(partial(work, Path(folder), chosen.board), chosen.board, chosen.every, chosen.jobs)
                took_s = time.perf_counter() - begun_s
                print(
                    f"{chosen.board} {name}: {dict(total.counts)}; longest wait {total.longest_s:.1f} s; {took_s:.0f} s"
                )


if __name__ == "__main__":
    main()
