"""Several jobs of one kind in one child process: libraries are loaded once, and each job is a fork with its own fate.

Runs inside the child (see `services.compiler.worker`). A fork that crashes, or runs past its time, takes nobody along;
what ends the whole child leaves jobs without an outcome, which whoever asked tries again apart.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Job = dict[str, Any]


def run_each(paths: Sequence[Path], time_s: float, run: Callable[[Path], int], tell: Callable[[Job], None]) -> None:
    """Runs jobs one after another, each in a fork, and tells how each ended.

    Args:
        paths: of the jobs' descriptions, each in a folder of its own.
        time_s: longest time of one.
        run: does a job in the fork and returns its exit status; its standard output is kept apart.
        tell: hears {"ended": index, "status": …, "spent_s": …, "timed_out": …, "said": …} of each.
    """
    for index, path in enumerate(paths):
        output = path.with_suffix(".out")
        began = time.monotonic()
        pid = _fork(path, output, time_s, run)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        spent_s = time.monotonic() - began
        said = next((line for line in _lines(output) if "result" in line or "error" in line), {})
        timed_out = status == -signal.SIGALRM
        tell({"ended": index, "status": status, "spent_s": spent_s, "timed_out": timed_out, "said": said})


def _fork(path: Path, output: Path, time_s: float, run: Callable[[Path], int]) -> int:
    """Starts a fork; its process id. The fork never returns from here.

    It ends itself by a timer, for in a confined child nobody may send a signal.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, time_s)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, sys.stdout.fileno())
        status = run(path)
    except BaseException:  # noqa: BLE001  this is where the fork ends, whatever happened; its log says what
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _lines(path: Path) -> Iterator[Job]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            yield said
