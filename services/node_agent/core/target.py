"""Which target an agent obeys: its own, the newest, never an older one. Pure.

Order is (fencing, generation, step): a new leader beats an old one, a new blueprint an old one, a later step of a
rollout an earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.node_agent.core.board_wish import WantedPartition
from services.node_agent.core.fallback import Link
from services.node_agent.core.governor import Limits
from services.node_agent.core.power import Setting
from tradewind.domain.errors import GenerationConflict, InvalidField, StaleGeneration
from tradewind.domain.manifest import FileRef

INTENT_SERVE = 1
INTENT_DRAIN = 2


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """A replica as wanted; see `tradewind.v1.ReplicaSpec`. `partition_uuid` names a board or slice; "" on a CPU.

    `fallbacks` are what runs in its place when the device refuses its variant, `limits` what its board's clock eases
    by and its prompts are taken in by; a change of them needs no new process.
    """

    replica_id: str
    deployment_id: str
    variant_id: str
    manifest: FileRef
    partition_id: str
    device_id: str
    partition_kind: str
    cpu_ids: tuple[int, ...]
    batch_limit: int
    model_id: str = ""
    draining: bool = False
    partition_uuid: str = ""
    fallbacks: tuple[Link, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def links(self) -> tuple[Link, ...]:
        """What may run, first choice first."""
        return (Link(self.variant_id, self.manifest), *self.fallbacks)

    @property
    def process(self) -> tuple[object, ...]:
        """What its process was started with; a change of it needs another process."""
        place = (self.device_id, self.cpu_ids, self.partition_uuid)
        return (self.variant_id, self.manifest.digest, *place, self.batch_limit)


@dataclass(frozen=True, slots=True)
class Target:
    """A node's whole intended state.

    Attributes:
        content: digest of everything in it, to tell a repeat from another content under the same numbers.
        partitions: every partition of each device whose layout is managed.
        power: settings by device id; a device that is not named gets its default.
        asleep: devices that may sleep while nothing is on them.
    """

    node_id: str
    fencing: int
    generation: int
    step: int
    replicas: tuple[ReplicaSpec, ...]
    content: str
    partitions: tuple[WantedPartition, ...] = ()
    power: tuple[tuple[str, Setting], ...] = ()
    asleep: frozenset[str] = frozenset()

    @property
    def order(self) -> tuple[int, int, int]:
        """What targets are compared by."""
        return (self.fencing, self.generation, self.step)


def accept(newest: Target | None, offered: Target, node_id: str) -> bool:
    """Whether an offered target replaces the newest one seen; False for a repeat.

    Raises:
        InvalidField: it is another node's, or names a replica twice.
        StaleGeneration: older than the newest seen.
        GenerationConflict: the same numbers with another content.
    """
    if offered.node_id != node_id:
        raise InvalidField("target.node_id", f"this is node {node_id!r}, the target is for {offered.node_id!r}")
    ids = [r.replica_id for r in offered.replicas]
    if len(set(ids)) != len(ids) or "" in ids:
        raise InvalidField("target.replicas", "replica ids must be there and differ")
    if newest is None:
        return True
    if offered.order < newest.order:
        raise StaleGeneration(
            f"target (fencing, generation, step) {offered.order} is older than {newest.order}, which this node obeys",
            {"offered": str(offered.order), "newest": str(newest.order)},
        )
    if offered.order > newest.order:
        return True
    if offered.content != newest.content:
        raise GenerationConflict(
            f"two targets with (fencing, generation, step) {offered.order} differ; the first one is obeyed",
            {"expected": newest.content, "actual": offered.content},
        )
    return False
