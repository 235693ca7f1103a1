"""One change of a layout, killed at each of its steps in turn and started again. Used by the tests and by bench/gpu."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from services.node_agent.core.mig.ledger import Outcome
from services.node_agent.core.mig.model import Layout
from services.node_agent.gpu.executor.board import Planners
from services.node_agent.gpu.simulated.machine import Call
from tests.gpu.executor.bench import Bench, Killed

# Promise 5: ten seconds of waiting, at most, until a restarted agent has converged.
RECOVERY_LIMIT_S = 10.0


class Disk:
    """A disk that dies at one of its syncs; of the line that was being written, some bytes may be missing."""

    def __init__(self) -> None:
        self.syncs, self.kill_at, self.torn_bytes = 0, 0, 0

    def __call__(self, file: int) -> None:
        self.syncs += 1
        if self.syncs == self.kill_at:
            os.ftruncate(file, os.fstat(file).st_size - self.torn_bytes)
            raise Killed


class Crashes:
    """One plan, run again and again, each time killed one step later."""

    def __init__(self, folder: Path, planners: Planners, before: Layout, after: Layout, board: str = "h100-80") -> None:
        self._folder, self._planners, self._before, self._after = folder, planners, before, after
        self._board = board
        folder.mkdir()
        self.count, self.longest_s = 0, 0.0

    def at_every_call(self) -> None:
        """Killed when the device has done it and nobody has heard."""
        while self._survives(lambda bench, _disk: kill_at_change(bench, self.count + 1)):
            self.count += 1

    def at_every_sync(self, torn_bytes: int) -> None:
        """Killed when a line is on the disk, or most of it."""

        def arm(_bench: Bench, disk: Disk) -> None:
            disk.kill_at, disk.torn_bytes = disk.syncs + self.count + 1, torn_bytes

        while self._survives(arm):
            self.count += 1

    def _survives(self, arm: Callable[[Bench, Disk], None]) -> bool:
        """Whether there was a kill at all; that the next process converged is asserted."""
        disk = Disk()
        bench = Bench(self._folder, self._board, sync=disk, planners=self._planners, mode_on=True)
        assert bench.reach(bench.wish(self._before, 1)) is Outcome.REACHED
        arm(bench, disk)
        bench.executor.want(bench.wish(self._after, 2))
        try:
            bench.run()
            return False
        except Killed:
            bench.machine.after_call = None
            self._recovers(bench)
            return True
        finally:
            bench.executor.close()
            (self._folder / "board.journal").unlink()

    def _recovers(self, bench: Bench) -> None:
        """A new process, told nothing new, converges."""
        begun_s = bench.clock.now_s
        bench.start()
        bench.run()
        assert bench.layout in (self._before, self._after)
        assert bench.orphans == []
        assert bench.executor.state.foreign == ()
        self.longest_s = max(self.longest_s, bench.clock.now_s - begun_s)
        assert self.longest_s <= RECOVERY_LIMIT_S


def kill_at_change(bench: Bench, number: int) -> None:
    """Kills in the answer to the n-th call that changes something."""
    left = iter(range(number - 1))

    def die(call: Call) -> None:
        if call.verb.startswith(("create", "destroy", "set")) and next(left, None) is None:
            raise Killed

    bench.machine.after_call = die
