"""One child process with limits, in a process group of its own, that ends together with everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from services.compiler.jobs.limits import JobLimits
from tradewind.domain.errors import JobOutOfMemory, JobTimeout

# How often memory is looked at: compilers grow by less than 1 GB in this time.
_WATCH_PERIOD_S: Final = 0.25
# A killed process that is in the kernel (writing much, unmapping gigabytes) ends within moments; then we go on anyhow.
_END_LIMIT_S: Final = 5.0
_END_POLL_S: Final = 0.01
# Longest line of the child's standard output; a result holds a manifest's worth of JSON.
_LINE_BYTES: Final = 1 << 22
# What a job may see of the environment: where programs and libraries are, and nothing that could be a secret.
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
# Where this package lies: the child starts in another folder, and the package may not be installed.
_SOURCE_ROOT: Final = str(Path(__file__).resolve().parents[3])
# Turns in which threads of PyTorch wait for each other awake, some 50 us; the library's own count is 30 times that.
# Beside two busy processes a forward of SmolLM2 took 6.1 s so and takes 1.1 s; alone 0.36 to 0.46 and 0.39 to 0.53 s.
_SPINS: Final = "10000"
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Attributes:
        status: exit status; negative for a signal.
        wall_s: seconds it took.
        peak_bytes: most memory that it and its descendants were seen with; looked at every quarter of a second.
    """

    status: int
    wall_s: float
    peak_bytes: int = 0


async def run_child(
    command: Sequence[str], folder: Path, limits: JobLimits, on_line: Callable[[bytes], None], log: Path
) -> Ended:
    """Runs a command to its end.

    On cancellation, timeout or too much memory the whole process group is killed and reaped before this returns.

    Args:
        command: program and arguments.
        folder: working and temporary folder of the child.
        limits: of the child and its descendants together.
        on_line: hears each line of its standard output.
        log: file for its standard error.

    Raises:
        JobTimeout: it ran too long.
        JobOutOfMemory: it took too much memory.
    """
    began = time.monotonic()
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=_environment(folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            limit=_LINE_BYTES,
        )
    reading = asyncio.create_task(_read(process, on_line))
    watch = _MemoryWatch(process.pid, limits.memory_bytes)
    watching = asyncio.create_task(watch.run())
    ending = asyncio.create_task(process.wait())
    try:
        done, _ = await asyncio.wait({ending, watching}, timeout=limits.time_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise JobTimeout(
                f"a job ran past its limit of {limits.time_s:.0f} s; raise the limit or take a smaller model",
                {"limit_s": f"{limits.time_s:.0f}"},
            )
        if ending not in done:
            raise _out_of_memory(watching.result(), limits)
    finally:
        _kill_group(process.pid)
        watching.cancel()
        await ending
        await reading
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await asyncio.to_thread(_await_group_end, process.pid)
    return Ended(ending.result(), time.monotonic() - began, watch.peak_bytes)


async def _read(process: asyncio.subprocess.Process, on_line: Callable[[bytes], None]) -> None:
    if process.stdout is None:
        raise RuntimeError("the child's output is not a pipe")
    async for line in process.stdout:
        on_line(line)


class _MemoryWatch:
    """Looks at the memory of a process and its descendants until they have too much."""

    def __init__(self, pid: int, most_bytes: int) -> None:
        self._pid, self._most_bytes = pid, most_bytes
        self.peak_bytes = 0

    async def run(self) -> int:
        """Returns the memory in use, once it is more than allowed.

        A leader that has ended takes its group along here: asyncio reports its end only when nobody holds its output
        any more, and a descendant may hold it for ever.
        """
        while True:
            used = await asyncio.to_thread(_memory_of_tree, self._pid)
            self.peak_bytes = max(self.peak_bytes, used or 0)
            if used is None:
                _kill_group(self._pid)
            elif used > self._most_bytes:
                return used
            await asyncio.sleep(_WATCH_PERIOD_S)


def _memory_of_tree(pid: int) -> int | None:
    """Resident memory of a process and its descendants, without pages of mapped files that the kernel can drop.

    None when the process has ended.
    """
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return None
    total = 0
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = process.memory_info()
            total += memory.rss - getattr(memory, "shared", 0)
    return total


def _out_of_memory(used_bytes: int, limits: JobLimits) -> JobOutOfMemory:
    return JobOutOfMemory(
        f"a job took {used_bytes >> 20} MiB where {limits.memory_bytes >> 20} MiB are allowed; raise the limit or take "
        "a smaller model",
        {"limit_bytes": str(limits.memory_bytes), "used_bytes": str(used_bytes)},
    )


def _kill_group(pid: int) -> None:
    """Kills the group even when its leader has ended: a descendant may live on."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _await_group_end(pid: int) -> None:
    """Returns when nobody of a killed group runs any more: the kernel ends them one after another."""
    deadline_s = time.monotonic() + _END_LIMIT_S
    while _group_runs(pid) and time.monotonic() < deadline_s:
        time.sleep(_END_POLL_S)  # noqa: TID251  processes that are not ours to wait for, with a limit


def _group_runs(pid: int) -> bool:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _environment(folder: Path) -> Mapping[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (_SOURCE_ROOT, kept.get("PYTHONPATH", ""))))
    own = {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", "GOMP_SPINCOUNT": _SPINS}
    return {**kept, **_OFFLINE, **own}
