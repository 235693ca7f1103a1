"""What the command line does with an embedded instance: start its supervisor, stop it, see whether it runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from tradewind.domain.errors import Internal, JobTimeout
from tradewind.embedded.layout import Layout
from tradewind.embedded.supervisor import holder

# Draining replicas and stopping two stores; past this something is wrong and is said.
STOP_LIMIT_S: Final = 90.0
POLL_S: Final = 0.05


class Launch:
    """A supervisor just started; iterate over its events until "ready" or "failed".

    Args:
        layout: the state folder.
        options: further arguments of `python -m tradewind.embedded`.
        environment: settings of its services, over this process's own.
    """

    def __init__(
        self, layout: Layout, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        layout.logs.mkdir(parents=True, exist_ok=True)
        with layout.log("supervisor").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tradewind.embedded", "--state-dir", str(layout.root), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        self._layout = layout

    def events(self) -> Iterator[dict[str, Any]]:
        """Events as they come; ends with the supervisor.

        Raises:
            Internal: the supervisor ended without a word.
        """
        assert self.process.stdout is not None
        said = False
        for line in self.process.stdout:
            said = True
            yield json.loads(line)
        if not said:
            code = self.process.wait()
            log = self._layout.log("supervisor")
            raise Internal(f"the supervisor ended with code {code}; {log} says why")

    def stop(self) -> None:
        """Asks the supervisor to stop everything; `events` goes on until it has."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)


def stop(layout: Layout) -> bool:
    """Stops the instance and waits for its end; False when none ran. Cleans up after a supervisor that was killed.

    Raises:
        JobTimeout: it did not stop in time; nothing is killed behind its back.
    """
    pid = holder(layout)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_LIMIT_S
        while holder(layout) is not None:
            if time.monotonic() > deadline:
                raise JobTimeout(
                    f"pid {pid} did not stop within {STOP_LIMIT_S:.0f} s; see {layout.log('all')}", {"pid": str(pid)}
                )
            _pause()
    orphans = _stop_orphans(layout)
    for left in (layout.endpoints, layout.supervisor):
        left.unlink(missing_ok=True)
    return pid is not None or orphans


def _stop_orphans(layout: Layout) -> bool:
    """Stops PostgreSQL left by a supervisor that was killed; services and Redis die with it by themselves."""
    pid_file = layout.postgres / "postmaster.pid"
    if not pid_file.exists():
        return False
    first = pid_file.read_text().partition("\n")[0]
    if not first.isdigit() or not _is_postgres_of(int(first), layout.postgres):
        return False
    process = psutil.Process(int(first))
    process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
    process.wait(timeout=STOP_LIMIT_S)
    return True


def _is_postgres_of(pid: int, folder: Path) -> bool:
    try:
        return str(folder) in psutil.Process(pid).cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _pause() -> None:
    time.sleep(POLL_S)  # noqa: TID251  polls a lock that another process holds, with a limit
