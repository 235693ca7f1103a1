"""The solver as the planner uses it."""

from __future__ import annotations

import subprocess
import sys


def test_the_solver_says_nothing_on_standard_output() -> None:
    """The service's standard output is its log; HiGHS greets there, once a process, unless it is told before."""
    code = (
        "from services.orchestrator.core.planning.solver import Program\n"
        "p = Program(); p.row([(p.column(1.0, 5.0), 1.0)], least=2.5); print(p.solve().values, p.prices())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(3.0,) (1.0,)\n"
