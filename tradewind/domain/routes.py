"""The routing table: which replicas answer for which deployment. The orchestrator writes, gateways read. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class ReplicaRoute:
    """A ready replica.

    Attributes:
        address: "host:port" of the node agent that proxies it.
        batch_limit: most sequences it decodes together; the weight of its share.
        draining: takes nothing new; here only so that a gateway can tell.
    """

    replica_id: str
    node_id: str
    address: str
    variant_id: str
    variant_name: str
    batch_limit: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class DeploymentRoute:
    """A deployment and its ready replicas; none means that it exists and cannot answer right now.

    Attributes:
        context_tokens: longest sequence that every ready replica takes; 0 when none is ready.
    """

    deployment_id: str
    name: str
    model_id: str
    context_tokens: int
    replicas: tuple[ReplicaRoute, ...]

    def to_json(self) -> str:
        """As kept in Redis."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> DeploymentRoute:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            raw = json.loads(text)
            raw["replicas"] = tuple(ReplicaRoute(**replica) for replica in raw["replicas"])
            return cls(**raw)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a route: {error}") from error
