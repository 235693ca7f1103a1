"""Figures say where they come from: labels, their order, and what sums and derived figures may claim. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class FigureSource(IntEnum):
    """Where a figure comes from, strongest first; the numbers of `tradewind.v1.FigureSource`."""

    UNSPECIFIED = 0
    MEASURED_COUNTER = 1
    MEASURED_INTEGRAL = 2
    ATTRIBUTED = 3
    MODELLED = 4
    SIMULATED = 5
    UNAVAILABLE = 6

    @property
    def label(self) -> str:
        """As people read it, for instance "measured_counter"."""
        return self.name.lower()

    @property
    def measured(self) -> bool:
        """Whether a promise ("20 % less energy") may rest on it."""
        return self in (FigureSource.MEASURED_COUNTER, FigureSource.MEASURED_INTEGRAL)


def weakest(sources: Iterable[int]) -> FigureSource:
    """The label of a sum: that of its weakest part.

    A part without a label has an unknown origin and counts as UNAVAILABLE; so does a sum of nothing.
    """
    known = [FigureSource(s) if s else FigureSource.UNAVAILABLE for s in sources]
    return max(known, default=FigureSource.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class EnergyFigure:
    """An amount of energy in millijoules, its label and its method ("rapl@1")."""

    energy_mj: float
    source: FigureSource
    method: str = ""

    def __add__(self, other: EnergyFigure) -> EnergyFigure:
        """The sum, with the weakest label and both methods named."""
        methods = dict.fromkeys(m for m in (self.method, other.method) if m)
        return EnergyFigure(self.energy_mj + other.energy_mj, weakest((self.source, other.source)), " + ".join(methods))

    def share(self, part: float, rule: str) -> EnergyFigure:
        """A part of it, split by a stated rule: at best ATTRIBUTED.

        Args:
            part: in [0, 1].
            rule: names the split, for instance "by-cores@1".

        Raises:
            ValueError: part is outside [0, 1].
        """
        if not 0 <= part <= 1:
            raise ValueError(f"a share lies in [0, 1], not {part}")
        source = weakest((self.source, FigureSource.ATTRIBUTED))
        return EnergyFigure(self.energy_mj * part, source, f"{self.method}/{rule}" if self.method else rule)


def derived(source: int) -> FigureSource:
    """The label of a figure computed from others by a model (interpolation, extrapolation): at best MODELLED."""
    return weakest((source, FigureSource.MODELLED))


# The label of a figure that is not finite or negative cannot be trusted, whatever it says.
NONSENSE: Final = FigureSource.UNAVAILABLE


def checked(value: float, source: int) -> FigureSource:
    """The label of a value: its own, or UNAVAILABLE when the value cannot be a figure at all."""
    return weakest((source,)) if math.isfinite(value) and value >= 0 else NONSENSE
