"""What must hold in every run. Looks at nodes and requests only; shares no code with the planner.

- a node obeys targets in one order: (fencing, generation, step) never goes back;
- two replicas never hold one slice or one core together, unless one replaces the other of the same deployment: the plan
  in force keeps one of them at most;
- the slices of a board are a layout that exists;
- no request is lost: each is answered, or its replica's node crashed after its first token;
- after the last fault everything planned is ready within a bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

from services.node_agent.core.replica_states import ReplicaState
from services.orchestrator.core.facts.blueprint import Blueprint
from services.simulator.devices.slices import legal
from services.simulator.engine.node import Held, SimNode
from services.simulator.engine.request import Request

# Detection of a lost node (20 s), a look, waking, loading and warming; twice that.
SETTLE_BOUND_S: Final = 240.0
# Findings of one kind beyond this say nothing new.
MOST_FINDINGS: Final = 50


@dataclass(slots=True)
class Checks:
    """Findings of a run; none is what is expected."""

    findings: list[str] = field(default_factory=list)
    _orders: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def node(self, node: SimNode, now_s: float, plan: Blueprint) -> None:
        """After anything happened on a node, while this plan is in force."""
        if node.newest is not None:
            order, before = node.newest.order, self._orders.get(node.node_id, (0, 0, 0))
            if order < before:
                self._find(now_s, f"{node.node_id} obeys {order} after {before}")
            self._orders[node.node_id] = order
        for a, b in combinations(node.held.values(), 2):
            if _together(a, b) and not _replaces(a, b, plan):
                self._find(now_s, f"{a.spec.replica_id} and {b.spec.replica_id} hold {a.spec.partition_id} together")
        for device in node.devices.values():
            kinds = [p.kind for p in device.seen.partitions]
            if kinds and not legal(kinds):
                self._find(now_s, f"{node.node_id} {device.seen.device_id} has no legal layout: {kinds}")
            if device.seen.asleep and device.loaded:
                self._find(now_s, f"{node.node_id} {device.seen.device_id} sleeps with work on it")

    def requests(self, requests: Iterable[Request], cut_allowed: bool) -> None:
        """At the end: every request has been answered."""
        lost = [r for r in requests if r.done_s < 0.0]
        cut = [r for r in requests if r.cut]
        if lost:
            self.findings.append(f"{len(lost)} requests were lost, the first is {lost[0].number}")
        if cut and not cut_allowed:
            self.findings.append(f"{len(cut)} streams were cut without a crash, the first is {cut[0].number}")

    def settled(self, waited_s: float, missing: int) -> None:
        """After the last fault: how long it took until all that is planned was ready."""
        if missing or waited_s > SETTLE_BOUND_S:
            self.findings.append(f"{missing} planned replicas not ready {waited_s:.0f} s after the last fault")

    def _find(self, now_s: float, what: str) -> None:
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(f"at {now_s:.3f} s: {what}")


def _together(a: Held, b: Held) -> bool:
    if a.spec.device_id != b.spec.device_id or ReplicaState.STOPPING in (a.state, b.state):
        return False
    if a.spec.cpu_ids and b.spec.cpu_ids:
        return not set(a.spec.cpu_ids).isdisjoint(b.spec.cpu_ids)
    return a.spec.partition_id == b.spec.partition_id


def _replaces(a: Held, b: Held, plan: Blueprint) -> bool:
    """A swap on the same place: old and new of one deployment may be there together, two that both stay may not."""
    pair = {a.spec.replica_id, b.spec.replica_id}
    return a.spec.deployment_id == b.spec.deployment_id and sum(r.replica_id in pair for r in plan.replicas) < 2
