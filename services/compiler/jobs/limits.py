"""Limits of a job. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What a child process and its descendants may use together.

    Attributes:
        time_s: wall-clock seconds.
        memory_bytes: resident memory. Address space says nothing here: PyTorch and IREE map far more than they touch.
    """

    time_s: float
    memory_bytes: int
