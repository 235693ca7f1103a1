"""The port of a meter: energy that only grows, and how it is known."""

from __future__ import annotations

from typing import Protocol

from tradewind.domain.figures import FigureSource


class Meter(Protocol):
    """Counts the energy of a device."""

    @property
    def source(self) -> FigureSource:
        """Label of its figures."""

    @property
    def method(self) -> str:
        """Name, version and parameters of the method."""

    def energy_mj(self) -> float:
        """Millijoules since the meter was opened; never less than before. Call it at least every 30 s."""
