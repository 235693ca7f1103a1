"""The blueprint: the complete, immutable intended state of the cluster. Pure values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from services.orchestrator.core.fleet import Partition
from services.orchestrator.core.variant import Artifact


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica at its place.

    Attributes:
        replica_id: never used again.
        device_class: class of the device it is planned for.
        hold: of a leaving replica: keep it serving until every new replica of its deployment is ready. False
            drains it at once (its deployment is gone).
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


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Every replica that shall serve, and every one on its way out.

    `leaving` makes the blueprint complete: a rollout needs nothing from its ancestors, also after a restart.
    """

    blueprint_id: str
    generation: int
    parent_id: str
    replicas: tuple[Replica, ...] = ()
    leaving: tuple[Replica, ...] = ()

    def of(self, deployment_id: str) -> tuple[Replica, ...]:
        """Replicas that shall serve a deployment."""
        return tuple(r for r in self.replicas if r.deployment_id == deployment_id)

    def leaving_of(self, deployment_id: str) -> tuple[Replica, ...]:
        """Replicas of a deployment on their way out."""
        return tuple(r for r in self.leaving if r.deployment_id == deployment_id)


EMPTY = Blueprint("", 0, "")


def child_of(parent: Blueprint, replicas: tuple[Replica, ...], leaving: tuple[Replica, ...]) -> Blueprint:
    """The next generation; its identity is a digest of its content and its parent, so equal plans are equal."""
    generation = parent.generation + 1
    content = repr((parent.blueprint_id, generation, replicas, leaving)).encode()
    name = f"bp-{generation}-{hashlib.sha256(content).hexdigest()[:12]}"
    return Blueprint(name, generation, parent.blueprint_id, replicas, leaving)
