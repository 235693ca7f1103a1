"""Jobs of this service: a worker module or the IREE compiler in a child process, in a work folder that goes away."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.compiler.jobs.child import Ended, run_child
from services.compiler.jobs.limits import JobLimits
from tradewind.domain import errors
from tradewind.domain.errors import CompileFailed, Internal, JobOutOfMemory, JobTimeout, TradewindError

# The end of a log that goes into a message: the error itself, without the page of IR above it.
_TAIL_CHARACTERS: Final = 600

# Key in a worker's result of the most memory that it was seen with, in bytes.
PEAK: Final = "peak_bytes"

Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one of several jobs in a child ended: with a result, or an error."""

    spent_s: float
    result: dict[str, Any] | None = None
    error: TradewindError | None = None


class JobRunner:
    """Starts jobs; keeps no state but the folder that their work folders are made in."""

    def __init__(self, work_root: Path, limits: JobLimits, python: str = sys.executable) -> None:
        """Empties the folder: what lies there was left by an earlier life.

        Args:
            work_root: for work folders; on the blob store's disk, so that results move by rename.
            limits: of each job.
            python: interpreter of workers.
        """
        shutil.rmtree(work_root, ignore_errors=True)
        work_root.mkdir(parents=True)
        self._root, self._limits, self._python = work_root, limits, python

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """A work folder, gone with all that is in it when left, whatever the reason."""
        path = Path(tempfile.mkdtemp(dir=self._root))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    async def work(self, kind: str, job: dict[str, Any], folder: Path, report: Report) -> dict[str, Any]:
        """Runs a worker (see `services.compiler.worker`) on a job; its result, with its memory under `PEAK`.

        Raises:
            TradewindError: the error the worker gave.
            CompileFailed: the worker crashed.
            JobTimeout, JobOutOfMemory: past a limit.
        """
        description = folder / f"{kind}.json"
        description.write_text(json.dumps(job), encoding="utf-8")
        listener = _Listener(report)
        command = [self._python, "-m", "services.compiler.worker", kind, str(description)]
        log = folder / f"{kind}.log"
        ended = await run_child(command, folder, self._limits, listener.hear, log)
        if listener.error is not None:
            raise listener.error
        if ended.status != 0 or listener.result is None:
            raise CompileFailed(f"the {kind} job {_how(ended.status)}: {_tail(log)}", {"status": str(ended.status)})
        return {**listener.result, PEAK: ended.peak_bytes}

    async def export_each(
        self, jobs: Sequence[tuple[dict[str, Any], Path]], folder: Path, on_ended: Callable[[int, Outcome], None]
    ) -> None:
        """Runs exports of one model one after another in one child, each a fork; see `services.compiler.jobs.forks`.

        Args:
            jobs: descriptions, each with a folder of its own below `folder`.
            folder: of the child.
            on_ended: hears the outcome of each as soon as it has ended. What ends the child itself (its memory, its
                time) leaves some without one: they are to be tried apart, which shows whose fault it was.
        """
        paths = []
        for job, own in jobs:
            paths.append(own / "export.json")
            paths[-1].write_text(json.dumps(job), encoding="utf-8")
        description = folder / "exports.json"
        description.write_text(json.dumps({"jobs": [str(p) for p in paths], "time_s": self._limits.time_s}))
        log = folder / "exports.log"

        def hear(line: bytes) -> None:
            if (said := _said(line)) is not None and "ended" in said:
                on_ended(int(said["ended"]), self._outcome(said, log))

        whole = JobLimits(self._limits.time_s * len(jobs), self._limits.memory_bytes)
        command = [self._python, "-m", "services.compiler.worker", "exports", str(description)]
        with contextlib.suppress(JobTimeout, JobOutOfMemory):
            await run_child(command, folder, whole, hear, log)

    def _outcome(self, said: dict[str, Any], log: Path) -> Outcome:
        """What a fork's end means, as `work` would have told it."""
        spent_s, told, status = float(said["spent_s"]), said["said"], int(said["status"])
        if said["timed_out"]:
            error: TradewindError = JobTimeout(
                f"a job ran past its limit of {self._limits.time_s:.0f} s; raise the limit or take a smaller model"
            )
        elif "error" in told:
            error = _error(told["error"])
        elif status != 0 or "result" not in told:
            error = CompileFailed(f"the export job {_how(status)}: {_tail(log)}", {"status": str(status)})
        else:
            return Outcome(spent_s, {**told["result"], PEAK: 0})
        return Outcome(spent_s, error=error)

    async def compile(self, compiler: str, flags: Sequence[str], source: Path, output: Path) -> Ended:
        """Runs iree-compile; how it ended, which is well.

        Raises:
            CompileFailed: it crashed or refused.
            JobTimeout, JobOutOfMemory: past a limit.
        """
        log = output.parent / f"{output.name}.log"
        command = [compiler, str(source), *flags, "-o", str(output)]
        ended = await run_child(command, output.parent, self._limits, lambda _line: None, log)
        if ended.status != 0:
            raise CompileFailed(
                f"the compiler {_how(ended.status)} on this recipe: {_tail(log)}", {"status": str(ended.status)}
            )
        return ended


class _Listener:
    """Reads a worker's lines: {"stage", "share"}, {"result"} or {"error"}; any other line is a library's chatter."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.result: dict[str, Any] | None = None
        self.error: TradewindError | None = None

    def hear(self, line: bytes) -> None:
        if (said := _said(line)) is None:
            return
        if "stage" in said:
            self._report(str(said["stage"]), float(said["share"]))
        elif "result" in said:
            self.result = said["result"]
        elif "error" in said:
            self.error = _error(said["error"])


def _said(line: bytes) -> dict[str, Any] | None:
    """What a worker says in a line; None for a library's chatter."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _error(said: dict[str, Any]) -> TradewindError:
    """The error a worker named by class, of the one error tree."""
    known = getattr(errors, str(said["class"]), Internal)
    error: TradewindError = known.__new__(known)
    TradewindError.__init__(error, str(said["message"]), dict(said["metadata"]))
    return error


def _how(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    first_error = next((line for line in lines if "error:" in line), None)
    text = first_error or " ".join(lines[-3:]) or "it said nothing"
    return text[-_TAIL_CHARACTERS:]
