"""A mixed integer program and its solution by HiGHS. Deterministic: one thread, fixed seed, limits counted, not timed.

The only file that knows the solver. It reads no clock of ours. HiGHS's own is a safety net far above the counted
limits; an answer that ended by it says so (`timed_out`), for it may be another one elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Final

import highspy
import numpy
from numpy.typing import NDArray

# A plan within this share of the best is as good as the profiles it is made from.
WANTED_GAP: Final = 0.005
# Nodes of the search tree, and looks that HiGHS takes at its limits (some ten at the root of a large program, where it
# spends most of its time): both bound the work the same way on every machine.
MOST_NODES: Final = 2_000
MOST_LOOKS: Final = 100
# Looks after which a search settles for less: answers of a large program come by the ninth, or after forty, when cuts
# have been added in vain (docs/adr/0108).
FEW_LOOKS: Final = 12
# Safety net for one program; the figures asked for are 20 s for the largest fleet.
MOST_S: Final = 15.0
_OUT_OF_TIME: Final = highspy.HighsModelStatus.kTimeLimit
# Rounding heuristics that HiGHS leaves off: they halve the time of programs with many groups (docs/adr/0058). Its
# feasibility jump, which is on by default, found nothing in any of them and took a sixth of the time of small ones.
_Options = dict[str, bool | int | float | str]
_SAME: Final[_Options] = {
    "output_flag": False,
    "threads": 1,
    "parallel": "off",
    "random_seed": 0,
    "mip_heuristic_run_zi_round": True,
    "mip_heuristic_run_shifting": True,
    "mip_heuristic_run_feasibility_jump": False,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Values of all columns, the cost, and how far from the best it may be as a share of it.

    Attributes:
        timed_out: the safety net ended the search: another machine may find another answer.
    """

    values: tuple[float, ...]
    cost: float
    gap: float
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The best when columns need not be whole numbers.

    Attributes:
        prices: dual values of the rows.
        cost: no answer in whole numbers costs less.
    """

    prices: tuple[float, ...]
    cost: float


@dataclass(slots=True)
class Program:
    """Columns with a cost and bounds, rows with bounds. Built by one planning run and thrown away.

    Attributes:
        starts: where each row's terms start in `columns` and `coefficients`, and where the last one's end.
        base: what every answer costs beside its columns; gaps are shares of the whole.
    """

    costs: list[float] = field(default_factory=list)
    uppers: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    leasts: list[float] = field(default_factory=list)
    mosts: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    columns: list[int] = field(default_factory=list)
    coefficients: list[float] = field(default_factory=list)
    base: float = 0.0

    @property
    def height(self) -> int:
        """Number of rows."""
        return len(self.leasts)

    def column(self, cost: float, upper: float = math.inf, *, whole: bool = True) -> int:
        """A column from 0 to `upper`; its number."""
        self.costs.append(cost)
        self.uppers.append(upper)
        self.whole.append(whole)
        return len(self.costs) - 1

    def row(self, terms: list[tuple[int, float]], *, least: float = -math.inf, most: float = math.inf) -> None:
        """least ≤ Σ coefficient × column ≤ most."""
        self.leasts.append(least)
        self.mosts.append(most)
        self.columns += [column for column, _ in terms]
        self.coefficients += [coefficient for _, coefficient in terms]
        self.starts.append(len(self.columns))

    def only(self, kept: NDArray[numpy.bool_]) -> Program:
        """A copy with some of the columns, as if the others were 0."""
        columns, heights = numpy.array(self.columns, dtype=numpy.int64), numpy.diff(self.starts)
        terms = kept[columns]
        ends = numpy.cumsum(
            numpy.bincount(numpy.repeat(numpy.arange(self.height), heights)[terms], minlength=self.height)
        )
        return Program(
            costs=numpy.array(self.costs)[kept].tolist(),
            uppers=numpy.array(self.uppers)[kept].tolist(),
            whole=numpy.array(self.whole)[kept].tolist(),
            leasts=list(self.leasts),
            mosts=list(self.mosts),
            starts=[0, *ends.tolist()],
            columns=(numpy.cumsum(kept) - 1)[columns[terms]].tolist(),
            coefficients=numpy.array(self.coefficients)[terms].tolist(),
            base=self.base,
        )

    def without(self, rows: frozenset[int]) -> Program:
        """A copy in which some rows bind nothing."""
        lists = {p.name: list(getattr(self, p.name)) for p in fields(self) if p.name != "base"}
        copy = Program(**lists, base=self.base)
        for number in rows:
            copy.leasts[number], copy.mosts[number] = -math.inf, math.inf
        return copy

    def solve(
        self,
        gap: float = WANTED_GAP,
        enough: float | None = None,
        settle: float = -math.inf,
        most_s: float = MOST_S,
    ) -> Answer | None:
        """The best found within the limits, None when there is none.

        Args:
            enough: a cost that is good enough to stop at.
            settle: answers cheaper than this are good enough after `FEW_LOOKS`.
            most_s: the safety net.
        """
        if not self.costs:
            unmet = any(least > 0.0 or most < 0.0 for least, most in zip(self.leasts, self.mosts, strict=True))
            return None if unmet else Answer((), self.base, 0.0)
        limits: _Options = {"mip_rel_gap": gap, "mip_max_nodes": MOST_NODES, "time_limit": most_s}
        solver = self._solver(limits | ({"objective_target": enough} if enough is not None else {}))
        solver.passModel(self._model(relaxed=False))
        solver.cbMipInterrupt.subscribe(_Patience(settle))
        solver.run()
        solution, info = solver.getSolution(), solver.getInfo()
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return None
        reached = max(float(info.mip_gap), 0.0) if math.isfinite(info.mip_gap) else math.inf
        timed_out = solver.getModelStatus() == _OUT_OF_TIME
        return Answer(tuple(solution.col_value), float(info.objective_function_value), reached, timed_out)

    def relaxed(self) -> Relaxed | None:
        """The best when columns need not be whole numbers; None when not even that is possible.

        Prices are 0, which bound nothing, in the case that the safety net ends the search.
        """
        solver = self._solver({"time_limit": MOST_S})
        solver.passModel(self._model(relaxed=True))
        solver.run()
        status = solver.getModelStatus()
        if status == _OUT_OF_TIME:
            return Relaxed((0.0,) * self.height, -math.inf)
        if status != highspy.HighsModelStatus.kOptimal:
            return None
        return Relaxed(tuple(solver.getSolution().row_dual), float(solver.getInfo().objective_function_value))

    def reduced_costs(self, prices: tuple[float, ...], aside: frozenset[int]) -> list[float]:
        """Costs of columns less what rows pay for them; rows in `aside` pay nothing."""
        paying = numpy.array(prices)
        paying[list(aside)] = 0.0
        paid = numpy.array(self.coefficients) * numpy.repeat(paying, numpy.diff(self.starts))
        columns = numpy.array(self.columns, dtype=numpy.int64)
        reduced = numpy.array(self.costs) - numpy.bincount(columns, paid, minlength=len(self.costs))
        return list(reduced.tolist())

    def paid(self, prices: tuple[float, ...], aside: frozenset[int]) -> float:
        """What the rows' bounds are worth at these prices; rows in `aside` count nothing."""
        total = 0.0
        for number, (least, most) in enumerate(zip(self.leasts, self.mosts, strict=True)):
            bound = least if prices[number] > 0.0 else most
            if number not in aside and prices[number] != 0.0 and math.isfinite(bound):
                total += prices[number] * bound
        return total

    def _solver(self, options: _Options) -> highspy.Highs:
        solver = _Silent()
        for name, value in (_SAME | options).items():
            solver.setOptionValue(name, value)
        return solver

    def _model(self, *, relaxed: bool) -> highspy.HighsLp:
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = len(self.costs), self.height
        model.offset_ = self.base
        model.col_cost_ = numpy.array(self.costs, dtype=float)
        model.col_lower_ = numpy.zeros(len(self.costs))
        model.col_upper_ = numpy.array(self.uppers, dtype=float)
        model.row_lower_ = numpy.array(self.leasts, dtype=float)
        model.row_upper_ = numpy.array(self.mosts, dtype=float)
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = numpy.array(self.starts, dtype=numpy.int32)
        model.a_matrix_.index_ = numpy.array(self.columns, dtype=numpy.int32)
        model.a_matrix_.value_ = numpy.array(self.coefficients, dtype=float)
        if not relaxed:
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            model.integrality_ = [kinds[is_whole] for is_whole in self.whole]
        return model


class _Patience:
    """Ends a search after `MOST_LOOKS` at its limits, or after `FEW_LOOKS` with an answer to settle for."""

    def __init__(self, settle: float) -> None:
        self._looks, self._settle = 0, settle

    def __call__(self, event: highspy.HighsCallbackEvent) -> None:
        self._looks += 1
        settled = self._looks >= FEW_LOOKS and event.data_out.mip_primal_bound < self._settle
        if self._looks > MOST_LOOKS or settled:
            event.interrupt()


class _Silent(highspy.Highs):
    """HiGHS without a word on standard output, which is the service's log.

    Its own constructor calls a method, the first of which prints a banner; options can be set only after it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def enableCallbacks(self) -> None:
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()  # type: ignore[no-untyped-call]
