"""`GpuReader` over the child that reads NVML: every call ends within a limit, and a child that died is replaced.

A vendor's library in trouble can crash its process or never come back. Here that is one failed look: the child is ended
and started again, and meanwhile each call says what happened. Safe for use by several threads, which ask side by side.
"""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import IO, Any, Final

import structlog

from services.node_agent.gpu.faults import DriverTrouble, NoDriver
from services.node_agent.gpu.helper.frames import read_answer, request_line
from services.node_agent.gpu.helper.remote import RemoteReader
from services.node_agent.gpu.port import BoardReading, GpuEvent, SliceReading
from services.node_agent.gpu.reading.questions import LOOK, QUESTIONS
from services.node_agent.gpu.reading.worker import FOUND, NONE

# A call of NVML takes up to seconds on a busy machine with many slices; one that takes longer does not come back. The
# board is out long before, by the age of its last look.
CALL_LIMIT_S: Final = 10.0
# A Python that starts on a busy machine, and a driver that wakes up.
START_LIMIT_S: Final = 20.0
# A child that dies at once, again and again, is not started more often than this.
RESTART_PAUSE_S: Final = 1.0
WORKER: Final = (sys.executable, "-m", "services.node_agent.gpu.reading.worker")
_LIBRARY: Final = "libnvidia-ml.so.1"


class ReaderProcess(RemoteReader):
    """See the module.

    Args:
        limit_s: longest time for a call.
        command: the child.
    """

    def __init__(self, limit_s: float = CALL_LIMIT_S, command: Sequence[str] = WORKER) -> None:
        self._limit_s, self._command = limit_s, command
        self._starting = threading.Lock()
        self._child: _Child | None = None
        self._begun_s = -RESTART_PAUSE_S
        self._closed = False
        self._slices: dict[str, tuple[SliceReading, ...]] = {}
        self._log = structlog.get_logger("gpu-reader")

    @property
    def pid(self) -> int | None:
        """Of the child; None before the first."""
        return self._child.process.pid if self._child else None

    def open(self) -> bool:
        """Starts the child; whether there is an NVML to read.

        Raises:
            GpuError: there is a library, and no driver that goes with it.
        """
        try:
            self._there()
        except NoLibrary:
            return False
        return True

    def close(self) -> None:
        """Ends the child. Idempotent."""
        self._closed = True
        if self._child is not None:
            self._child.end()

    def events(self, limit_s: float) -> tuple[GpuEvent, ...]:
        """See `GpuReader`. The child waits for a second at most."""
        return self._ask("events")  # type: ignore[no-any-return]

    def read(self, uuid: str) -> BoardReading:
        """See `GpuReader`. Slices are read along, for the question that follows in the same look."""
        reading, self._slices[uuid] = self._ask(LOOK, uuid=uuid)
        return reading  # type: ignore[no-any-return]

    def read_slices(self, uuid: str) -> tuple[SliceReading, ...]:
        """See `GpuReader`."""
        found = self._slices.pop(uuid, None)
        return found if found is not None else super().read_slices(uuid)

    def _ask(self, name: str, **arguments: Any) -> Any:
        child = self._there()
        number, answer = child.send(name, arguments)
        try:
            line = answer.result(self._limit_s)
        except TimeoutError:
            self._log.error("the reading process hangs and is ended", pid=child.process.pid, call=name)
            child.end()
            raise DriverTrouble(f"{name}: no answer from the driver in {self._limit_s:g} s", 10) from None
        if not line:
            raise DriverTrouble(f"{name}: the process that reads the driver ended; it is started again")
        return read_answer(line, number, QUESTIONS[name])

    def _there(self) -> _Child:
        with self._starting:
            if self._child is not None and self._child.lives:
                return self._child
            if self._closed or time.monotonic() - self._begun_s < RESTART_PAUSE_S:
                raise DriverTrouble("the process that reads the driver ended; it is started again")
            if self._child is not None:
                self._log.error("the reading process ended", pid=self.pid, code=self._child.process.poll())
            self._begun_s = time.monotonic()
            self._child = child = _Child(self._command)
            child.must_be_ready(START_LIMIT_S)
            return child


class NoLibrary(NoDriver):
    """This machine has no NVML."""


class _Child:
    """One child, from its start to its end."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        self._numbers, self._lock = itertools.count(1), threading.Lock()
        self._waiting: dict[int, Future[bytes]] = {}
        self._first: Future[bytes] = Future()
        self.lives = True
        threading.Thread(target=self._hear, name="gpu-reader", daemon=True).start()

    def must_be_ready(self, limit_s: float) -> None:
        """Waits for the first line.

        Raises:
            GpuError: it found no library or no driver, or does not start.
        """
        try:
            line = self._first.result(limit_s)
        except TimeoutError:
            self.end()
            raise DriverTrouble(f"the driver did not open within {limit_s:g} s; see its kernel log (dmesg)") from None
        if line == FOUND:
            return
        self.end()
        if line == NONE:
            raise NoLibrary("no NVIDIA driver library here", 12)
        if line:
            read_answer(line, 0, QUESTIONS["system"])
        raise DriverTrouble("the driver's library took the process that reads it down at once; see dmesg")

    def send(self, name: str, arguments: dict[str, Any]) -> tuple[int, Future[bytes]]:
        """Asks; the answer's line comes later, b"" when the child ends before."""
        answer: Future[bytes] = Future()
        with self._lock:
            number = next(self._numbers)
            if self.lives:
                self._waiting[number] = answer
                try:
                    _pipe(self.process.stdin).write(request_line(number, name, arguments))
                except OSError:
                    self.lives = False
            if not self.lives and not answer.done():
                self._waiting.pop(number, None)
                answer.set_result(b"")
        return number, answer

    def end(self) -> None:
        """Kills it; a call in the kernel may outlive even that, so it is not waited for."""
        self.lives = False
        self.process.kill()

    def _hear(self) -> None:
        """Hands each line to whom it answers, until the child ends."""
        with open(_pipe(self.process.stdout).fileno(), "rb", closefd=False) as lines:
            self._first.set_result(lines.readline())
            for line in lines:
                with self._lock:
                    answer = self._waiting.pop(_number_of(line), None)
                if answer is not None:
                    answer.set_result(line)
        with self._lock:
            self.lives, left = False, tuple(self._waiting.values())
            self._waiting.clear()
        for answer in left:
            answer.set_result(b"")
        self.process.wait()


def open_reader_process() -> ReaderProcess | None:
    """The reader; None on a machine without NVML, which most are. The library is looked for, and called in the child.

    Raises:
        GpuError: there is a library, and no driver that goes with it.
    """
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    reader = ReaderProcess()
    return reader if reader.open() else None


def _number_of(line: bytes) -> int:
    """The request that a line answers; 0, which is none, for a line of something else in the child."""
    digits = line[len(b'{"id":') : line.find(b",")]
    return int(digits) if digits.isdigit() else 0


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "made with pipes"
    return pipe
