"""What each sequence used of the device, prefill and decode apart. Pure arithmetic over finished steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PhaseAccount:
    """CPU time charged to one sequence, in core-seconds."""

    prefill_core_s: float = 0.0
    decode_core_s: float = 0.0

    @property
    def core_s(self) -> float:
        """Both phases."""
        return self.prefill_core_s + self.decode_core_s


@dataclass(slots=True)
class PhaseTotals:
    """Steps of a replica since its start, by phase; `reused_tokens`: of prompts, held in the cache already."""

    prefill_steps: int = 0
    prefill_tokens: int = 0
    prefill_s: float = 0.0
    decode_steps: int = 0
    decode_tokens: int = 0
    decode_s: float = 0.0
    core_s: float = 0.0
    reused_tokens: int = 0
