"""The routing table: which replicas answer for which deployment. The orchestrator writes, gateways read. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class ReplicaRoute:
    """A ready replica.

    Attributes:
        address: "host:port" of the node agent that proxies it.
        batch_limit: most sequences it decodes together; the weight of its share.
        draining: takes nothing new; here only so that a gateway can tell.
        weight: share of requests for its size; below 1 for one that is slower than its like.
        sequences_limit: requests at once that it is given; 0 means no limit but its queue.
        fill_sequences, fill_tokens: it is filled up to so many requests, and so many prompt tokens of those without a
            first token, before replicas of a higher `fill_rank` get any; 0 means that requests are shared out evenly.
    """

    replica_id: str
    node_id: str
    address: str
    variant_id: str
    variant_name: str
    batch_limit: int
    draining: bool = False
    weight: float = 1.0
    sequences_limit: int = 0
    fill_sequences: int = 0
    fill_tokens: int = 0
    fill_rank: int = 0


@dataclass(frozen=True, slots=True)
class DeploymentRoute:
    """A deployment and its ready replicas; none means that it exists and cannot answer right now.

    Attributes:
        context_tokens: longest sequence that every ready replica takes; 0 when none is ready.
        asleep: it runs nothing until a request comes; the request waits for it.
        ttft_limit_ms, tpot_limit_ms, e2e_limit_ms: what requests are judged by; 0 means no limit.
    """

    deployment_id: str
    name: str
    model_id: str
    context_tokens: int
    replicas: tuple[ReplicaRoute, ...]
    asleep: bool = False
    ttft_limit_ms: float = 0.0
    tpot_limit_ms: float = 0.0
    e2e_limit_ms: float = 0.0

    def to_json(self) -> str:
        """As kept in Redis."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> DeploymentRoute:
        """Reads what `to_json` wrote; fields of a newer orchestrator are left out.

        Raises:
            ValueError: it is something else.
        """
        try:
            raw = json.loads(text)
            raw["replicas"] = tuple(ReplicaRoute(**_known(ReplicaRoute, replica)) for replica in raw["replicas"])
            return cls(**_known(cls, raw))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a route: {error}") from error


def _known(kind: type[Any], raw: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in raw.items() if name in names}
