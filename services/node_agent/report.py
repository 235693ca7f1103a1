"""Makes the node's reports: its whole state, each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import tradewind
from services.node_agent.artifacts.store import ArtifactStore
from services.node_agent.core.target import Target
from services.node_agent.devices.port import Device, Partition
from services.node_agent.gpu.managed_boards import ManagedBoards
from services.node_agent.supervision.fleet import Fleet
from services.node_agent.supervision.process import ReplicaStats
from services.node_agent.supervision.replica import Replica
from services.node_agent.wire import device_message, partition_message, reading_message, stats_message
from tradewind.v1 import node_pb2

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is; `address` is where it is reached, `epoch_ns` the start of this process."""

    node_id: str
    boot_id: str
    epoch_ns: int
    address: str
    labels: dict[str, str]
    report_period_s: float


class Reporter:
    """Makes reports.

    Args:
        identity: who.
        devices: what there is.
        fleet: what runs.
        store: what is cached.
        newest: the newest target accepted.
        boards: those that are cut and set here; None without the privileged helper.
        faults: what is wrong with the node itself, in words.
    """

    def __init__(
        self,
        identity: Identity,
        devices: Sequence[Device],
        fleet: Fleet,
        store: ArtifactStore,
        newest: Callable[[], Target | None],
        boards: ManagedBoards | None = None,
        faults: Sequence[str] = (),
    ) -> None:
        self._faults = faults
        self._identity, self._devices, self._fleet, self._store, self._newest = identity, devices, fleet, store, newest
        self._boards = boards
        self._sequence = 0

    def reached_at(self, address: str) -> None:
        """Says where this node is reached, once its server knows its port."""
        self._identity = replace(self._identity, address=address)

    def report(self) -> node_pb2.NodeReport:
        """The whole state now."""
        identity, newest = self._identity, self._newest()
        self._sequence += 1
        sleeps = self._boards.sleeps() if self._boards else {}
        report = node_pb2.NodeReport(
            node_id=identity.node_id,
            boot_id=identity.boot_id,
            agent_epoch=identity.epoch_ns,
            sequence=self._sequence,
            agent_version=tradewind.__version__,
            address=identity.address,
            labels=identity.labels,
            devices=[device_message(d.facts, sleeps.get(d.facts.device_id)) for d in self._devices],
            readings=[self._reading(device) for device in self._devices],
            partitions=[partition_message(p) for p in self._partitions()],
            replicas=[_status(replica) for replica in self._fleet.replicas],
            observed_generation=newest.generation if newest else 0,
            observed_fencing=newest.fencing if newest else 0,
            cached_digests=self._store.digests(),
            layouts=self._boards.layouts() if self._boards else (),
            power_states=self._boards.power_states() if self._boards else (),
            faults=self._faults,
        )
        report.report_time.GetCurrentTime()
        report.report_period.FromMilliseconds(round(identity.report_period_s * 1e3))
        return report

    def _reading(self, device: Device) -> node_pb2.DeviceReading:
        return reading_message(device.facts.device_id, device.read())

    def _partitions(self) -> list[Partition]:
        """Of boards what stands, and of CPUs what replicas have: others are cut when they are wanted."""
        specs = [replica.spec for replica in self._fleet.replicas]
        found = {
            spec.partition_id: Partition(
                spec.partition_id, spec.device_id, spec.partition_kind, spec.cpu_ids, self._memory_of(spec.device_id)
            )
            for spec in specs
            if not spec.partition_uuid
        }
        # A managed board offers its own slices and not those of others, which are left alone.
        managed = self._boards.uuids if self._boards else frozenset()
        read = (one for device in self._devices if device.facts.device_id not in managed for one in device.partitions())
        found.update((one.partition_id, one) for one in (*read, *(self._boards.partitions() if self._boards else ())))
        return [found[partition_id] for partition_id in sorted(found)]

    def _memory_of(self, device_id: str) -> int:
        return next((d.facts.memory_bytes for d in self._devices if d.facts.device_id == device_id), 0)


def read_boot_id(file: Path = BOOT_ID) -> str:
    """Identity of this boot of the machine; "" where the kernel does not tell."""
    return file.read_text(encoding="ascii").strip() if file.exists() else ""


def _status(replica: Replica) -> node_pb2.ReplicaStatus:
    process = replica.process
    stats = process.stats if process is not None else ReplicaStats()
    return node_pb2.ReplicaStatus(
        replica_id=replica.spec.replica_id,
        state=node_pb2.ReplicaState.ValueType(replica.state),
        reason=replica.words,
        variant_id=replica.variant_id,
        deployment_id=replica.spec.deployment_id,
        active_sequences=stats.active,
        queued_sequences=stats.queued,
        memory_bytes=process.memory_bytes if process is not None else 0,
        generated_tokens=stats.generated_tokens,
        starts=replica.starts,
        load_s=replica.load_s,
        partition_id=replica.spec.partition_id,
        ttft=stats_message(stats.ttft),
        tpot=stats_message(stats.tpot),
    )
