"""Blueprints, targets, explanations: contract ⇄ core."""

from __future__ import annotations

from services.orchestrator.core.facts.blueprint import Blueprint, Fallback, NodeLayout, Replica
from services.orchestrator.core.facts.explanation import Candidate, Explanation
from services.orchestrator.core.facts.fleet import DEFAULT_POWER
from services.orchestrator.core.facts.variant import Artifact
from services.orchestrator.core.rollout.rollout import Intent, Target
from services.orchestrator.translate.nodes import partition_message, partition_of, power_message, power_of
from services.orchestrator.translate.wishes import slo_message
from tradewind.v1 import common_pb2, compiler_pb2, node_pb2, orchestrator_pb2


def blueprint_message(blueprint: Blueprint) -> orchestrator_pb2.Blueprint:
    """A blueprint as stored and sent; its time is added by who stores it."""
    return orchestrator_pb2.Blueprint(
        blueprint_id=blueprint.blueprint_id,
        generation=blueprint.generation,
        parent_id=blueprint.parent_id,
        replicas=[_placed(replica, Intent.SERVE) for replica in blueprint.replicas],
        leaving=[_placed(r, Intent.SERVE if r.hold else Intent.DRAIN) for r in blueprint.leaving],
        layouts={layout.node_id: layout_message(layout) for layout in blueprint.layouts},
    )


def layout_message(layout: NodeLayout) -> orchestrator_pb2.NodeLayout:
    """A node's layout as stored and sent."""
    return orchestrator_pb2.NodeLayout(
        partitions=[partition_message(partition) for partition in layout.partitions],
        power_settings={device_id: power_message(setting) for device_id, setting in layout.power_settings},
        asleep=layout.asleep,
    )


def blueprint_of(message: orchestrator_pb2.Blueprint) -> Blueprint:
    """A blueprint as stored."""
    return Blueprint(
        message.blueprint_id,
        message.generation,
        message.parent_id,
        tuple(_replica(placed, hold=False) for placed in message.replicas),
        tuple(_replica(placed, hold=placed.spec.intent == node_pb2.REPLICA_INTENT_SERVE) for placed in message.leaving),
        tuple(_layout(node_id, message.layouts[node_id]) for node_id in sorted(message.layouts)),
    )


def target_message(target: Target, generation: int, fencing: int, step: int) -> node_pb2.NodeTarget:
    """A node's target as pushed."""
    return node_pb2.NodeTarget(
        node_id=target.node_id,
        generation=generation,
        fencing=fencing,
        step=step,
        replicas=[_spec(replica, intent) for replica, intent in target.replicas],
        partitions=[partition_message(partition) for partition in target.partitions],
        power_settings={device_id: power_message(setting) for device_id, setting in target.power_settings},
        asleep=target.asleep,
    )


def explanation_message(explanation: Explanation) -> orchestrator_pb2.Explanation:
    """An explanation as stored and sent."""
    message = orchestrator_pb2.Explanation(
        deployment_id=explanation.deployment_id,
        blueprint_id=explanation.blueprint_id,
        summary=explanation.summary,
        candidates=[_candidate(candidate) for candidate in explanation.candidates],
        binding_limit=explanation.binding_limit,
        nearest_requests_per_s=explanation.nearest_demand_requests_per_s or 0.0,
        nearest_hardware=explanation.nearest_hardware,
        gap=explanation.gap,
    )
    if explanation.nearest_slo is not None:
        message.nearest_slo.CopyFrom(slo_message(explanation.nearest_slo))
    return message


def _layout(node_id: str, message: orchestrator_pb2.NodeLayout) -> NodeLayout:
    settings = {device_id: power_of(setting) for device_id, setting in message.power_settings.items()}
    return NodeLayout(
        node_id,
        tuple(partition_of(partition) for partition in message.partitions),
        tuple(sorted(settings.items(), key=lambda entry: entry[0])),
        tuple(message.asleep),
    )


def _placed(replica: Replica, intent: Intent) -> orchestrator_pb2.PlacedReplica:
    return orchestrator_pb2.PlacedReplica(
        node_id=replica.node_id,
        spec=_spec(replica, intent),
        device_class=replica.device_class,
        memory_bytes=replica.memory_bytes,
        capacity_requests_per_s=replica.capacity_requests_per_s,
    )


def _spec(replica: Replica, intent: Intent) -> node_pb2.ReplicaSpec:
    return node_pb2.ReplicaSpec(
        replica_id=replica.replica_id,
        deployment_id=replica.deployment_id,
        variant_id=replica.variant_id,
        model_id=replica.model_id,
        manifest=_artifact_message(replica.manifest),
        partition=partition_message(replica.partition),
        batch_limit=replica.batch_limit,
        intent=node_pb2.REPLICA_INTENT_SERVE if intent is Intent.SERVE else node_pb2.REPLICA_INTENT_DRAIN,
        fallbacks=[
            node_pb2.FallbackLink(variant_id=link.variant_id, manifest=_artifact_message(link.manifest))
            for link in replica.fallbacks
        ],
        ttft_limit_ms=replica.ttft_limit_ms,
        tpot_limit_ms=replica.tpot_limit_ms,
        pace_ms=replica.pace_ms,
    )


def _artifact_message(artifact: Artifact) -> compiler_pb2.ArtifactRef:
    return compiler_pb2.ArtifactRef(name=artifact.name, digest=artifact.digest, size_bytes=artifact.size_bytes)


def _artifact_of(message: compiler_pb2.ArtifactRef) -> Artifact:
    return Artifact(message.name, message.digest, message.size_bytes)


def _replica(placed: orchestrator_pb2.PlacedReplica, *, hold: bool) -> Replica:
    spec = placed.spec
    return Replica(
        replica_id=spec.replica_id,
        deployment_id=spec.deployment_id,
        node_id=placed.node_id,
        model_id=spec.model_id,
        variant_id=spec.variant_id,
        manifest=_artifact_of(spec.manifest),
        partition=partition_of(spec.partition),
        batch_limit=spec.batch_limit,
        device_class=placed.device_class,
        memory_bytes=placed.memory_bytes,
        hold=hold,
        capacity_requests_per_s=placed.capacity_requests_per_s,
        fallbacks=tuple(Fallback(link.variant_id, _artifact_of(link.manifest)) for link in spec.fallbacks),
        ttft_limit_ms=spec.ttft_limit_ms if spec.HasField("ttft_limit_ms") else None,
        tpot_limit_ms=spec.tpot_limit_ms if spec.HasField("tpot_limit_ms") else None,
        pace_ms=spec.pace_ms,
    )


def _candidate(candidate: Candidate) -> orchestrator_pb2.Candidate:
    return orchestrator_pb2.Candidate(
        point=common_pb2.OperatingPoint(
            variant_id=candidate.variant_id,
            device_class=candidate.device_class,
            partition_kind=candidate.partition_kind,
            batch_limit=candidate.batch_limit,
            power=power_message(candidate.power) if candidate.power != DEFAULT_POWER else None,
        ),
        variant_name=candidate.variant_name,
        chosen=candidate.chosen,
        refusal=candidate.refusal,
        reason=candidate.reason,
        ttft_ms=candidate.ttft_ms,
        tpot_ms=candidate.tpot_ms,
        e2e_ms=candidate.e2e_ms,
        energy_per_token=common_pb2.Energy(
            energy_mj=candidate.energy_per_token_mj,
            source=common_pb2.FigureSource.ValueType(int(candidate.energy_source)),
            method=candidate.energy_method,
        ),
        memory_bytes=candidate.memory_bytes,
        replicas=candidate.replicas,
        capacity_requests_per_s=candidate.capacity_requests_per_s,
        power_mw=candidate.power_mw,
        alike=candidate.alike,
        price_per_hour=candidate.price_per_hour,
    )
