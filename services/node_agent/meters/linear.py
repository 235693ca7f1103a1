"""Energy by the model "cpu-linear@1": a straight line over busy cores. Modelled, never measured."""

from __future__ import annotations

from collections.abc import Callable

from services.node_agent.core.energy import LinearPower
from tradewind.domain.figures import FigureSource


class LinearMeter:
    """Counts what the model says.

    Args:
        model: its parameters.
        now_s: monotonic clock.
        busy_core_s: core-seconds that the cores were busy, growing.
    """

    source = FigureSource.MODELLED

    def __init__(self, model: LinearPower, now_s: Callable[[], float], busy_core_s: Callable[[], float]) -> None:
        self._model, self._now_s, self._busy_core_s = model, now_s, busy_core_s
        self.method = model.method
        self._last_s, self._last_busy_s = now_s(), busy_core_s()
        self._total_mj = 0.0

    def energy_mj(self) -> float:
        """See `Meter`."""
        now_s, busy_s = self._now_s(), self._busy_core_s()
        # Kernel counters of busy time step back by a tick now and then; energy never does.
        elapsed_s, more_busy_s = max(0.0, now_s - self._last_s), max(0.0, busy_s - self._last_busy_s)
        self._total_mj += self._model.energy_mj(elapsed_s, more_busy_s)
        self._last_s, self._last_busy_s = now_s, max(busy_s, self._last_busy_s)
        return self._total_mj
