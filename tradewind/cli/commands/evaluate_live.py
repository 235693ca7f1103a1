"""`tradewind evaluate live`: a trace against real agents on this machine, policy by policy, and in the simulator."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradewind.cli import wish
from tradewind.cli.commands.simulate import limits_of, require_simulator
from tradewind.cli.live_runs import Wanted, run_all
from tradewind.cli.session import Session
from tradewind.cli.sources import source_path
from tradewind.domain.errors import InvalidField, TradewindError
from tradewind.domain.units import duration_s

if TYPE_CHECKING:
    from services.simulator.live.study import LiveRun
    from services.simulator.run import Case
    from services.simulator.trace import Trace

# The instance is on this machine, so that missing files are noticed before it starts.
_HERE: Final = "127.0.0.1"
# One policy's run; longer ones are for clusters, where `tradewind simulate` plays the same trace in seconds.
LONGEST_RUN_S: Final = 7200.0


def live(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name; imported, built and measured where missing.")],
    trace: Annotated[Path, typer.Option("--trace", help="CSV of arrival_s,prompt_tokens,output_tokens; .gz too.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report and what repeats it.")],
    source: Annotated[str, typer.Option("--source", help="Files of a model that is not imported yet.")] = "",
    recipe: Annotated[list[str] | None, typer.Option("--recipe", help="To build where missing; repeatable.")] = None,
    context: Annotated[int, typer.Option("--context", min=0, help="Context to build for; 0: recipe's choice.")] = 0,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", help="Repeatable; static-peak, static, energy when none is given."),
    ] = None,
    latency: Annotated[
        list[str] | None, typer.Option("--latency", help="SLO of each request: --ttft-p95 2s --tpot-p95 100ms.")
    ] = None,
    agent_cores: Annotated[
        list[str] | None,
        typer.Option("--agent-cores", help="A further node agent on these cores, such as 1 or 2-3; repeatable."),
    ] = None,
    time_scale: Annotated[float, typer.Option("--time-scale", help="Multiplies arrival times.")] = 1.0,
    token_scale: Annotated[float, typer.Option("--token-scale", help="Multiplies lengths, for small models.")] = 1.0,
    start: Annotated[str, typer.Option("--start", help="Leave out what comes before, in the trace's time.")] = "0s",
    end: Annotated[str, typer.Option("--end", help="Leave out what comes from here on.")] = "120s",
    stated: Annotated[
        float,
        typer.Option("--stated", min=0.0, help="Requests/s adaptive policies begin with; 0: the trace's busiest 20 s."),
    ] = 0.0,
) -> None:
    """Play a trace against real agents on this machine under several policies, and replay it in the simulator."""
    require_simulator()
    from services.simulator.live.cores import rest_for_own
    from services.simulator.live.study import DEFAULT_POLICIES, check_live

    further = tuple(agent_cores or ())
    wanted = Wanted(
        model=model,
        source=str(source_path(source, _HERE)) if source else "",
        recipes=tuple(recipe or ()),
        context_tokens=context,
        trace=_trace(trace, (_seconds("--start", start), _seconds("--end", end)), time_scale, token_scale),
        limits=limits_of(latency or []),
        policies=tuple(check_live(name) for name in policy or DEFAULT_POLICIES),
        further=further,
        own_cores=rest_for_own(further, os.sched_getaffinity(0)),
        out=_writable(out),
        stated_per_s=stated,
    )
    runs = list[tuple[Any, Any]]()
    try:
        with _ended_by_sigterm():
            for told in run_all(session, wanted):
                runs.append(told)
    except TradewindError:
        if runs:
            _written(wanted, runs)
            session.out.note(f"what was run before the error is in {wanted.out / 'report.html'}")
        raise
    document = _written(wanted, runs)
    session.out.document(document)
    _show(session, document, wanted.out)


def _written(wanted: Wanted, told: Sequence[tuple[Case, LiveRun]]) -> dict[str, Any]:
    """The report of these runs in the folder; what report.json holds."""
    from services.simulator.live.document import live_document
    from services.simulator.report.document import origin
    from services.simulator.report.folder import write_live_report
    from services.simulator.report.live_page import live_page
    from services.simulator.stored.menu import assumptions_of

    case, runs = told[0][0], [run for _, run in told]
    source = origin(case.menu.errors, " ".join(["tradewind", *sys.argv[1:]]), assumptions_of(case.menu))
    cores, boards = ", ".join((wanted.own_cores, *wanted.further)), ", ".join(b.name for b in case.cluster.boards)
    agents = f"{1 + len(wanted.further)} node agents on cores {cores} of {boards}, which every service shares"
    document = live_document(case, runs, source, agents)
    answers = [{"policy": run.policy, **asdict(a)} for run in runs for a in run.answers]
    write_live_report(wanted.out, document, live_page(document, runs), answers)
    return document


def _show(session: Session, document: dict[str, Any], folder: Path) -> None:
    from services.simulator.live.bystanders import CROWDED_SHARE

    columns = ["policy", "^attainment", "^TTFT p95", "^TPOT p95", "^energy", "energy is", "^changes", "^lost"]
    rows = [
        [p["policy"], f"{p['attainment']['value']:.2%}", f"{p['ttft']['p95']['value']:.0f} ms",
         f"{p['tpot']['p95']['value']:.1f} ms", f"{p['energy']['value']:.1f} J", p["energy"]["source"],
         str(p["changes"]), str(p["lost"])]
        for p in document["policies"]
    ]  # fmt: skip
    session.out.table(columns, rows, "")
    calibration = [
        [f"{p['policy']}: {r['what']}", f"{r['live']:.4g} {r['unit']}", f"{r['simulated']:.4g} {r['unit']}",
         f"{r['error']:+.1%}"]
        for p in document["policies"] for r in p["calibration"]
    ]  # fmt: skip
    session.out.table(["calibration", "^live", "^simulated", "^error"], calibration, "")
    for p in document["policies"]:
        if (share := p["others_on_the_machine"]["value"]) > CROWDED_SHARE:
            session.out.note(
                f"[yellow]{p['policy']}: other processes took {share:.0%} of all cores' time; latencies and the energy "
                "of the devices are those of a crowded machine[/]"
            )
    session.out.note(f"[bold]{folder / 'report.html'}[/] has plots, decisions and assumptions")


def _trace(path: Path, span: tuple[float, float], time_scale: float, token_scale: float) -> Trace:
    """The trace as it will be played.

    Raises:
        InvalidField: unreadable, malformed, empty, or too long for a live run.
    """
    from services.simulator.trace import read_trace

    trace = read_trace(path).between(*span).stretched(time_scale).shortened(token_scale)
    if trace.length_s > LONGEST_RUN_S:
        raise InvalidField(
            "--time-scale",
            f"{trace.name} would be played for {trace.length_s:,.0f} s a policy, at most {LONGEST_RUN_S:,.0f} s are; "
            "lower --time-scale or --end",
        )
    return trace


def _writable(folder: Path) -> Path:
    """The folder, made now: minutes later is too late to hear that it cannot be written.

    Raises:
        InvalidField: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".part").touch()
        (folder / ".part").unlink()
    except OSError as error:
        raise InvalidField("--out", f"{folder} cannot be written: {error}") from error
    return folder


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that everything it started is stopped."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _seconds(field: str, text: str) -> float:
    return 0.0 if text in ("0", "0s") else wish.parsed(field, text, duration_s)
