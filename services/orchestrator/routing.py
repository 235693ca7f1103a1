"""The routing table for gateways, from what the core routes. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.orchestrator.core.blueprint import Replica
from services.orchestrator.core.catalog import Catalog
from services.orchestrator.core.wish import Deployment
from tradewind.domain.routes import DeploymentRoute, ReplicaRoute


def routing_table(
    routed: Sequence[tuple[str, tuple[Replica, ...]]],
    wishes: Sequence[Deployment],
    addresses: Mapping[str, str],
    catalog: Catalog,
) -> list[DeploymentRoute]:
    """Routes by deployment name; a wish without a ready replica has an empty one.

    Args:
        routed: ready replicas by deployment id.
        wishes: deployments in force.
        addresses: of node agents by node id.
        catalog: for names and context lengths of variants.
    """
    by_id, variants = dict(routed), {v.variant_id: v for v in catalog.variants}
    routes: list[DeploymentRoute] = []
    for wish in sorted(wishes, key=lambda w: w.name):
        replicas = by_id.get(wish.deployment_id, ())
        contexts = [variants[r.variant_id].context_tokens for r in replicas if r.variant_id in variants]
        routes.append(
            DeploymentRoute(
                deployment_id=wish.deployment_id,
                name=wish.name,
                model_id=replicas[0].model_id if replicas else wish.model_id,
                context_tokens=min((tokens for tokens in contexts if tokens), default=0),
                replicas=tuple(
                    ReplicaRoute(
                        replica_id=r.replica_id,
                        node_id=r.node_id,
                        address=addresses.get(r.node_id, ""),
                        variant_id=r.variant_id,
                        variant_name=variants[r.variant_id].name if r.variant_id in variants else r.variant_id,
                        batch_limit=r.batch_limit,
                    )
                    for r in replicas
                ),
            )
        )
    return routes
