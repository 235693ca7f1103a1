"""The most memory that a child process of this one and its descendants held. Looks; starts nothing."""

from __future__ import annotations

import threading
import time
from typing import Final

import psutil

_POLL_S: Final = 0.25


class PeakWatch:
    """Most resident memory, without pages of mapped files, of any one child and its descendants since it was asked."""

    def __init__(self) -> None:
        self._peak_bytes = 0
        threading.Thread(target=self._run, daemon=True).start()

    def take_bytes(self) -> int:
        """The peak so far; the next one begins at nothing."""
        peak_bytes, self._peak_bytes = self._peak_bytes, 0
        return peak_bytes

    def _run(self) -> None:
        while True:
            for child in psutil.Process().children():
                self._peak_bytes = max(self._peak_bytes, _tree_bytes(child))
            time.sleep(_POLL_S)  # noqa: TID251  a sampler's period


def _tree_bytes(process: psutil.Process) -> int:
    try:
        family = [process, *process.children(recursive=True)]
        return sum(one.memory_info().rss - one.memory_info().shared for one in family)
    except psutil.Error:
        return 0
