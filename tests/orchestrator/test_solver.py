"""The solver as the planner uses it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy
import pytest

from bench.orchestrator.fleet_of import situation
from services.orchestrator.core.planning.drafts import write_all
from services.orchestrator.core.planning.ground import ground_of
from services.orchestrator.core.planning.offer import offer_of
from services.orchestrator.core.planning.plan import make_plan
from services.orchestrator.core.planning.points import points_of
from services.orchestrator.core.planning.report import Verdict, explain_chosen
from services.orchestrator.core.planning.scores import items_of
from services.orchestrator.core.planning.solver import Program
from services.orchestrator.core.planning.weigh import Option, weigh_all


def test_the_solver_says_nothing_on_standard_output() -> None:
    """The service's standard output is its log; HiGHS greets there, once a process, unless it is told before."""
    code = (
        "from services.orchestrator.core.planning.solver import Program\n"
        "p = Program(); p.row([(p.column(1.0, 5.0), 1.0)], least=2.5); print(p.solve().values, p.relaxed().prices)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(3.0,) (1.0,)\n"


def market_split(rows: int, columns: int) -> Program:
    """Numbers to be split into halves that are equal in every row (Cornuéjols and Dawande, IPCO 1998, LNCS 1412).

    Any split is allowed, at the cost of what is left over; to prove a cost the least takes an exhaustive search.
    """
    program, number = Program(), 12_345
    taken = [program.column(0.0, 1.0) for _ in range(columns)]
    for _ in range(rows):
        row = []
        for _ in taken:
            number = (1_103_515_245 * number + 12_345) % 2**31
            row.append(1.0 + (number >> 8) % 128)
        over, under = program.column(1.0, whole=False), program.column(1.0, whole=False)
        half = float(sum(row) // 2)
        program.row([*zip(taken, row, strict=True), (over, -1.0), (under, 1.0)], least=half, most=half)
    return program


def test_a_search_that_the_clock_ends_gives_the_best_so_far_with_its_gap() -> None:
    """The first split is found in a fiftieth of the time that the counted limits allow, on any machine."""
    limit_s, found = 1e-3, None
    while found is None:
        found = market_split(15, 150).solve(gap=0.0, most_s=limit_s)
        limit_s *= 2.0
    assert found.timed_out
    assert len(found.values) == 150 + 2 * 15
    assert all(value == pytest.approx(round(value), abs=1e-6) for value in found.values[:150])
    assert found.cost == pytest.approx(sum(found.values[150:]))
    assert found.gap == pytest.approx(1.0), "nothing but 0 is known to bound it from below"


def test_a_search_settles_for_any_answer_when_it_may() -> None:
    """All looks that are allowed would take a hundred times as long; which ones are taken is no matter of time."""
    found, again = (market_split(15, 150).solve(gap=0.0, settle=math.inf) for _ in range(2))
    assert found is not None
    assert not found.timed_out
    assert found == again
    assert found.cost == pytest.approx(sum(found.values[150:]))


def test_no_answer_costs_less_than_the_program_relaxed_and_an_impossible_one_has_none() -> None:
    program = Program()
    one, other = program.column(3.0, 4.0), program.column(2.0, 1.0)
    program.row([(one, 2.0), (other, 1.0)], least=4.0)
    relaxed, answer = program.relaxed(), program.solve()
    assert relaxed is not None
    assert answer is not None
    assert relaxed.cost == pytest.approx(6.0)
    assert relaxed.prices == pytest.approx((1.5,))
    assert relaxed.cost <= answer.cost
    program.row([(one, 1.0), (other, 1.0)], least=6.0)
    assert program.relaxed() is None
    assert program.solve() is None


def test_a_program_with_some_of_its_columns_is_as_if_the_others_were_0() -> None:
    program = Program()
    cheap, dear, aside = program.column(1.0, 2.0), program.column(5.0, 9.0), program.column(0.0, whole=False)
    program.row([(cheap, 1.0), (dear, 2.0), (aside, 1.0)], least=4.0)
    program.row([(dear, 1.0)], most=7.0)
    smaller = program.only(numpy.array([True, True, False]))
    assert (smaller.starts, smaller.columns, smaller.coefficients) == ([0, 2, 3], [0, 1, 1], [1.0, 2.0, 1.0])
    answer = smaller.solve()
    assert answer is not None
    assert answer.values == (2.0, 1.0)
    without_dear = program.only(numpy.array([True, False, False]))
    assert without_dear.starts == [0, 1, 1], "a row without terms stays"
    assert without_dear.solve() is None


def test_a_report_says_that_the_clock_ended_the_search_and_how_far_the_plan_may_be_off() -> None:
    world = situation(6, 1)
    wish, ground = world.deployments[0], ground_of(world)
    offer, plan = offer_of(world, ground), make_plan(world)
    points, _ = points_of(wish, offer)
    options = tuple(o for o in weigh_all(wish, points, offer.sheaves[wish.model_id]) if isinstance(o, Option))
    chosen = ((items_of(wish, options, frozenset())[0], 1),)
    verdict = Verdict(chosen, settled=False, gap=0.07, timed_out=True)
    draft = explain_chosen(wish, verdict, options, (), plan.blueprint, offer.sheaves[wish.model_id])
    written = write_all([draft])[0]
    assert "within 7.00% of the least cost. The search was ended by the clock" in written.summary
    assert written.gap == pytest.approx(0.07)
