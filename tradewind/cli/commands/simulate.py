"""`tradewind simulate`: one trace on one cluster under some policies, without any device."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradewind.cli import wish
from tradewind.cli.output import Output
from tradewind.cli.progress import bar
from tradewind.cli.session import Session, command
from tradewind.domain.errors import InvalidField
from tradewind.domain.units import duration_s
from tradewind.v1 import common_pb2

if TYPE_CHECKING:
    from services.simulator.outcome import Outcome
    from services.simulator.run import Case, Limits

# Ordinary limits of a chat, for those who do not say.
DEFAULT_TTFT_MS: Final = 1000.0
DEFAULT_TPOT_MS: Final = 50.0
STDOUT: Final = 1
COLUMNS: Final = (
    "policy", "^energy", "^against static", "^attainment", "^TTFT p99", "^TPOT p99", "^changes", "^refused", "^lost",
)  # fmt: skip
_TABLES_OPTION: Final = typer.Option(
    "--device-tables",
    envvar="TRADEWIND_DEVICE_TABLES",
    help="Folder of the public measurement tables (docs/simulator.md says which).",
)
TablesOption = Annotated[Path, _TABLES_OPTION]
# A cluster file that takes profiles of our own store needs none.
OptionalTablesOption = Annotated[Path | None, _TABLES_OPTION]


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command."""
    command(app, "simulate", rich_help_panel=panel)(simulate)


def simulate(
    session: Session,
    trace: Annotated[Path, typer.Option("--trace", help="CSV of arrival_s,prompt_tokens,output_tokens; .gz too.")],
    cluster: Annotated[Path, typer.Option("--cluster", help="YAML: a model and device types × counts.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html, report.json and journal.jsonl.")],
    device_tables: OptionalTablesOption = None,
    policy: Annotated[list[str] | None, typer.Option("--policy", help="Repeatable; energy when none is given.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal bytes.")] = 1,
    latency: Annotated[
        list[str] | None, typer.Option("--latency", help="SLO of each request: --ttft-p99 1s --tpot-p99 50ms.")
    ] = None,
    time_scale: Annotated[
        float, typer.Option("--time-scale", help="Multiplies arrival times; 0.5 doubles load.")
    ] = 1.0,
    copies: Annotated[int, typer.Option("--copies", help="Each request so often, within ±5 s.")] = 1,
    rate: Annotated[float, typer.Option("--rate", help="Arrivals a second, of traces without times.")] = 0.0,
    start: Annotated[str, typer.Option("--start", help="Leave out what comes before.")] = "0s",
    end: Annotated[str, typer.Option("--end", help="Leave out what comes from here on.")] = "",
    report_from: Annotated[str, typer.Option("--report-from", help="Count figures from here.")] = "0s",
    scenario: Annotated[Path | None, typer.Option("--scenario", help="YAML of faults to inject.")] = None,
) -> None:
    """Play a trace against the live decision code over modelled devices and report energy and SLO attainment."""
    require_simulator()
    from services.simulator.policies import check_policy

    names = [check_policy(name) for name in policy or ["energy"]]
    limits = limits_of(latency or [])
    case = _case(trace, cluster, device_tables, limits, seed, time_scale, copies, rate,
                 (_seconds("--start", start), _seconds("--end", end or "1000000000s")),
                 _seconds("--report-from", report_from), scenario)  # fmt: skip
    outcomes = _run(session.out, case, names)
    _report(session.out, case, outcomes, out)


def require_simulator() -> None:
    """Says what to install where the simulator's parts are not there.

    Raises:
        InvalidField: numpy is missing.
    """
    if importlib.util.find_spec("numpy") is None or importlib.util.find_spec("highspy") is None:
        raise InvalidField("simulate", "needs numpy and highspy; install tradewind[simulator]")
    _quiet_solver()


def _quiet_solver() -> None:
    """HiGHS writes two lines about itself to stdout when the first solver of a process is made; --json is pure JSON."""
    import highspy

    sys.stdout.flush()
    kept = os.dup(STDOUT)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, no path
            os.dup2(nowhere.fileno(), STDOUT)
            highspy.Highs()  # type: ignore[no-untyped-call]
    finally:
        os.dup2(kept, STDOUT)
        os.close(kept)


def limits_of(options: Sequence[str]) -> Limits:
    """The SLO of each request from `--latency` options.

    Raises:
        InvalidField: malformed.
    """
    from services.simulator.run import Limits

    found = {
        common_pb2.LATENCY_METRIC_TTFT: DEFAULT_TTFT_MS,
        common_pb2.LATENCY_METRIC_TPOT: DEFAULT_TPOT_MS,
        common_pb2.LATENCY_METRIC_E2E: math.inf,
    }
    percentile = 99.0
    for limit in wish.latency_limits(options):
        found[limit.metric], percentile = limit.limit_ms, limit.percentile
    ttft, tpot, e2e = found.values()
    return Limits(ttft / 1000.0, tpot / 1000.0, percentile, e2e / 1000.0)


def show_outcomes(out: Output, outcomes: Sequence[Outcome]) -> None:
    """A table of one case."""
    static = next((o.energy.total_j for o in outcomes if o.policy == "static"), 0.0)
    rows = [
        [
            o.policy,
            f"{o.energy.total_j / 1e6:.3f} MJ",
            f"{(o.energy.total_j / static - 1.0) * 100.0:+.1f} %" if static else "–",
            f"{o.attainment:.2%}",
            f"{o.ttft.p99_s * 1e3:.0f} ms",
            f"{o.tpot.p99_s * 1e3:.1f} ms",
            str(o.changes),
            str(o.refused),
            str(o.lost),
        ]
        for o in outcomes
    ]
    out.table(COLUMNS, rows, "nothing was run")
    for o in outcomes:
        for finding in o.findings[:5]:
            out.note(f"[bold red]{o.policy}:[/] {finding}")


def _case(
    trace: Path,
    cluster: Path,
    tables: Path | None,
    limits: Limits,
    seed: int,
    time_scale: float,
    copies: int,
    rate: float,
    span: tuple[float, float],
    from_s: float,
    scenario: Path | None,
) -> Case:
    from services.simulator.catalogue import menu_of
    from services.simulator.cluster import read_cluster
    from services.simulator.matrix import COPY_SPREAD_S
    from services.simulator.run import Case
    from services.simulator.scenario import Scenario, read_scenario
    from services.simulator.trace import read_trace

    found = read_cluster(cluster)
    requests = read_trace(trace, rate_per_s=rate, seed=seed).between(*span)
    requests = requests.stretched(time_scale).copied(copies, COPY_SPREAD_S, seed)
    requests.between(from_s, float("inf"))
    menu = menu_of(found, tables)
    faults = read_scenario(scenario) if scenario else Scenario()
    return Case(found, menu, requests, limits, from_s=from_s, scenario=faults, seed=seed)


def _run(out: Output, case: Case, names: Sequence[str]) -> list[Outcome]:
    from services.simulator.policies import run_policy

    outcomes = []
    for place, name in enumerate(names):
        with bar(out, f"{name} on {case.trace.name}") as shown:
            shown.tell(f"{len(case.trace):,} requests", place / len(names))
            outcomes.append(
                run_policy(case, name, lambda step, o, s=shown: s.tell(_step_words(step, o), 0.5))  # type: ignore[misc]
            )
    return outcomes


def _step_words(step: str, outcome: Outcome) -> str:
    return f"{step} {outcome.energy.total_j / 1e6:.3f} MJ at {outcome.attainment:.2%}"


def _report(out: Output, case: Case, outcomes: Sequence[Outcome], folder: Path) -> None:
    from services.simulator.report.document import case_document, origin
    from services.simulator.report.folder import write_report
    from services.simulator.stored.menu import assumptions_of

    title = f"{case.trace.name} on {case.cluster.name}"
    source = origin(case.menu.errors, " ".join(["tradewind", *sys.argv[1:]]), assumptions_of(case.menu))
    document: dict[str, Any] = write_report(folder, title, [(case_document(case, outcomes), outcomes)], source)
    out.document(document)
    show_outcomes(out, outcomes)
    out.note(f"everything here is simulated; [bold]{folder / 'report.html'}[/] has plots, assumptions and fit errors")


def _seconds(field: str, text: str) -> float:
    if text in ("0", "0s"):
        return 0.0
    return wish.parsed(field, text, duration_s)
