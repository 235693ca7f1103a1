"""Metrics of the orchestrator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from services.orchestrator.core.facts.fleet import NodeState
from tradewind.metrics import Registry
from tradewind.v1 import orchestrator_pb2


class Gauges:
    """What the orchestrator counts.

    Args:
        registry: where the metrics go.
    """

    def __init__(self, registry: Registry) -> None:
        self._nodes = registry.gauge("nodes", "Nodes by state", ("state",))
        self._deployments = registry.gauge("deployments", "Deployments by state", ("state",))
        self._handed_on = registry.gauge("node_streams_handed_on", "Node streams that go on to the leader from here")
        self._generation = registry.gauge("blueprint_generation", "Generation of the blueprint in force")
        self._plans = registry.histogram("plan_seconds", "Seconds to make a plan")
        self._refused = registry.counter("plans_refused_total", "Plans that the independent check refused")

    def nodes(self, states: Iterable[NodeState]) -> None:
        """Nodes as of now."""
        counts = Counter(states)
        for state in NodeState:
            self._nodes.labels(str(state)).set(counts[state])

    def deployments(self, states: Iterable[int]) -> None:
        """Deployments as of now."""
        counts = Counter(states)
        for name, number in orchestrator_pb2.DeploymentState.items():
            if number:
                self._deployments.labels(name.removeprefix("DEPLOYMENT_STATE_").lower()).set(counts[number])

    def handed_on(self, more: int) -> None:
        """So many node streams more, or fewer, are handed on to the leader."""
        self._handed_on.inc(more)

    def generation(self, generation: int) -> None:
        """A blueprint came into force."""
        self._generation.set(generation)

    def planned(self, seconds: float) -> None:
        """A plan was made."""
        self._plans.observe(seconds)

    def refused(self) -> None:
        """The check refused a plan."""
        self._refused.inc()
