"""Jobs of this service: a worker module or the IREE compiler in a child process, in a work folder that goes away."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from services.compiler.jobs.child import Ended, run_child
from services.compiler.jobs.limits import JobLimits
from tradewind.domain import errors
from tradewind.domain.errors import CompileFailed, Internal, TradewindError

# The end of a log that goes into a message: the error itself, without the page of IR above it.
_TAIL_CHARACTERS: Final = 600

# Key in a worker's result of the most memory that it was seen with, in bytes.
PEAK: Final = "peak_bytes"

Report = Callable[[str, float], None]


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
        try:
            said = json.loads(line)
        except ValueError:
            return
        if not isinstance(said, dict):
            return
        if "stage" in said:
            self._report(str(said["stage"]), float(said["share"]))
        elif "result" in said:
            self.result = said["result"]
        elif "error" in said:
            self.error = _error(said["error"])


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
