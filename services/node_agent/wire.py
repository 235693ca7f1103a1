"""Between the contract's messages and the agent's own values. Translation only."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from services.node_agent.core.board_wish import MIG_PREFIX, WantedPartition
from services.node_agent.core.fallback import Link
from services.node_agent.core.governor import Limits
from services.node_agent.core.mig.model import DeviceTable
from services.node_agent.core.power import WAKE_S, Setting, Sleep
from services.node_agent.core.target import INTENT_DRAIN, INTENT_SERVE, ReplicaSpec, Target
from services.node_agent.devices.port import BoardDetail, DeviceFacts, Partition, Reading, SliceDetail
from services.node_agent.replica.latencies import Stats
from tradewind.domain.errors import InvalidField
from tradewind.domain.figures import EnergyFigure
from tradewind.domain.manifest import FileRef
from tradewind.v1 import common_pb2, compiler_pb2, node_pb2, profiler_pb2


def target_of(message: node_pb2.NodeTarget) -> Target:
    """A target out of its message.

    Raises:
        InvalidField: a replica has no intent.
    """
    return Target(
        node_id=message.node_id,
        fencing=message.fencing,
        generation=message.generation,
        step=message.step,
        replicas=tuple(_spec_of(replica) for replica in message.replicas),
        partitions=tuple(WantedPartition(p.partition_id, p.device_id, p.kind) for p in message.partitions),
        power=tuple((device_id, setting_of(setting)) for device_id, setting in sorted(message.power_settings.items())),
        asleep=frozenset(message.asleep),
        content=hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest(),
    )


def _spec_of(message: node_pb2.ReplicaSpec) -> ReplicaSpec:
    if message.intent not in (INTENT_SERVE, INTENT_DRAIN):
        raise InvalidField("replicas.intent", f"replica {message.replica_id!r} needs SERVE or DRAIN")
    return ReplicaSpec(
        replica_id=message.replica_id,
        deployment_id=message.deployment_id,
        variant_id=message.variant_id,
        manifest=file_of(message.manifest),
        partition_id=message.partition.partition_id,
        device_id=message.partition.device_id,
        partition_kind=message.partition.kind,
        cpu_ids=tuple(sorted(message.partition.cpu_ids)),
        partition_uuid=message.partition.uuid,
        batch_limit=message.batch_limit,
        model_id=message.model_id,
        draining=message.intent == INTENT_DRAIN,
        fallbacks=tuple(Link(link.variant_id, file_of(link.manifest)) for link in message.fallbacks),
        limits=Limits(
            message.ttft_limit_ms / 1e3 if message.HasField("ttft_limit_ms") else math.inf,
            message.tpot_limit_ms / 1e3 if message.HasField("tpot_limit_ms") else math.inf,
            message.pace_ms / 1e3,
        ),
    )


def setting_of(message: common_pb2.PowerSetting) -> Setting:
    """A power setting out of its message."""
    return Setting(
        message.power_cap_mw if message.HasField("power_cap_mw") else None,
        message.sm_clock_mhz if message.HasField("sm_clock_mhz") else None,
        message.eased_sm_clock_mhz if message.HasField("eased_sm_clock_mhz") else None,
    )


def setting_message(setting: Setting) -> common_pb2.PowerSetting:
    """A power setting; what is default stays unset."""
    return common_pb2.PowerSetting(
        sm_clock_mhz=setting.clock_mhz, power_cap_mw=setting.cap_mw, eased_sm_clock_mhz=setting.eased_clock_mhz
    )


def file_of(message: compiler_pb2.ArtifactRef) -> FileRef:
    """A file reference out of its message."""
    return FileRef(message.name, message.digest, message.size_bytes)


def energy_message(figure: EnergyFigure) -> common_pb2.Energy:
    """An energy figure."""
    return common_pb2.Energy(
        energy_mj=figure.energy_mj,
        source=common_pb2.FigureSource.ValueType(figure.source),
        method=figure.method,
    )


def stats_message(stats: Stats) -> profiler_pb2.LatencyStats:
    """A latency distribution."""
    return profiler_pb2.LatencyStats(
        p50_ms=stats.p50_ms,
        p95_ms=stats.p95_ms,
        p99_ms=stats.p99_ms,
        mean_ms=stats.mean_ms,
        samples=stats.samples,
    )


def device_message(facts: DeviceFacts, sleep: Sleep | None = None) -> node_pb2.Device:
    """A device; `sleep` when it can."""
    return node_pb2.Device(
        device_id=facts.device_id,
        kind=node_pb2.DeviceKind.ValueType(facts.kind),
        device_class=facts.device_class,
        product_name=facts.product_name,
        targets=facts.targets,
        memory_bytes=facts.memory_bytes,
        cpu_ids=facts.cpu_ids,
        partition_kinds=facts.partition_kinds,
        can_set_power=facts.can_set_power,
        can_partition=facts.can_partition,
        energy_source=common_pb2.FigureSource.ValueType(facts.energy_source),
        energy_method=facts.energy_method,
        idle_power_mw=facts.idle_power_mw,
        slice_kinds=_slice_kinds(facts.table) if facts.table is not None and facts.can_partition else (),
        power_settings=[setting_message(setting) for setting in facts.power_settings],
        **(_sleep_fields(facts, sleep) if sleep else {}),
    )


def _sleep_fields(facts: DeviceFacts, sleep: Sleep) -> dict[str, Any]:
    least_mw = facts.idle_power_mw if sleep.power_mw is None else min(sleep.power_mw, facts.idle_power_mw)
    return {"sleep_power_mw": least_mw, "asleep": sleep.asleep, "wake_s": WAKE_S}


def _slice_kinds(table: DeviceTable) -> list[node_pb2.SliceKind]:
    """Profiles that a board offers; one without a place cannot be made and is left out."""
    return [
        node_pb2.SliceKind(
            profile_id=profile.profile_id,
            kind=f"{MIG_PREFIX}{profile.name}",
            memory_bytes=profile.memory_bytes,
            compute_slices=profile.compute_slices,
            memory_slices=profile.placements[0].size,
            starts=[placement.start for placement in profile.placements],
            most=profile.instance_limit,
            extra_engine=bool(profile.engines) and profile.instance_limit == 1,
        )
        for profile in table.profiles
        if profile.placements
    ]


def reading_message(device_id: str, reading: Reading) -> node_pb2.DeviceReading:
    """A device's readings."""
    return node_pb2.DeviceReading(
        device_id=device_id,
        energy=energy_message(reading.energy),
        power_mw=reading.power_mw,
        utilization=reading.utilization,
        memory_used_bytes=reading.memory_used_bytes,
        fault=reading.fault,
        **(_board_fields(reading.board) if reading.board else {}),
    )


def _board_fields(board: BoardDetail) -> dict[str, Any]:
    return {
        "power_source": common_pb2.FigureSource.ValueType(board.power_source),
        "power_cap_mw": board.power_cap_mw,
        "temperature_c": board.temperature_c,
        "sm_clock_mhz": board.sm_clock_mhz,
        "memory_clock_mhz": board.memory_clock_mhz,
        "clock_reasons": board.clock_reasons,
        "ecc_uncorrected": board.ecc_uncorrected,
        "slices": [_slice_message(one) for one in board.slices],
        "unallocated": energy_message(board.unallocated) if board.unallocated else None,
        "events": [node_pb2.DeviceEventCount(kind=kind, count=count) for kind, count in board.events],
    }


def _slice_message(one: SliceDetail) -> node_pb2.SliceReading:
    return node_pb2.SliceReading(
        partition=partition_message(one.partition),
        memory_used_bytes=one.memory_used_bytes,
        sm_activity=one.sm_activity,
        dram_activity=one.dram_activity,
        energy=energy_message(one.energy),
        power_mw=one.power_mw,
    )


def partition_message(partition: Partition) -> common_pb2.Partition:
    """A partition."""
    return common_pb2.Partition(
        partition_id=partition.partition_id,
        device_id=partition.device_id,
        kind=partition.kind,
        cpu_ids=partition.cpu_ids,
        uuid=partition.uuid,
        memory_bytes=partition.memory_bytes,
    )
