"""Which variants a deployment is not given on a device class for now, from what nodes report. Pure.

A replica that cannot start is tried again by its node; after some starts the variant is given up there for a while. A
link of a fallback chain that devices refuse is given up at once: the node says so, and a pause changes no driver.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.facts.catalog import Quarantine
from services.orchestrator.core.facts.fleet import Node, ReplicaReport, ReplicaState
from services.orchestrator.core.facts.wish import Deployment
from tradewind.domain.errors import DeviceFault

# A replica that could not start so often is given up for `QUARANTINE_S`; the agent's pauses grow, so the third failure
# comes well within a minute.
STARTS_BEFORE_QUARANTINE: Final = 3
QUARANTINE_S: Final = 600.0
# How a node words a replica that no link of its chain can be loaded for; see `ReplicaStatus.reason`.
_REFUSED: Final = f"{DeviceFault.reason}:"

Key = tuple[str, str, str]


def quarantined_after(
    before: Iterable[Quarantine],
    blueprint: Blueprint,
    deployments: Iterable[Deployment],
    nodes: Iterable[Node],
    now_s: float,
) -> tuple[Quarantine, ...]:
    """What is given up after one look: those that are not over, and new ones."""
    left = {_key_of(q): q for q in before if q.until_s > now_s}
    chained = {d.deployment_id for d in deployments if d.chain}
    reports = {(n.node_id, r.replica_id): r for n in nodes for r in n.replicas}
    seen: dict[Key, list[tuple[Replica, ReplicaReport]]] = defaultdict(list)
    for replica in blueprint.replicas:
        if (report := reports.get((replica.node_id, replica.replica_id))) is not None:
            seen[replica.deployment_id, replica.variant_id, replica.device_class].append((replica, report))
    for key, replicas in seen.items():
        reason = _gave_up(replicas) or (_refused(replicas) if key[0] in chained else "")
        if reason and key not in left:
            left[key] = Quarantine(*key, reason, now_s + QUARANTINE_S)
    return tuple(left.values())


def _key_of(entry: Quarantine) -> Key:
    return (entry.deployment_id, entry.variant_id, entry.device_class)


def _gave_up(replicas: list[tuple[Replica, ReplicaReport]]) -> str:
    """The reason of one that failed too often."""
    for _, report in replicas:
        if report.state is ReplicaState.FAILED and report.starts >= STARTS_BEFORE_QUARANTINE:
            return report.reason
    return ""


def _refused(replicas: list[tuple[Replica, ReplicaReport]]) -> str:
    """The reason when every device of the class that was given the link refused it.

    While one of them runs it, another's driver is that node's own trouble, and its fallback serves there.
    """
    if all(_is_refused(replica, report) for replica, report in replicas):
        return next((report.reason for _, report in replicas if report.reason), "")
    return ""


def _is_refused(replica: Replica, report: ReplicaReport) -> bool:
    fell = any(report.variant_id == link.variant_id for link in replica.fallbacks)
    return fell or (report.state is ReplicaState.FAILED and report.reason.startswith(_REFUSED))
