"""Tries candidates on the first layers of a model: cheap, and enough to tell who is slow or wrong.

Candidates of one step are exported in one child process, compiled while others are still exported, and timed in turn
when all of that is over. What ends the child itself is nobody's fault yet: who has no outcome is tried apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.compiler.jobs.places import Places
from services.compiler.jobs.runner import JobRunner, Outcome, Report
from services.compiler.making import Made, Maker
from services.compiler.order import Order
from services.compiler.search.bench import Bench, Wish, measured_of
from services.compiler.search.core.facts import Fate, Measured, Trial
from services.compiler.search.devices import DeviceTimer
from services.compiler.search.lending import Lender
from services.compiler.search.trials import FAILURES, failed_trial, trial_of

# A few layers of a model give flat answers that small changes turn about; only garbage is sent away here.
PROBE_KL_MOST_NATS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Try:
    """A candidate to be tried: its order, and who hears how far it is."""

    order: Order
    report: Report


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A module to be timed, the work folder it lies in, and the seconds it took."""

    made: Made
    folder: Path
    spent_s: float


class Prober:
    """Tries candidates on some layers; several steps may be under way."""

    def __init__(self, runner: JobRunner, places: Places, maker: Maker, bench: Bench, lender: Lender) -> None:
        """Over the workshop's parts."""
        self._runner, self._places, self._maker, self._bench, self._lender = runner, places, maker, bench, lender

    async def probe(
        self,
        tries: Sequence[Try],
        layers: int,
        wish: Wish,
        on_trial: Callable[[Trial], None],
        timer: DeviceTimer | None = None,
    ) -> None:
        """Tries candidates of one target together.

        Args:
            tries: at least one.
            layers: of the model, from the first on.
            wish: of the search.
            on_trial: hears each trial as soon as it has ended.
            timer: a device of a node to time them on; None to time them here, where this machine can.

        Raises:
            NoSpace: the store's disk is full.
            ServiceUnavailable: the device is away.
        """
        async with self._runner.folder() as folder:
            folders = [folder / str(number) for number in range(len(tries))]
            loop = asyncio.get_running_loop()
            outcomes: list[asyncio.Future[Outcome | None]] = [loop.create_future() for _ in tries]
            async with asyncio.TaskGroup() as group:
                group.create_task(self._export(tries, folder, folders, layers, wish, outcomes))
                compiling = [
                    group.create_task(self._compile(one, own, layers, wish, outcome, on_trial))
                    for one, own, outcome in zip(tries, folders, outcomes, strict=True)
                ]
            for one, task in zip(tries, compiling, strict=True):
                if (compiled := task.result()) is not None:
                    on_trial(await self._time(one.order, compiled, layers, wish, timer))

    async def _export(
        self,
        tries: Sequence[Try],
        folder: Path,
        folders: Sequence[Path],
        layers: int,
        wish: Wish,
        outcomes: Sequence[asyncio.Future[Outcome | None]],
    ) -> None:
        """Exports all of them in one child; sets the outcome of each, None for one that has to be tried apart."""
        jobs = []
        for one, own in zip(tries, folders, strict=True):
            own.mkdir()
            jobs.append((self._maker.export_job(one.order, own, layers), own))

        def hear(index: int, outcome: Outcome) -> None:
            # Who waited for it may be cancelled by now.
            if not outcomes[index].done():
                outcomes[index].set_result(outcome)

        async with self._places.one(wish.owner):
            for one in tries:
                one.report("exporting", 0.0)
            await self._runner.export_each(jobs, folder, hear)
        for outcome in outcomes:
            if not outcome.done():
                outcome.set_result(None)

    async def _compile(
        self,
        one: Try,
        folder: Path,
        layers: int,
        wish: Wish,
        exported: asyncio.Future[Outcome | None],
        on_trial: Callable[[Trial], None],
    ) -> _Compiled | None:
        """Compiles what was exported; None, and a trial, when either failed."""
        outcome = await exported
        spent_s = outcome.spent_s if outcome else 0.0
        async with self._places.one(wish.owner):
            began = time.monotonic()
            try:
                made = await self._made(one, folder, layers, outcome)
            except FAILURES as error:
                on_trial(failed_trial(one.order, layers, spent_s + time.monotonic() - began, error))
                return None
        return _Compiled(made, folder, spent_s + time.monotonic() - began)

    async def _made(self, one: Try, folder: Path, layers: int, outcome: Outcome | None) -> Made:
        if outcome is None:
            apart = folder / "apart"
            apart.mkdir()
            return await self._maker.make(one.order, apart, one.report, layers)
        if outcome.error is not None:
            raise outcome.error
        result: dict[str, Any] = outcome.result or {}
        return await self._maker.make_exported(one.order, folder, one.report, layers, int(result["cache_bytes"]))

    async def _time(
        self, order: Order, compiled: _Compiled, layers: int, wish: Wish, timer: DeviceTimer | None
    ) -> Trial:
        began, found, made = time.monotonic(), None, compiled.made
        try:
            if order.target.runnable_here:
                found = await self._bench.run(order, made.module, made.archives, compiled.folder, wish, layers)
            measured = measured_of(found, order) if found else Measured()
            if timer is not None:
                async with self._lender.lent(order, made, wish.references.get(layers)) as lent:
                    measured = await self._bench.on_device(timer, lent, order, wish, measured)
        except FAILURES as error:
            return failed_trial(order, layers, compiled.spent_s + time.monotonic() - began, error)
        spent_s = compiled.spent_s + time.monotonic() - began
        worst = max(found["kl_by_function"].values(), default=0.0) if found else 0.0
        if worst > PROBE_KL_MOST_NATS:
            words = f"KL {worst:.2g} nats from the source on its first {layers} layers"
            return trial_of(order, layers, spent_s, fate=Fate.WRONG_ANSWERS, words=words)
        return trial_of(order, layers, spent_s, measured=measured)
