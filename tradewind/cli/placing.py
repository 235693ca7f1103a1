"""Puts a wish in force and waits until it serves: creates, changes, or finds that nothing is to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import typer

from tradewind.cli.failures import EXIT_INTERRUPTED
from tradewind.cli.output import Output
from tradewind.cli.progress import Bar, bar
from tradewind.cli.wish import same_wish
from tradewind.client.orchestrator import OrchestratorClient
from tradewind.client.tradewind import Tradewind
from tradewind.domain.errors import JobTimeout, RemoteError, ServiceUnavailable, SloInfeasible
from tradewind.v1 import node_pb2, orchestrator_pb2

Change = Literal["created", "updated", "unchanged"]
# Loading a model of some GB from a slow disk, warming up, answering the canary.
DEFAULT_WAIT_S: Final = 300.0
_WATCH_PIECE_S: Final = 60.0

READY = orchestrator_pb2.DEPLOYMENT_STATE_READY
INFEASIBLE = orchestrator_pb2.DEPLOYMENT_STATE_INFEASIBLE


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a wish; the explanation is unset when nothing changed."""

    change: Change
    deployment: orchestrator_pb2.Deployment
    explanation: orchestrator_pb2.Explanation


def existing(orchestrator: OrchestratorClient, name: str) -> orchestrator_pb2.Deployment | None:
    """The deployment of a name, or None."""
    try:
        found = orchestrator.deployment(name)
    except RemoteError as error:
        if error.remote_reason == "NOT_FOUND":
            return None
        raise
    return None if found.state == orchestrator_pb2.DEPLOYMENT_STATE_DELETING else found


def unchanged(client: Tradewind, found: orchestrator_pb2.Deployment, spec: orchestrator_pb2.DeploymentSpec) -> bool:
    """Whether a deployment's wish is this one already."""
    if found.spec.model == spec.model:
        return same_wish(found.spec, spec, ())
    model = client.compiler.model(spec.model)
    return same_wish(found.spec, spec, (model.name, model.model_id))


def place(
    client: Tradewind, name: str, spec: orchestrator_pb2.DeploymentSpec, *, allow_infeasible: bool = False
) -> Placed:
    """Creates or changes a deployment; does nothing when the wish is in force.

    Raises:
        RemoteError: refused, for instance SLO_INFEASIBLE.
    """
    orchestrator = client.orchestrator
    found = existing(orchestrator, name)
    if found is None:
        made = orchestrator.create(name, spec, allow_infeasible=allow_infeasible)
        return Placed("created", made.deployment, made.explanation)
    if unchanged(client, found, spec):
        return Placed("unchanged", found, orchestrator_pb2.Explanation())
    changed = orchestrator.update(
        found.name, spec, expected_generation=found.generation, allow_infeasible=allow_infeasible
    )
    return Placed("updated", changed.deployment, changed.explanation)


def wait_ready(
    out: Output, orchestrator: OrchestratorClient, wanted: orchestrator_pb2.Deployment, limit_s: float
) -> orchestrator_pb2.Deployment:
    """Waits until a deployment serves as planned.

    Raises:
        SloInfeasible: nothing meets its SLO now.
        JobTimeout: it does not within the limit; it goes on trying.
        typer.Exit: Ctrl-C; it goes on.
    """
    if wanted.state == READY and wanted.observed_generation >= wanted.generation:
        return wanted
    deadline = time.monotonic() + limit_s
    last = wanted
    try:
        with bar(out, f"Starting {wanted.name}") as shown:
            while time.monotonic() < deadline:
                for last in _states(orchestrator, wanted.name, deadline):
                    _tell(shown, last)
                    if last.observed_generation < wanted.generation:
                        continue
                    if last.state == READY:
                        return last
                    if last.state == INFEASIBLE:
                        raise SloInfeasible(f"{last.name}: {last.state_reason}")
            raise JobTimeout(
                f"{last.name} does not serve after {limit_s:.0f} s ({last.state_reason or 'no reason given'}); "
                f"it goes on trying, `tradewind deployment show {last.name}` shows how far it is"
            )
    except KeyboardInterrupt:
        out.note(f"interrupted; {wanted.name} goes on starting: tradewind deployment show {wanted.name}")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _states(orchestrator: OrchestratorClient, name: str, deadline: float) -> Iterator[orchestrator_pb2.Deployment]:
    """States of a deployment as they come; ends quietly when a watch does, so that it can be opened anew."""
    piece_s = max(0.1, min(_WATCH_PIECE_S, deadline - time.monotonic()))
    try:
        for deployments in orchestrator.watch([name], limit_s=piece_s):
            yield from deployments
    except ServiceUnavailable:
        # Either this piece of the watch is over or the orchestrator restarts; a read tells which.
        yield orchestrator.deployment(name)


def _tell(shown: Bar, deployment: orchestrator_pb2.Deployment) -> None:
    """Share of replicas that are ready, and what the others are at."""
    replicas = deployment.replicas
    ready = sum(r.state == node_pb2.REPLICA_STATE_READY for r in replicas)
    doing = sorted({_replica_state(r) for r in replicas if r.state != node_pb2.REPLICA_STATE_READY})
    words = f"{ready} of {len(replicas)} replicas ready" if replicas else deployment.state_reason or "placing"
    shown.tell(f"{words}; {', '.join(doing)}" if doing else words, ready / len(replicas) if replicas else 0.0)


def _replica_state(replica: node_pb2.ReplicaStatus) -> str:
    name = node_pb2.ReplicaState.Name(replica.state).removeprefix("REPLICA_STATE_").lower()
    return f"{name} ({replica.reason})" if replica.reason else name
