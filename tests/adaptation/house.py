"""A small house of nodes with traffic by the second: commits what is proposed, serves what capacity allows.

Requests that find no room wait; a request is within its limits when it waited less than `PATIENCE_S`. Coarse on
purpose: the simulator has the exact queue, here only the decisions are looked at.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from services.orchestrator.core.effects import Broken, Commit, Effect, Note, Publish, Push
from services.orchestrator.core.facts.blueprint import Replica
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import ReplicaReport, ReplicaState
from services.orchestrator.core.facts.policy import ENERGY, Policy
from services.orchestrator.core.facts.traffic import MOST_WINDOWS, WINDOW_S, DeploymentTraffic, Window
from services.orchestrator.core.facts.wish import Metric
from services.orchestrator.core.rollout.rollout import Intent
from services.orchestrator.core.state import NodeSight, Observation, State
from services.orchestrator.core.step import step
from tests.orchestrator.worlds import node, profile, ready, variant, wish

PATIENCE_S = 1.0
LOAD_S = 10.0


def one_point_each(*names: str) -> Catalog:
    """A variant by name, each with one operating point on one core; the later ones need less energy."""
    made = [variant(name) for name in names]
    return Catalog(
        tuple(made),
        tuple(
            profile(v.variant_id, "cpu/1", ttft_ms=100, tpot_ms=20, energy_mj=400 / (n + 1), batches=(4,))
            for n, v in enumerate(made)
        ),
    )


class House:
    """One deployment "chat" on nodes of four cores."""

    def __init__(
        self,
        rate: Callable[[float], float],
        *,
        nodes: int = 4,
        policy: Policy = ENERGY,
        seed: int = 1,
        serves: Callable[[Replica], float] = lambda replica: 1.5,
        **changes: object,
    ) -> None:
        self.now_s, self.rate, self.serves = 0.0, rate, serves
        self.random = random.Random(seed)
        self.state = State(started_s=0.0, policy=policy)
        values: dict[str, object] = {"deployments": (wish(),), "catalog": one_point_each("fast")}
        self.seen = Observation(**{**values, **changes})  # type: ignore[arg-type]
        self.nodes = [node(f"n{n}") for n in range(nodes)]
        self.broken: set[str] = set()
        self.since: dict[str, float] = {}
        self.windows: list[Window] = []
        self.queue: list[float] = []
        self.counts = {"arrivals": 0, "finished": 0, "judged": 0, "within": 0}
        self.missed = self.asked = 0
        self.commits: list[tuple[float, Commit]] = []
        self.notes: list[tuple[float, str]] = []
        self.published = Publish(())
        self.told: dict[str, Intent] = {}

    def decide(self, state: State, seen: Observation, now_s: float) -> tuple[State, tuple[Effect, ...]]:
        """The step under test."""
        return step(state, seen, now_s)

    def run(self, seconds: float) -> None:
        """So many seconds, a look in each."""
        for _ in range(int(seconds)):
            self.now_s += 1.0
            self._serve()
            self._look()

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """Planned replicas."""
        return self.seen.blueprint.replicas

    def variants(self) -> list[str]:
        """Variants planned."""
        return sorted({r.variant_id for r in self.replicas})

    def _serve(self) -> None:
        arrivals = self._poisson(self.rate(self.now_s))
        self.queue += [self.now_s] * arrivals
        routed = dict(self.published.routes).get("d-chat", ())
        room = int(sum(self.serves(r) for r in routed) + self.random.random())
        done, self.queue = self.queue[:room], self.queue[room:]
        within = sum(self.now_s - at_s <= PATIENCE_S for at_s in done)
        self.asked, self.missed = self.asked + arrivals, self.missed + len(done) - within
        for key, value in (("arrivals", arrivals), ("finished", len(done)), ("judged", len(done)), ("within", within)):
            self.counts[key] += value
        if self.now_s % WINDOW_S == 0.0:
            c = self.counts
            limited = {limit.metric for wished in self.seen.deployments for limit in wished.slo.latency}
            self.windows.append(
                Window(
                    self.now_s - WINDOW_S,
                    arrivals=c["arrivals"],
                    finished=c["finished"],
                    prompt_tokens=128.0 * c["arrivals"],
                    prompt_squares=128.0**2 * c["arrivals"],
                    output_tokens=32.0 * c["finished"],
                    output_squares=32.0**2 * c["finished"],
                    judged=c["judged"],
                    within=c["within"],
                    ttft_within=c["within"] if Metric.TTFT in limited else c["judged"],
                    tpot_within=c["judged"],
                    e2e_within=c["within"] if Metric.E2E in limited else c["judged"],
                    queued=len(self.queue),
                )
            )
            self.windows = self.windows[-MOST_WINDOWS:]
            self.counts = dict.fromkeys(self.counts, 0)

    def _look(self) -> None:
        traffic = (DeploymentTraffic("d-chat", tuple(self.windows), len(self.queue)),)
        seen = replace(self.seen, nodes=tuple(NodeSight(n, self.now_s, True) for n in self.nodes), traffic=traffic)
        self.state, effects = self.decide(self.state, seen, self.now_s)
        for effect in effects:
            self._take(effect)

    def _take(self, effect: Effect) -> None:
        if isinstance(effect, Commit):
            self.commits.append((self.now_s, effect))
            self.seen = replace(self.seen, blueprint=effect.plan.blueprint)
        elif isinstance(effect, Broken):
            raise AssertionError(effect.findings)
        elif isinstance(effect, Publish):
            self.published = effect
        elif isinstance(effect, Note):
            self.notes.append((self.now_s, effect.words))
        elif isinstance(effect, Push):
            told = {t.node_id: t.replicas for t in effect.targets}
            self.told = {r.replica_id: intent for rs in told.values() for r, intent in rs}
            self.nodes = [
                replace(n, replicas=tuple(self._report(r, intent) for r, intent in told.get(n.node_id, ())))
                for n in self.nodes
            ]

    def _report(self, replica: Replica, intent: Intent) -> ReplicaReport:
        since_s = self.since.setdefault(replica.replica_id, self.now_s)
        if self.now_s - since_s < LOAD_S:
            return ReplicaReport(replica.replica_id, ReplicaState.STARTING, starts=1)
        if intent is Intent.DRAIN:
            return ReplicaReport(replica.replica_id, ReplicaState.DRAINED, starts=1)
        return ready(replica.replica_id)

    def _poisson(self, mean: float) -> int:
        # Counts of exponential gaps; means here are small.
        count, left = 0, self.random.expovariate(1.0)
        while left < mean:
            count += 1
            left += self.random.expovariate(1.0)
        return count
