"""What samples of a load cost by the meter of the device they ran on. Pure.

On a CPU each request is charged for its CPU time. On a GPU the device has a meter of its own: what it counted above
idle between two points is split over the samples by the time of the steps that worked on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.node_agent.core.board_energy import window_source
from services.node_agent.core.energy import Rate
from services.node_agent.core.measurement import Sample
from tradewind.domain.figures import EnergyFigure, FigureSource, weakest

# What a process under measurement is told: it counts seconds of steps, which the meter turns into energy afterwards.
BY_STEP_TIME: Final = Rate(1.0, FigureSource.UNAVAILABLE, "step-time@1")
_RULE: Final = "above-idle-by-step-time@1"


@dataclass(frozen=True, slots=True)
class MeterPoint:
    """A partition's meter at a moment.

    Attributes:
        energy: counted so far, idle share included.
        idle_mw: what it draws with nothing at work.
        memory_used_bytes: on the device.
    """

    at_s: float
    energy: EnergyFigure
    idle_mw: float
    memory_used_bytes: int


def active_mj(before: MeterPoint, after: MeterPoint) -> float:
    """What was drawn above idle between two points."""
    grown_mj = after.energy.energy_mj - before.energy.energy_mj
    return max(0.0, grown_mj - before.idle_mw * (after.at_s - before.at_s))


def step_rate(before: MeterPoint, after: MeterPoint, step_s: float) -> Rate | None:
    """What a second of steps cost between two points; None when there were none, or nothing was drawn above idle.

    Args:
        before: at the start.
        after: at the end.
        step_s: time in steps of the one process that the partition has.
    """
    spent_mj = active_mj(before, after)
    if step_s <= 0 or spent_mj <= 0:
        return None
    return Rate(spent_mj / step_s, _source(before, after), f"{after.energy.method}/{_RULE}")


def charge(samples: Sequence[Sample], before: MeterPoint, after: MeterPoint) -> list[Sample]:
    """Samples with the energy that the meter counted between two points; at best `attributed`.

    Args:
        samples: all that ran between the points, and nothing else did; charged by `BY_STEP_TIME`.
        before: at the start.
        after: at the end.
    """
    step_s = sum(sample.prefill_mj + sample.decode_mj for sample in samples)
    each_mj = active_mj(before, after) / step_s if step_s > 0 else 0.0
    source, method = _source(before, after), f"{after.energy.method}/{_RULE}"
    return [
        replace(s, prefill_mj=s.prefill_mj * each_mj, decode_mj=s.decode_mj * each_mj, source=source, method=method)
        for s in samples
    ]


def _source(before: MeterPoint, after: MeterPoint) -> FigureSource:
    return weakest((window_source(after.at_s - before.at_s, after.energy.source), FigureSource.ATTRIBUTED))
