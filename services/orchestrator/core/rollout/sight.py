"""What can be seen of replicas and their slices, from what nodes report. Pure."""

from __future__ import annotations

from dataclasses import replace

from services.orchestrator.core.facts.blueprint import Replica
from services.orchestrator.core.facts.fleet import Device, Node, NodeState, ReplicaState
from services.orchestrator.core.rollout.slices import overlap, reported

_ENDED = (ReplicaState.DRAINED, ReplicaState.FAILED, ReplicaState.STOPPING)


class Sight:
    """What can be seen of replicas."""

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self._nodes = {node.node_id: node for node in nodes}
        self._reports = {(n.node_id, r.replica_id): r for n in nodes for r in n.replicas}

    def node(self, node_id: str) -> Node | None:
        """A node as reported."""
        return self._nodes.get(node_id)

    def device(self, replica: Replica) -> Device | None:
        """The device a replica is on."""
        node = self._nodes.get(replica.node_id)
        devices = node.devices if node else ()
        return next((d for d in devices if d.device_id == replica.partition.device_id), None)

    def is_made(self, replica: Replica) -> bool:
        """Whether the slice of a replica is there; always so where layouts are not managed."""
        device = self.device(replica)
        return device is None or not device.table or reported(replica.partition, device) is not None

    def as_reported(self, replica: Replica) -> Replica:
        """The replica on its slice as it was made, with its UUID."""
        device = self.device(replica)
        made = reported(replica.partition, device) if device and device.table else None
        return replace(replica, partition=made) if made and made != replica.partition else replica

    def as_running(self, replica: Replica) -> Replica:
        """The replica with the variant that its node really runs: a fallback, where the device refused the planned one.

        What follows from a variant (its context, its speed, its name) is then true of what answers.
        """
        report = self._reports.get((replica.node_id, replica.replica_id))
        running = report.variant_id if report else ""
        found = next((link for link in replica.fallbacks if link.variant_id == running), None)
        return replace(replica, variant_id=found.variant_id, manifest=found.manifest) if found else replica

    def lies_over(self, replica: Replica, old: Replica) -> bool:
        """Whether a replica's slice cannot be made because an older one is in its place."""
        if replica.node_id != old.node_id or self.is_made(replica):
            return False
        return overlap(replica.partition, old.partition, self.device(replica))

    def state(self, replica: Replica) -> ReplicaState | None:
        """State last reported, None when it is not there or its node is lost."""
        node = self._nodes.get(replica.node_id)
        if node is None or node.state is NodeState.LOST:
            return None
        report = self._reports.get((replica.node_id, replica.replica_id))
        return report.state if report else None

    def serves(self, replica: Replica) -> bool:
        """Whether it may be routed to. A node that is merely late goes on serving."""
        return self.state(replica) is ReplicaState.READY

    def ended(self, replica: Replica) -> bool:
        """Whether it is known to have ended; of a node that cannot be heard nothing is known."""
        node = self._nodes.get(replica.node_id)
        if node is None or node.state in (NodeState.LOST, NodeState.SUSPECT, NodeState.JOINING):
            return False
        state = self.state(replica)
        return state is None or state in _ENDED

    def present(self, replica: Replica) -> bool:
        """Whether its node reports it, or cannot be heard."""
        node = self._nodes.get(replica.node_id)
        if node is None or node.state in (NodeState.LOST, NodeState.SUSPECT, NodeState.JOINING):
            return True
        return self.state(replica) is not None
