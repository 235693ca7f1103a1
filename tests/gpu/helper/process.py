"""A helper as a real process, with a simulated machine behind it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil

from services.node_agent.gpu.helper.client import HelperClient

START_LIMIT_S = 30.0


def until(condition: Callable[[], bool], limit_s: float, words: Callable[[], str] = lambda: "") -> float:
    """Waits for a condition; seconds that it took."""
    begun_s = time.monotonic()
    while not condition():
        assert time.monotonic() - begun_s < limit_s, f"not within {limit_s} s: {words()}"
        time.sleep(0.01)  # noqa: TID251 - it waits on a condition, with a limit
    return time.monotonic() - begun_s


class Helper:
    """Starts, is killed, is read. Use as a context manager.

    Args:
        folder: for its socket, leases and audit log.
        settings: of the helper, by their names.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(mode=0o755, exist_ok=True)
        self.folder, self.socket, self.audit_log = folder, folder / "helper.sock", folder / "audit"
        own = {
            "socket": str(self.socket),
            "state_dir": str(folder),
            "audit_log": str(self.audit_log),
            "backend": "simulated:h100-80x2",
            "call_limit_s": "1",
            **settings,
        }
        self._environment = {f"TRADEWIND_GPU_HELPER_{key.upper()}": value for key, value in own.items()}
        self.log = folder / "log"

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.node_agent.gpu.helper"],
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=log,
            )
        until(self._ready, START_LIMIT_S, self.log.read_text)
        self.client = HelperClient(self.socket, limit_s=5.0)
        return self

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return re.search(r"\] ready\s", self.log.read_text()) is not None

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    @property
    def worker(self) -> psutil.Process:
        """The child that talks to the driver; the younger one waits to take its place."""
        children = psutil.Process(self.process.pid).children()
        return min((p for p in children if p.status() != psutil.STATUS_ZOMBIE), key=psutil.Process.create_time)

    def audited(self) -> list[dict[str, Any]]:
        """Every line of the audit log."""
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]
