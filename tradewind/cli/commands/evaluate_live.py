"""`tradewind evaluate live`: a trace against real agents on this machine, policy by policy, and in the simulator."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradewind.cli import wish
from tradewind.cli.commands.apply import do_step, observe
from tradewind.cli.commands.profiles import stored_profiles
from tradewind.cli.commands.simulate import limits_of, require_simulator
from tradewind.cli.placing import DEFAULT_WAIT_S, existing, place, wait_ready
from tradewind.cli.progress import bar
from tradewind.cli.session import Session
from tradewind.cli.sources import source_path
from tradewind.client.endpoints import default_state_dir
from tradewind.client.tradewind import Tradewind
from tradewind.domain.errors import ContextExceeded, InvalidField, JobTimeout
from tradewind.domain.units import duration_s
from tradewind.embedded.layout import Layout
from tradewind.v1 import orchestrator_pb2

if TYPE_CHECKING:
    from services.simulator.live.study import LiveRun
    from services.simulator.outcome import Outcome
    from services.simulator.run import Case, Limits
    from services.simulator.trace import Trace

# Name of the deployment that live runs make and end.
LIVE_NAME: Final = "evaluation"
# An agent starts and reports within this, also on a busy machine.
AGENT_LIMIT_S: Final = 60.0
# The instance is on this machine, so that missing files are noticed before it starts.
_HERE: Final = "127.0.0.1"
# One policy's run; longer ones are for clusters, where `tradewind simulate` plays the same trace in seconds.
LONGEST_RUN_S: Final = 7200.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for, checked as far as it can be before anything starts."""

    model: str
    source: str
    recipes: tuple[str, ...]
    context_tokens: int
    trace: Trace
    limits: Limits
    policies: tuple[str, ...]
    further: tuple[str, ...]
    own_cores: str
    out: Path


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
    )
    with _ended_by_sigterm():
        case, runs = _run_all(session, wanted)
    _report(session, wanted, case, runs)


def _run_all(session: Session, wanted: Wanted) -> tuple[Case, list[LiveRun]]:
    """A fresh start of every service for each policy: its own orchestrator, and nothing learnt in the run before."""
    layout = Layout((session.state_dir or default_state_dir(os.environ, Path.cwd(), Path.home())).resolve())
    case: Case | None = None
    runs = list[Any]()
    for policy in wanted.policies:
        with _instance(session, wanted, layout, policy) as inner:
            case = case or _prepared(inner, wanted)
            runs.append(_run(inner, wanted, case, policy))
    assert case is not None
    return case, runs


@contextlib.contextmanager
def _instance(session: Session, wanted: Wanted, layout: Layout, policy: str) -> Iterator[Session]:
    """Every service under a policy, and all agents, for the time of a block."""
    from services.simulator.live.agents import further_agents
    from services.simulator.live.instance import own_instance

    began_s = time.time()
    settings = {"TRADEWIND_ORCHESTRATOR_POLICY": policy, "TRADEWIND_NODE_AGENT_CPU_IDS": wanted.own_cores}
    with contextlib.ExitStack() as stack:
        with bar(session.out, f"Starting services for {policy}") as shown:
            client = stack.enter_context(own_instance(layout, settings, lambda name: shown.tell(name, 0.0)))
        agents = stack.enter_context(further_agents(wanted.further, client.endpoints, layout))
        _wait_for_nodes(client, 1 + len(agents), began_s, layout)
        inner = Session(session.out, layout.root)
        inner.client = client
        yield inner


def _run(session: Session, wanted: Wanted, case: Case, policy: str) -> LiveRun:
    """One policy: first in the simulator, which says what to provision for, then live."""
    from services.simulator.live.study import run_live, simulated

    with bar(session.out, f"{policy}, simulated") as shown:

        def searched(step: str, outcome: Outcome) -> None:
            shown.tell(f"{step} {outcome.energy.total_j:.0f} J at {outcome.attainment:.2%}", 0.5)

        said = simulated(case, policy, searched)
    _end(session.client)
    assert session.state_dir is not None
    deployed = _deploy(session, wanted, case, said)
    with bar(session.out, f"{policy}, live") as shown:

        def answered(done: int) -> None:
            shown.tell(f"{done} answers", done / len(case.trace))

        run = run_live(session.client, session.state_dir, deployed, case, policy, said, answered)
    _end(session.client)
    return run


def _deploy(session: Session, wanted: Wanted, case: Case, said: Outcome) -> orchestrator_pb2.Deployment:
    """Places the model for what its simulated run was provisioned for, and waits until it serves."""
    from services.simulator.live.study import live_spec

    spec = live_spec(wanted.model, case.limits, said.demand)
    made = place(session.client, LIVE_NAME, spec).deployment
    return wait_ready(session.out, session.client.orchestrator, made, DEFAULT_WAIT_S)


def _prepared(session: Session, wanted: Wanted) -> Case:
    """Imports, builds and measures what is missing; the machines and their profiles as a case of the simulator.

    Raises:
        InvalidField: no such model, and nobody said where its files are.
        ContextExceeded: a request is longer than any variant takes.
    """
    from services.simulator.live.cluster_file import write_cluster
    from services.simulator.run import Case
    from services.simulator.stored.menu import StoredMenu

    _made(session, wanted)
    stored, nodes = stored_profiles(session.client, wanted.model), session.client.orchestrator.nodes()
    longest = max((max(v.recipe.context_buckets, default=0) for v in stored.variants), default=0)
    _check_lengths(wanted.trace, longest)
    cluster = write_cluster(wanted.out, stored, nodes, wanted.trace)
    assert isinstance(cluster.model, StoredMenu)
    return Case(cluster, cluster.model, wanted.trace, wanted.limits)


def _made(session: Session, wanted: Wanted) -> None:
    from tradewind.cli.declaration import Declaration, DeploymentPart, ModelPart, ProfilePart, VariantsPart
    from tradewind.cli.steps import steps

    devices = [d for node in session.client.orchestrator.nodes() for d in node.report.devices]
    declaration = Declaration(
        version=1,
        model=ModelPart(name=wanted.model, source=wanted.source),
        variants=VariantsPart(recipes=list(wanted.recipes), context_tokens=wanted.context_tokens),
        profile=ProfilePart(partition_kinds=sorted({kind for d in devices for kind in d.partition_kinds})),
        deployment=DeploymentPart(name=LIVE_NAME),
    )
    for step in steps(declaration, observe(session.client, declaration)):
        if step.needed and step.name == "model" and not wanted.source:
            raise InvalidField("--source", f"there is no model {wanted.model!r} here yet; say where its files are")
        if step.needed and step.name != "deployment":
            do_step(session, declaration, step, wanted.out)


def _wait_for_nodes(client: Tradewind, count: int, since_s: float, layout: Layout) -> None:
    """Waits until so many agents are active and have been heard of since a moment; those of a run before count not.

    Raises:
        JobTimeout: one does not come.
    """
    from services.simulator.live.agents import FOLDER

    pause, deadline = threading.Event(), time.monotonic() + AGENT_LIMIT_S
    while True:
        here = sum(
            n.state == orchestrator_pb2.NODE_STATE_ACTIVE and n.last_seen_time.seconds >= since_s
            for n in client.orchestrator.nodes()
        )
        if here >= count:
            return
        if time.monotonic() > deadline:
            raise JobTimeout(
                f"{here} of {count} agents came within {AGENT_LIMIT_S:.0f} s; {layout.logs} and "
                f"{layout.root / FOLDER} have what they said"
            )
        pause.wait(0.5)


def _end(client: Tradewind) -> None:
    if existing(client.orchestrator, LIVE_NAME):
        client.orchestrator.delete(LIVE_NAME)


def _report(session: Session, wanted: Wanted, case: Case, runs: Sequence[LiveRun]) -> None:
    from services.simulator.live.document import live_document
    from services.simulator.report.document import origin
    from services.simulator.report.folder import write_live_report
    from services.simulator.report.live_page import live_page
    from services.simulator.stored.menu import assumptions_of

    source = origin(case.menu.errors, " ".join(["tradewind", *sys.argv[1:]]), assumptions_of(case.menu))
    agents = f"{1 + len(wanted.further)} node agents on cores {', '.join((wanted.own_cores, *wanted.further))}"
    document = live_document(case, runs, source, agents)
    answers = [{"policy": run.policy, **asdict(a)} for run in runs for a in run.answers]
    write_live_report(wanted.out, document, live_page(document, runs), answers)
    session.out.document(document)
    _show(session, document, wanted.out)


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


def _check_lengths(trace: Trace, context_tokens: int) -> None:
    for number, (prompt, output) in enumerate(zip(trace.prompt_tokens, trace.output_tokens, strict=True)):
        if prompt + output > context_tokens:
            raise ContextExceeded(
                f"request {number + 1} of {trace.name} has {prompt} + {output} tokens, the longest context here is "
                f"{context_tokens}; lower --token-scale, or build with a longer --context",
                {"context": str(context_tokens), "prompt_tokens": str(prompt)},
            )


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
