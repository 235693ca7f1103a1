"""A mixed integer program and its solution by HiGHS. Deterministic: one thread, fixed seed, limits counted in nodes.

The only file that knows the solver. It reads no clock of ours; HiGHS's own is a safety net far above the node limit,
and a solution that ends by it says so in its gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import highspy
import numpy

# A plan within this share of the best is as good as the profiles it is made from.
WANTED_GAP: Final = 0.005
# Nodes of the search tree: limits the work the same way on every machine.
MOST_NODES: Final = 2_000
# Safety net for one program; the figures asked for are 20 s for the largest fleet.
MOST_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Values of all columns, the cost, and how far from the best it may be as a share of it."""

    values: tuple[float, ...]
    cost: float
    gap: float


@dataclass(slots=True)
class Program:
    """Columns with a cost and bounds, rows with bounds. Built by one planning run and thrown away."""

    costs: list[float] = field(default_factory=list)
    uppers: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    rows: list[tuple[float, float, list[tuple[int, float]]]] = field(default_factory=list)

    def column(self, cost: float, upper: float = math.inf, *, whole: bool = True) -> int:
        """A column from 0 to `upper`; its number."""
        self.costs.append(cost)
        self.uppers.append(upper)
        self.whole.append(whole)
        return len(self.costs) - 1

    def row(self, terms: list[tuple[int, float]], *, least: float = -math.inf, most: float = math.inf) -> None:
        """least ≤ Σ coefficient × column ≤ most."""
        self.rows.append((least, most, terms))

    def solve(self, gap: float = WANTED_GAP, most_s: float = MOST_S) -> Answer | None:
        """The best found within the limits, None when there is none."""
        if not self.costs:
            return None if any(least > 0.0 or most < 0.0 for least, most, _ in self.rows) else Answer((), 0.0, 0.0)
        solver = self._solver({"mip_rel_gap": gap, "mip_max_nodes": MOST_NODES, "time_limit": most_s})
        solver.passModel(self._model(relaxed=False))
        solver.run()
        solution, info = solver.getSolution(), solver.getInfo()
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return None
        reached = max(float(info.mip_gap), 0.0) if math.isfinite(info.mip_gap) else math.inf
        return Answer(tuple(solution.col_value), float(info.objective_function_value), reached)

    def prices(self) -> tuple[float, ...] | None:
        """Dual values of the rows when columns need not be whole numbers; None when not even that is possible."""
        solver = self._solver({"time_limit": MOST_S})
        solver.passModel(self._model(relaxed=True))
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        return tuple(solver.getSolution().row_dual)

    def reduced_costs(self, prices: tuple[float, ...], aside: frozenset[int]) -> list[float]:
        """Costs of columns less what rows pay for them; rows in `aside` pay nothing."""
        reduced = list(self.costs)
        for number, (_, _, terms) in enumerate(self.rows):
            price = prices[number]
            if price != 0.0 and number not in aside:
                for column, coefficient in terms:
                    reduced[column] -= price * coefficient
        return reduced

    def paid(self, prices: tuple[float, ...], aside: frozenset[int]) -> float:
        """What the rows' bounds are worth at these prices; rows in `aside` count nothing."""
        total = 0.0
        for number, (least, most, _) in enumerate(self.rows):
            bound = least if prices[number] > 0.0 else most
            if number not in aside and prices[number] != 0.0 and math.isfinite(bound):
                total += prices[number] * bound
        return total

    def _solver(self, options: dict[str, bool | int | float | str]) -> highspy.Highs:
        solver = _Silent()
        same: dict[str, bool | int | float | str] = {"output_flag": False, "threads": 1, "random_seed": 0}
        for name, value in (same | {"parallel": "off"} | options).items():
            solver.setOptionValue(name, value)
        return solver

    def _model(self, *, relaxed: bool) -> highspy.HighsLp:
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = len(self.costs), len(self.rows)
        model.col_cost_ = numpy.array(self.costs, dtype=float)
        model.col_lower_ = numpy.zeros(len(self.costs))
        model.col_upper_ = numpy.array(self.uppers, dtype=float)
        model.row_lower_ = numpy.array([row[0] for row in self.rows], dtype=float)
        model.row_upper_ = numpy.array([row[1] for row in self.rows], dtype=float)
        starts = numpy.cumsum([0, *(len(row[2]) for row in self.rows)])
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = starts.astype(numpy.int32)
        model.a_matrix_.index_ = numpy.array([c for row in self.rows for c, _ in row[2]], dtype=numpy.int32)
        model.a_matrix_.value_ = numpy.array([v for row in self.rows for _, v in row[2]], dtype=float)
        if not relaxed:
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            model.integrality_ = [kinds[is_whole] for is_whole in self.whole]
        return model


class _Silent(highspy.Highs):
    """HiGHS without a word on standard output, which is the service's log.

    Its own constructor calls a method, the first of which prints a banner; options can be set only after it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def enableCallbacks(self) -> None:
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()  # type: ignore[no-untyped-call]
