"""The blueprint: the complete, immutable intended state of the cluster. Pure values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from services.orchestrator.core.facts.fleet import DEFAULT_POWER, Partition, PowerSetting
from services.orchestrator.core.facts.variant import Artifact


@dataclass(frozen=True, slots=True)
class Fallback:
    """A variant to run where the device refuses the one planned."""

    variant_id: str
    manifest: Artifact


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica at its place.

    Attributes:
        replica_id: never used again.
        device_class: class of the device it is planned for.
        hold: of a leaving replica: keep it serving until every new replica of its deployment is ready. False
            drains it at once (its deployment is gone).
        capacity_requests_per_s: what it takes within the SLO at plan time; replicas of one deployment share its
            requests in this proportion. 0 stands for equal shares.
        ttft_limit_ms, tpot_limit_ms: of its deployment's requests, the strictest; None without one. The latter knows of
            end-to-end limits, too: `Deployment.token_limit_ms`.
        pace_ms: a token need not come sooner than this after the one before it: `Deployment.pace_ms`; 0 for as soon as
            it can.
        fallbacks: later links of its deployment's chain; the node goes down them by itself.
    """

    replica_id: str
    deployment_id: str
    node_id: str
    model_id: str
    variant_id: str
    manifest: Artifact
    partition: Partition
    batch_limit: int
    device_class: str = ""
    memory_bytes: int = 0
    hold: bool = False
    capacity_requests_per_s: float = 0.0
    fallbacks: tuple[Fallback, ...] = ()
    ttft_limit_ms: float | None = None
    tpot_limit_ms: float | None = None
    pace_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """Layout and power of the devices of a node that are managed; a device that is not named is left as it is.

    Attributes:
        partitions: every partition of each board whose layout is managed, sorted by id. A slice that does not exist
            yet is named "DEVICE:mig:PROFILE@START" and has no UUID.
        power_settings: setting of each device that has another than its default, sorted by device id.
        asleep: devices with nothing on them that may sleep, sorted.
    """

    node_id: str
    partitions: tuple[Partition, ...] = ()
    power_settings: tuple[tuple[str, PowerSetting], ...] = ()
    asleep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Every replica that shall serve, every one on its way out, and the layout they need.

    `leaving` makes the blueprint complete: a rollout needs nothing from its ancestors, also after a restart.

    Attributes:
        layouts: by node id; nodes with nothing managed are not here.
    """

    blueprint_id: str
    generation: int
    parent_id: str
    replicas: tuple[Replica, ...] = ()
    leaving: tuple[Replica, ...] = ()
    layouts: tuple[NodeLayout, ...] = ()

    def of(self, deployment_id: str) -> tuple[Replica, ...]:
        """Replicas that shall serve a deployment."""
        return tuple(r for r in self.replicas if r.deployment_id == deployment_id)

    def leaving_of(self, deployment_id: str) -> tuple[Replica, ...]:
        """Replicas of a deployment on their way out."""
        return tuple(r for r in self.leaving if r.deployment_id == deployment_id)

    def layout_of(self, node_id: str) -> NodeLayout | None:
        """Layout of a node, None when nothing of it is managed."""
        return next((layout for layout in self.layouts if layout.node_id == node_id), None)

    def power_of(self, node_id: str, device_id: str) -> PowerSetting:
        """Setting that a device shall have."""
        layout = self.layout_of(node_id)
        return dict(layout.power_settings).get(device_id, DEFAULT_POWER) if layout else DEFAULT_POWER


EMPTY = Blueprint("", 0, "")


def child_of(
    parent: Blueprint,
    replicas: tuple[Replica, ...],
    leaving: tuple[Replica, ...],
    layouts: tuple[NodeLayout, ...] = (),
) -> Blueprint:
    """The next generation; its identity is a digest of its content and its parent, so equal plans are equal."""
    generation = parent.generation + 1
    content = repr((parent.blueprint_id, generation, replicas, leaving, layouts)).encode()
    name = f"bp-{generation}-{hashlib.sha256(content).hexdigest()[:12]}"
    return Blueprint(name, generation, parent.blueprint_id, replicas, leaving, layouts)
