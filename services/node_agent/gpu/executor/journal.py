"""A board's journal: an append-only file that is on the disk before and after each device call.

A line that a crash cut off is dropped at the next opening; a damaged line before others is an error, since what follows
it cannot be trusted. When it grows long the file is replaced by one that begins with the sum of it all. One writer: the
file is locked while it is open.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.node_agent.core.mig.ledger import Ledger, Record, add, fold
from services.node_agent.gpu.executor.records import line_of, record_of
from tradewind.domain.errors import Internal, InUse

# A change of a whole board writes some 60 lines of 100 bytes; this holds hundreds of changes.
LONGEST_BYTES: Final = 256 << 10


class JournalDamaged(Internal):
    """A line in the middle of a journal cannot be read."""


class Journal:
    """An open journal. `ledger` is the sum of what is on the disk.

    Args:
        path: of the file, which is made when missing; its folder must exist.
        sync: brings a file descriptor's writes to the disk.
        longest_bytes: length from which `compact` writes anew.

    Raises:
        InUse: another process has it open.
        JournalDamaged: it cannot be read.
    """

    def __init__(self, path: Path, sync: Callable[[int], None] = os.fsync, longest_bytes: int = LONGEST_BYTES) -> None:
        self._path, self._sync, self._longest_bytes = path, sync, longest_bytes
        self._file = _open_locked(path)
        try:
            records, self._length = _load(path, self._file)
        except BaseException:
            os.close(self._file)
            raise
        self.ledger: Ledger = fold(records)
        _sync_folder(path.parent)

    def append(self, record: Record) -> None:
        """Adds a record; it is on the disk when this returns."""
        line = line_of(record)
        os.pwrite(self._file, line, self._length)
        self._sync(self._file)
        self._length += len(line)
        self.ledger = add(self.ledger, record)

    def compact(self) -> None:
        """Replaces a long file by the sum of it; a crash leaves the old or the new one, whole."""
        if self._length < self._longest_bytes:
            return
        part = self._path.with_name(self._path.name + ".new")
        fresh = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        fcntl.flock(fresh, fcntl.LOCK_EX)
        line = line_of(self.ledger)
        os.write(fresh, line)
        self._sync(fresh)
        part.replace(self._path)
        _sync_folder(self._path.parent)
        os.close(self._file)
        self._file, self._length = fresh, len(line)

    def close(self) -> None:
        """Gives the file back. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _open_locked(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise InUse(f"{path} is written by another process; one agent manages a board", {"path": str(path)}) from None
    return file


def _load(path: Path, file: int) -> tuple[list[Record], int]:
    """Records, and the length of the file up to the last whole one; the rest is cut off."""
    whole, _, torn = path.read_bytes().rpartition(b"\n")
    lines = whole.split(b"\n") if whole else []
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(record_of(line))
        except ValueError as error:
            if number == len(lines) and not torn:
                break
            raise JournalDamaged(
                f"{path}: line {number} cannot be read ({error}); look at the board's slices, then move the file away: "
                "slices that stand will count as somebody else's unless adopted"
            ) from error
    length = sum(len(line) + 1 for line in lines[: len(records)])
    os.ftruncate(file, length)
    return records, length


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
