"""Energy arithmetic: counters that wrap, what busy time costs, who pays for a step. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tradewind.domain.figures import EnergyFigure, FigureSource

# Assumed, not measured: what a busy server core adds, and what it draws idle with its share of memory and uncore. Good
# for comparing variants on one machine; settings give the TDP where that is known, and RAPL replaces both.
DEFAULT_CORE_W: Final = 3.5
DEFAULT_IDLE_W_PER_CPU: Final = 1.2
# Share of a processor's TDP drawn at idle, when the TDP is known; the rest is spread over the cores.
IDLE_SHARE_OF_TDP: Final = 0.25


def counter_growth(before: int, now: int, wraps_at: int) -> int:
    """How far a counter went from one reading to the next, when it went round at most once.

    Args:
        before: earlier reading.
        now: later reading.
        wraps_at: greatest value; it goes to 0 after it. 0 for a counter that never wraps.
    """
    if now >= before:
        return now - before
    if wraps_at <= 0 or before > wraps_at:
        # It was reset: what was counted before is known already, and since then it counted `now`.
        return now
    return wraps_at - before + now + 1


@dataclass(frozen=True, slots=True)
class LinearPower:
    """Power as a straight line over busy cores: idle_w + core_w · busy. The model "cpu-linear@1".

    Attributes:
        idle_w: of the cores offered, nothing at work.
        core_w: added by each busy core; also joules for each busy core-second.
        basis: where the parameters come from.
    """

    idle_w: float
    core_w: float
    basis: str

    @property
    def method(self) -> str:
        """Name, version and parameters."""
        return f"cpu-linear@1(idle={self.idle_w:.3g}W,core={self.core_w:.3g}W,{self.basis})"

    def energy_mj(self, elapsed_s: float, busy_core_s: float) -> float:
        """Energy of a time span, in millijoules."""
        return (self.idle_w * elapsed_s + self.core_w * busy_core_s) * 1e3


def linear_power(cpus: int, machine_cpus: int, tdp_w: float) -> LinearPower:
    """The model's parameters.

    Args:
        cpus: logical CPUs that the node offers.
        machine_cpus: logical CPUs of the machine, which share the TDP.
        tdp_w: of the processor; 0 when not known.
    """
    if tdp_w > 0:
        share_w = tdp_w / machine_cpus
        return LinearPower(
            IDLE_SHARE_OF_TDP * share_w * cpus, (1 - IDLE_SHARE_OF_TDP) * share_w, f"tdp={tdp_w:g}W/{machine_cpus}cpus"
        )
    return LinearPower(DEFAULT_IDLE_W_PER_CPU * cpus, DEFAULT_CORE_W, f"default,{cpus}cpus")


@dataclass(frozen=True, slots=True)
class Rate:
    """What a replica is charged for CPU time.

    Attributes:
        mj_per_core_s: millijoules for each core-second it was busy; the idle share is nobody's.
        source: label of what follows from it.
        method: how it was had.
    """

    mj_per_core_s: float
    source: FigureSource
    method: str

    def charge(self, core_s: float) -> EnergyFigure:
        """The energy of so much CPU time."""
        return EnergyFigure(self.mj_per_core_s * core_s, self.source, self.method)


def modelled_rate(model: LinearPower) -> Rate:
    """The rate of the model."""
    return Rate(model.core_w * 1e3, FigureSource.MODELLED, model.method)


def measured_rate(energy_mj: float, elapsed_s: float, busy_core_s: float, idle_w: float, method: str) -> Rate | None:
    """The rate that a measured total means: what was above idle, for each busy core-second. Attributed at best.

    None when nothing was busy, or when less than idle was drawn.
    """
    above_mj = energy_mj - idle_w * elapsed_s * 1e3
    if busy_core_s <= 0 or above_mj <= 0:
        return None
    return Rate(above_mj / busy_core_s, FigureSource.ATTRIBUTED, f"{method}/by-cpu-time@1")
