"""Live runs, policy by policy: services started and stopped, what is missing made, the trace played to a deployment."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tradewind.cli.commands.apply import do_step, observe
from tradewind.cli.commands.profiles import stored_profiles
from tradewind.cli.placing import DEFAULT_WAIT_S, existing, place, wait_ready
from tradewind.cli.progress import bar
from tradewind.cli.session import Session
from tradewind.client.endpoints import default_state_dir
from tradewind.client.tradewind import Tradewind
from tradewind.domain.errors import ContextExceeded, InvalidField, JobTimeout
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
# A replica drains, stops and is reported gone; an agent of the run before may have to be given up first.
END_LIMIT_S: Final = 90.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for, checked as far as it can be before anything starts.

    Attributes:
        stated_per_s: requests a second that adaptive policies begin with; 0 is the busiest stretch of the trace.
    """

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
    stated_per_s: float = 0.0


def run_all(session: Session, wanted: Wanted) -> Iterator[tuple[Case, LiveRun]]:
    """Each policy after a fresh start of every service: its own orchestrator, and nothing learnt in the run before.

    Yields:
        The case, the same each time, and the run, as soon as it is over.
    """
    layout = Layout((session.state_dir or default_state_dir(os.environ, Path.cwd(), Path.home())).resolve())
    case: Case | None = None
    for policy in wanted.policies:
        with _instance(session, wanted, layout, policy) as inner:
            case = case or _prepared(inner, wanted)
            run = _run(inner, wanted, case, policy)
        yield case, run


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

        said = simulated(case, policy, searched, wanted.stated_per_s)
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
    """Ends the deployment of a run and waits until its name is free again.

    Raises:
        JobTimeout: its replicas do not end.
    """
    if existing(client.orchestrator, LIVE_NAME):
        client.orchestrator.delete(LIVE_NAME)
    pause, deadline = threading.Event(), time.monotonic() + END_LIMIT_S
    while LIVE_NAME in {d.name for d in client.orchestrator.deployments()}:
        if time.monotonic() > deadline:
            raise JobTimeout(f"the deployment {LIVE_NAME} did not end within {END_LIMIT_S:.0f} s; see its agents' logs")
        pause.wait(0.2)


def _check_lengths(trace: Trace, context_tokens: int) -> None:
    for number, (prompt, output) in enumerate(zip(trace.prompt_tokens, trace.output_tokens, strict=True)):
        if prompt + output > context_tokens:
            raise ContextExceeded(
                f"request {number + 1} of {trace.name} has {prompt} + {output} tokens, the longest context here is "
                f"{context_tokens}; lower --token-scale, or build with a longer --context",
                {"context": str(context_tokens), "prompt_tokens": str(prompt)},
            )
