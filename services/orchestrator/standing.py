"""Where a deployment stands, from its record, its plan and what nodes report. Pure words; nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.records import DeploymentRecord, timestamp
from tradewind.v1 import node_pb2, orchestrator_pb2


@dataclass(frozen=True, slots=True)
class Heard:
    """A replica as reported: by which node, whether that node still counts as there, whether gateways can know it."""

    node_id: str
    status: node_pb2.ReplicaStatus
    present: bool
    routed: bool


def deployment_message(
    record: DeploymentRecord,
    blueprint: Blueprint,
    heard: dict[str, Heard],
    explanation: orchestrator_pb2.Explanation | None,
    attained: Mapping[str, orchestrator_pb2.Attainment],
) -> orchestrator_pb2.Deployment:
    """The deployment as sent; `attained` end to end, by deployment id."""
    planned, leaving = blueprint.of(record.deployment_id), blueprint.leaving_of(record.deployment_id)
    state, reason = _state(record, planned, leaving, heard, explanation)
    return orchestrator_pb2.Deployment(
        deployment_id=record.deployment_id,
        name=record.name,
        spec=record.spec,
        generation=record.generation,
        # A wish and the plan for it are committed in one transaction.
        observed_generation=record.generation,
        state=state,
        state_reason=reason,
        replicas=[_status(replica, heard) for replica in (*planned, *leaving)],
        variant_ids=sorted({replica.variant_id for replica in planned}),
        create_time=timestamp(record.created_at),
        update_time=timestamp(record.updated_at),
        e2e_attainment=attained.get(record.deployment_id),
    )


def _state(
    record: DeploymentRecord,
    planned: tuple[Replica, ...],
    leaving: tuple[Replica, ...],
    heard: dict[str, Heard],
    explanation: orchestrator_pb2.Explanation | None,
) -> tuple[orchestrator_pb2.DeploymentState.ValueType, str]:
    if record.deleting:
        return orchestrator_pb2.DEPLOYMENT_STATE_DELETING, f"{len(leaving)} replicas are draining or stopping"
    serving = sum(_ready(replica, heard) for replica in (*planned, *leaving))
    if explanation is not None and explanation.binding_limit:
        kept = f" It keeps {serving} replicas that serve." if serving else ""
        return orchestrator_pb2.DEPLOYMENT_STATE_INFEASIBLE, explanation.summary + kept
    missing = [replica for replica in planned if not (_ready(replica, heard) and heard[replica.replica_id].routed)]
    if planned and not missing:
        words = f"{len(planned)} of {len(planned)} replicas ready"
        words += ", the old ones are leaving" if leaving else ""
        return orchestrator_pb2.DEPLOYMENT_STATE_READY, words + _fallen(planned, heard)
    words = f"{len(planned) - len(missing)} of {len(planned)} replicas ready"
    words += "".join(f"; {_why(replica, heard)}" for replica in missing)
    if not planned:
        words = "waiting for a plan"
        if record.spec.scale_to_zero and explanation is not None:
            words = f"runs nothing until a request comes. {explanation.summary}"
    failed = any(_has_failed(replica, heard) for replica in missing)
    if serving and failed:
        return orchestrator_pb2.DEPLOYMENT_STATE_DEGRADED, words
    return orchestrator_pb2.DEPLOYMENT_STATE_PROGRESSING, words


def _fallen(planned: tuple[Replica, ...], heard: dict[str, Heard]) -> str:
    """Of replicas that run another link of their chain than planned: which, and why."""
    reports = ((replica, heard[replica.replica_id]) for replica in planned)
    return "".join(f"; {r.replica_id} on {h.node_id} {h.status.reason}" for r, h in reports if h.status.reason)


def _ready(replica: Replica, heard: dict[str, Heard]) -> bool:
    report = heard.get(replica.replica_id)
    return report is not None and report.present and report.status.state == node_pb2.REPLICA_STATE_READY


def _has_failed(replica: Replica, heard: dict[str, Heard]) -> bool:
    report = heard.get(replica.replica_id)
    if report is None:
        return False
    return not report.present or report.status.state == node_pb2.REPLICA_STATE_FAILED or report.status.starts > 1


def _why(replica: Replica, heard: dict[str, Heard]) -> str:
    report = heard.get(replica.replica_id)
    if report is None:
        return f"{replica.replica_id} is not reported by {replica.node_id} yet"
    if not report.present:
        return f"{replica.replica_id} was on {replica.node_id}, which is lost"
    if report.status.state == node_pb2.REPLICA_STATE_READY:
        return f"{replica.replica_id} on {replica.node_id} is ready, gateways are not told of it yet"
    state = node_pb2.ReplicaState.Name(report.status.state).removeprefix("REPLICA_STATE_").lower()
    reason = f": {report.status.reason}" if report.status.reason else ""
    return f"{replica.replica_id} on {replica.node_id} is {state}{reason}"


def _status(replica: Replica, heard: dict[str, Heard]) -> node_pb2.ReplicaStatus:
    report = heard.get(replica.replica_id)
    if report is not None:
        return report.status
    return node_pb2.ReplicaStatus(
        replica_id=replica.replica_id,
        deployment_id=replica.deployment_id,
        variant_id=replica.variant_id,
        partition_id=replica.partition.partition_id,
        state=node_pb2.REPLICA_STATE_FETCHING,
        reason=f"not reported by {replica.node_id} yet",
    )
