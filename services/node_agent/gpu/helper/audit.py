"""The audit log: one line of JSON for each call, done or refused; calls that only look are counted up into one line.

A line: when, who (uid, pid of the peer), what (verb, arguments), how it ended, how long it took.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

# Looks are frequent and harmless; they are told in sums this often.
READS_PERIOD_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the socket, as the kernel says."""

    uid: int
    gid: int
    pid: int


class Audit:
    """Writes the log.

    Args:
        path: file that lines are appended to; None for the service's own log only.
        wall_s: seconds since 1970.
    """

    def __init__(self, path: Path | None, wall_s: Callable[[], float]) -> None:
        self._wall_s = wall_s
        self._file = (
            None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        )
        self._reads: Counter[tuple[int, str]] = Counter()
        self._told_s = wall_s()
        self._log = structlog.get_logger("audit")

    def call(self, peer: Peer | None, verb: str, arguments: dict[str, Any], result: str, took_s: float) -> None:
        """A call that changed something, failed, or was refused; `peer` None for what the helper does by itself."""
        who = {"by": "helper"} if peer is None else {"uid": peer.uid, "pid": peer.pid}
        self._write({**who, "verb": verb, "arguments": arguments, "result": result, "took_ms": round(took_s * 1e3, 1)})

    def looked(self, peer: Peer, verb: str) -> None:
        """A call that looked, and went well."""
        self._reads[peer.uid, verb] += 1
        if self._wall_s() - self._told_s >= READS_PERIOD_S:
            self.flush()

    def flush(self) -> None:
        """Writes the sums of looks."""
        for uid in sorted({uid for uid, _ in self._reads}):
            counts = {verb: count for (who, verb), count in sorted(self._reads.items()) if who == uid}
            self._write({"uid": uid, "verb": "reads", "counts": counts, "result": "done"})
        self._reads.clear()
        self._told_s = self._wall_s()

    def close(self) -> None:
        """Writes what is left. Idempotent."""
        self.flush()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, entry: dict[str, Any]) -> None:
        self._log.info("call", **entry)
        if self._file is not None:
            line = json.dumps({"at_s": round(self._wall_s(), 3), **entry}, separators=(",", ":"))
            os.write(self._file, line.encode() + b"\n")
