"""The routing table for gateways, from what the core routes. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.orchestrator.core.effects import Publish
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.wish import Deployment, Metric
from services.orchestrator.core.rollout.fills import EVENLY
from tradewind.domain.routes import DeploymentRoute, ReplicaRoute


def routing_table(
    wishes: Sequence[Deployment],
    addresses: Mapping[str, str],
    catalog: Catalog,
    published: Publish,
) -> list[DeploymentRoute]:
    """Routes by deployment name; a wish without a ready replica has an empty one.

    Args:
        wishes: deployments in force.
        addresses: of node agents by node id.
        catalog: for names and context lengths of variants.
        published: what the core routes.
    """
    weights, limits, fills = dict(published.weights), dict(published.limits), dict(published.fills)
    by_id, variants = dict(published.routes), {v.variant_id: v for v in catalog.variants}
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
                        weight=weights.get(r.replica_id, 1.0),
                        sequences_limit=limits.get(r.replica_id, 0),
                        fill_sequences=fills.get(r.replica_id, EVENLY).sequences,
                        fill_tokens=fills.get(r.replica_id, EVENLY).tokens,
                        fill_rank=fills.get(r.replica_id, EVENLY).rank,
                    )
                    for r in replicas
                ),
                asleep=wish.deployment_id in published.asleep,
                ttft_limit_ms=_limit_ms(wish, Metric.TTFT),
                tpot_limit_ms=_limit_ms(wish, Metric.TPOT),
                e2e_limit_ms=_limit_ms(wish, Metric.E2E),
            )
        )
    return routes


def _limit_ms(wish: Deployment, metric: Metric) -> float:
    """The limit at the highest percentile, which is what attainment is judged by; 0 when there is none."""
    limits = [(limit.percentile, limit.limit_ms) for limit in wish.slo.latency if limit.metric is metric]
    return max(limits)[1] if limits else 0.0
