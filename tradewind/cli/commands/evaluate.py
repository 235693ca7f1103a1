"""`tradewind evaluate`: adaptive policies against the best fixed placement, simulated on clusters or live here."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradewind.cli import wish
from tradewind.cli.commands.simulate import TablesOption, limits_of, require_simulator, show_outcomes
from tradewind.cli.placing import DEFAULT_WAIT_S, existing, place, wait_ready
from tradewind.cli.progress import bar
from tradewind.cli.session import Session, command
from tradewind.client.endpoints import default_state_dir
from tradewind.domain.errors import InvalidField, JobTimeout
from tradewind.domain.units import duration_s
from tradewind.embedded.layout import Layout
from tradewind.v1 import orchestrator_pb2

if TYPE_CHECKING:
    from services.simulator.live.study import LiveRun
    from services.simulator.outcome import Outcome
    from services.simulator.run import Limits
    from services.simulator.trace import Trace

# Name of the deployment that live runs make and end.
LIVE_NAME: Final = "evaluation"
# An agent starts and reports within this, also on a busy machine.
AGENT_LIMIT_S: Final = 60.0


def register(app: typer.Typer, panel: str) -> None:
    """Adds the group."""
    group = typer.Typer(help="Adaptive policies against the best fixed placement.", no_args_is_help=True)
    command(group, "simulated")(simulated)
    command(group, "live")(live)
    app.add_typer(group, name="evaluate", rich_help_panel=panel)


def simulated(
    session: Session,
    traces: Annotated[Path, typer.Option("--traces", help="Folder of the traces (docs/evaluation.md says which).")],
    device_tables: TablesOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html, report.json and journal.jsonl.")],
    workload: Annotated[
        list[str] | None, typer.Option("--workload", help="Repeatable; all when none is given.")
    ] = None,
    policy: Annotated[list[str] | None, typer.Option("--policy", help="Repeatable; all when none is given.")] = None,
    cluster: Annotated[Path | None, typer.Option("--cluster", help="YAML; the mixed cluster when not given.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal bytes.")] = 1,
) -> None:
    """Every workload under every policy on a mixed cluster, all of it simulated."""
    require_simulator()
    from services.simulator.cluster import read_cluster
    from services.simulator.matrix import WORKLOADS, evaluate
    from services.simulator.policies import ORDER, check_policy
    from services.simulator.report.document import case_document, origin
    from services.simulator.report.folder import write_report

    known = {w.name: w for w in WORKLOADS}
    for name in workload or ():
        if name not in known:
            raise InvalidField("--workload", f"no workload {name!r}; there are {', '.join(known)}")
    names = [check_policy(name) for name in policy or ORDER]
    chosen = [known[name] for name in workload or known]
    total, done = len(chosen) * len(names), 0
    with bar(session.out, "evaluation") as shown:

        def tell(trace: str, name: str, step: str, outcome: Outcome | None) -> None:
            nonlocal done
            done += outcome is None
            words = f" {step} {outcome.energy.total_j / 1e6:.3f} MJ, {outcome.attainment:.2%}" if outcome else ""
            shown.tell(f"{trace}: {name}{words}", (done - 1) / total)

        found = read_cluster(cluster) if cluster else None
        menu, results = evaluate(chosen, names, traces, device_tables, seed, tell, found)
    cases = [(case_document(case, outcomes), outcomes) for case, outcomes in results]
    source = origin(menu.errors, " ".join(["tradewind", *sys.argv[1:]]))
    document = write_report(out, "Adaptive policies against fixed placements", cases, source)
    session.out.document(document)
    for case, outcomes in results:
        session.out.show(f"\n{case.trace.name}")
        show_outcomes(session.out, outcomes)


def live(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Built and profiled model of the running instance.")],
    trace: Annotated[Path, typer.Option("--trace", help="CSV of arrival_s,prompt_tokens,output_tokens; .gz too.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html, report.json and requests.jsonl.")],
    policy: Annotated[list[str] | None, typer.Option("--policy", help="static, energy; repeatable, else both.")] = None,
    latency: Annotated[
        list[str] | None, typer.Option("--latency", help="SLO of each request: --ttft-p95 2s --tpot-p95 100ms.")
    ] = None,
    agent_cores: Annotated[
        list[str] | None,
        typer.Option("--agent-cores", help="A further node agent on these cores for the run, such as 1 or 2-3."),
    ] = None,
    time_scale: Annotated[float, typer.Option("--time-scale", help="Multiplies arrival times.")] = 1.0,
    token_scale: Annotated[float, typer.Option("--token-scale", help="Multiplies lengths, for small models.")] = 1.0,
    start: Annotated[str, typer.Option("--start", help="Leave out what comes before.")] = "0s",
    end: Annotated[str, typer.Option("--end", help="Leave out what comes from here on.")] = "120s",
) -> None:
    """Play a trace against real agents here, fixed placement against adaptive, and replay it in the simulator."""
    require_simulator()
    from services.simulator.live.agents import further_agents
    from services.simulator.live.study import LIVE_POLICIES, run_live
    from services.simulator.trace import read_trace

    for name in policy or ():
        if name not in LIVE_POLICIES:
            raise InvalidField("--policy", f"{name!r} is not run live; there are {', '.join(LIVE_POLICIES)}")
    span = [0.0 if text in ("0", "0s") else wish.parsed(field, text, duration_s)
            for field, text in (("--start", start), ("--end", end))]  # fmt: skip
    requests = read_trace(trace).between(*span).stretched(time_scale).shortened(token_scale)
    limits, runs = limits_of(latency or []), list[Any]()
    keys = Layout(session.state_dir or default_state_dir(os.environ, Path.cwd(), Path.home())).keys
    with further_agents(agent_cores or (), session.client.endpoints, keys) as agents:
        _wait_for_nodes(session, agents)
        try:
            for name in policy or LIVE_POLICIES:
                with bar(session.out, f"{name}, live") as shown:
                    runs.append(
                        run_live(
                            session.client, model, LIVE_NAME, requests, limits, name, _placing(session),
                            lambda done, s=shown: s.tell("answers", done / len(requests)),  # type: ignore[misc]
                        )
                    )  # fmt: skip
        finally:
            _end(session)
    _report_live(session, requests, limits, runs, out)


def _placing(session: Session) -> Any:
    def placed(name: str, spec: orchestrator_pb2.DeploymentSpec) -> orchestrator_pb2.Deployment:
        wanted = place(session.client, name, spec).deployment
        return wait_ready(session.out, session.client.orchestrator, wanted, DEFAULT_WAIT_S)

    return placed


def _wait_for_nodes(session: Session, names: Sequence[str]) -> None:
    """Waits until further agents are active.

    Raises:
        JobTimeout: one does not come.
    """
    pause, deadline = threading.Event(), time.monotonic() + AGENT_LIMIT_S
    while missing := set(names) - {
        n.report.node_id for n in session.client.orchestrator.nodes() if n.state == orchestrator_pb2.NODE_STATE_ACTIVE
    }:
        if time.monotonic() > deadline:
            raise JobTimeout(f"agents {', '.join(sorted(missing))} did not come within {AGENT_LIMIT_S:.0f} s")
        pause.wait(0.5)


def _end(session: Session) -> None:
    if existing(session.client.orchestrator, LIVE_NAME):
        session.client.orchestrator.delete(LIVE_NAME)


def _report_live(session: Session, trace: Trace, limits: Limits, runs: Sequence[LiveRun], folder: Path) -> None:
    from services.simulator.report.document import origin
    from services.simulator.report.folder import write_live_report
    from services.simulator.report.live_page import live_page

    source = origin((), " ".join(["tradewind", *sys.argv[1:]]))
    document = {
        "title": f"{trace.name} live",
        "trace": {"name": trace.name, "requests": len(trace), "arrivals": trace.arrivals_from, "sha256": trace.digest},
        "slo": {"ttft_ms": limits.ttft_s * 1e3, "tpot_ms": limits.tpot_s * 1e3, "percentile": limits.percentile},
        "command": source["command"],
        "commit": source["commit"],
        "machine": source["machine"],
        "policies": [run.document(limits) for run in runs],
    }
    answers = [{"policy": run.policy, **asdict(a)} for run in runs for a in run.answers]
    write_live_report(folder, document, live_page(document["title"], document, runs), answers)
    session.out.document(document)
    rows = [
        [p["policy"], f"{p['energy']['value']:.1f} J", p["energy"]["source"], f"{p['attainment']['value']:.2%}",
         f"{p['ttft']['p95']['value']:.0f} ms", f"{p['tpot']['p95']['value']:.1f} ms", str(p["failed"])]
        for p in document["policies"]
    ]  # fmt: skip
    session.out.table(["policy", "^energy", "energy is", "^attainment", "^TTFT p95", "^TPOT p95", "^failed"], rows, "")
    for p in document["policies"]:
        for row in p["calibration"]:
            session.out.note(f"{p['policy']} replayed: {row['what']} {row['live']:.4g} live, {row['error']:+.1%}")
