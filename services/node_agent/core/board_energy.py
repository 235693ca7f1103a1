"""What a board used, out of readings of its counter and its power. Pure.

A counter may be absent, start again, stand still, or jump. The account then integrates power, says so in its label,
and never counts the same energy twice: it never falls, and a counter that catches up adds only what is new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from tradewind.domain.figures import EnergyFigure, FigureSource, weakest

# Counters of NVIDIA boards show a new value about every 100 ms (DEVICES notes, arXiv 2312.02741); one that shows none
# for twenty of them, while power is drawn, stands still.
REFRESH_S: Final = 0.1
FROZEN_S: Final = 20 * REFRESH_S
# Power is a mean over up to a second: a straight line between readings further apart than this is a guess.
GAP_S: Final = 10.0
# A counter can not have grown faster than the board's greatest power; short peaks above the cap are real.
PEAK_OVER_CAP: Final = 1.5
# A figure over a window may be called measured from 5 s (50 refreshes) on; under 1 s it is none.
MEASURED_WINDOW_S: Final = 50 * REFRESH_S
LEAST_WINDOW_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class MeterReading:
    """A board's counter and power at a moment; None where it has none."""

    at_s: float
    counter_mj: int | None
    power_mw: int | None


@dataclass(frozen=True, slots=True)
class EnergyAccount:
    """Energy since the first reading.

    Attributes:
        total_mj: so far.
        source: weakest label of its parts.
        resets: times the counter began again.
        last: the reading before.
        moved_at_s: when the counter last moved.
        bridged_mj: integral added since then, which the counter may still bring.
    """

    total_mj: float = 0.0
    source: FigureSource = FigureSource.MEASURED_COUNTER
    resets: int = 0
    last: MeterReading | None = None
    moved_at_s: float = 0.0
    bridged_mj: float = 0.0

    @property
    def figure(self) -> EnergyFigure:
        """With label and method."""
        name = "nvml-counter@1" if self.source is FigureSource.MEASURED_COUNTER else "nvml-counter+power@1"
        return EnergyFigure(self.total_mj, self.source, name + (f"(resets={self.resets})" if self.resets else ""))


def count(account: EnergyAccount, reading: MeterReading, most_mw: int) -> EnergyAccount:
    """The account after one more reading; a reading that is not later changes nothing.

    Args:
        account: so far.
        reading: the new one.
        most_mw: greatest power cap of the board; 0 when not known.
    """
    before = account.last
    if before is None:
        source = FigureSource.MEASURED_COUNTER if reading.counter_mj is not None else _without_counter(reading)
        return replace(account, last=reading, moved_at_s=reading.at_s, source=source)
    window_s = reading.at_s - before.at_s
    if window_s <= 0:
        return account
    account = replace(account, last=reading)
    if before.counter_mj is None or reading.counter_mj is None:
        return _add_integral(replace(account, moved_at_s=reading.at_s, bridged_mj=0.0), before, reading)
    growth_mj = reading.counter_mj - before.counter_mj
    since_moved_s = reading.at_s - account.moved_at_s
    if growth_mj == 0:
        return _stand_still(account, reading, since_moved_s)
    bridged_mj = account.bridged_mj
    account = replace(account, moved_at_s=reading.at_s, bridged_mj=0.0)
    if growth_mj < 0:
        return _add_integral(replace(account, resets=account.resets + 1), before, reading)
    if most_mw and growth_mj > most_mw * PEAK_OVER_CAP * max(since_moved_s, window_s) + most_mw * REFRESH_S:
        return _add_integral(account, before, reading)
    return replace(account, total_mj=account.total_mj + max(0.0, growth_mj - bridged_mj))


def window_source(window_s: float, source: FigureSource) -> FigureSource:
    """The label of a figure taken over a window: under 1 s there is none, under 5 s it is no measurement."""
    if window_s < LEAST_WINDOW_S:
        return FigureSource.UNAVAILABLE
    return source if window_s >= MEASURED_WINDOW_S else weakest((source, FigureSource.MODELLED))


def _stand_still(account: EnergyAccount, reading: MeterReading, still_s: float) -> EnergyAccount:
    """The counter did not move: nothing yet, or for too long while power is drawn."""
    if still_s < FROZEN_S or not reading.power_mw:
        return account
    added_mj = max(0.0, reading.power_mw * still_s - account.bridged_mj)
    return replace(
        account,
        total_mj=account.total_mj + added_mj,
        bridged_mj=account.bridged_mj + added_mj,
        source=weakest((account.source, FigureSource.MEASURED_INTEGRAL)),
    )


def _add_integral(account: EnergyAccount, before: MeterReading, reading: MeterReading) -> EnergyAccount:
    """Adds the integral of power over the last window, with its label."""
    powers = [one.power_mw for one in (before, reading) if one.power_mw is not None]
    window_s = reading.at_s - before.at_s
    added_mj = sum(powers) / len(powers) * window_s if powers else 0.0
    label = FigureSource.UNAVAILABLE if not powers else FigureSource.MEASURED_INTEGRAL
    if powers and window_s > GAP_S:
        label = FigureSource.MODELLED
    return replace(account, total_mj=account.total_mj + added_mj, source=weakest((account.source, label)))


def _without_counter(reading: MeterReading) -> FigureSource:
    return FigureSource.MEASURED_INTEGRAL if reading.power_mw is not None else FigureSource.UNAVAILABLE
