"""A leader that dies at any point of a rollout: after each effect of each look, committing and pushing included.

The deciding code is the live one; the database is what was committed, the node goes on with the last target it was
sent. The next leader begins with an empty memory, as one does that never followed. Real processes, kills and the ten
seconds themselves are in `test_take_over`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from services.orchestrator.core.effects import Broken, Commit, Effect, Push
from services.orchestrator.core.facts.fleet import ReplicaReport, ReplicaState
from services.orchestrator.core.rollout.rollout import Intent, Target
from services.orchestrator.core.state import NodeSight, Observation, State
from services.orchestrator.core.step import step
from tests.orchestrator.worlds import node, slo, two_variants, wish

# A second a look: so long a replica loads and drains, and so long nobody leads after a death.
LOAD_S, DRAIN_S, HEADLESS_S = 3, 3, 9
SWAP_AT_S, ROLLED_OUT_S, END_S = 6, 20, 44


@dataclass
class Agent:
    """A node of four cores that does what its newest target says, in its own time."""

    since: dict[str, tuple[ReplicaState, int]] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)
    target: Target | None = None

    def look(self, now_s: int) -> tuple[ReplicaReport, ...]:
        told = {replica.replica_id: intent for replica, intent in self.target.replicas} if self.target else {}
        for name in [name for name in self.since if name not in told]:
            del self.since[name]
        for name, intent in told.items():
            if name not in self.since:
                self.starts.append(name)
            state, at_s = self.since.get(name, (ReplicaState.STARTING, now_s))
            self.since[name] = self._next(state, at_s, intent, now_s)
        return tuple(ReplicaReport(name, state, "d-chat", starts=1) for name, (state, _) in self.since.items())

    @staticmethod
    def _next(state: ReplicaState, at_s: int, intent: Intent, now_s: int) -> tuple[ReplicaState, int]:
        if state is ReplicaState.STARTING and now_s - at_s >= LOAD_S:
            return ReplicaState.READY, now_s
        if intent is Intent.DRAIN and state is ReplicaState.READY:
            return ReplicaState.DRAINING, now_s
        if state is ReplicaState.DRAINING and now_s - at_s >= DRAIN_S:
            return ReplicaState.DRAINED, now_s
        return state, at_s


@dataclass(frozen=True)
class End:
    """How a run came out. `points` are effects by second, where a leader could have died."""

    variants: tuple[str, ...]
    running: tuple[ReplicaState, ...]
    starts: int
    leaving: int
    points: tuple[tuple[int, int], ...]
    shown: str


def run(dies_at: tuple[int, int] | None = None) -> End:
    """A deployment is swapped because more quality is asked for; the leader dies after so many effects of a look."""
    agent, state = Agent(), State(started_s=0.0)
    seen = Observation(deployments=(wish(slo=slo(ttft=400)),), catalog=two_variants())
    points: list[tuple[int, int]] = []
    leads_at_s, served = 0, False
    for now_s in range(1, END_S + 1):
        if now_s == SWAP_AT_S:
            seen = replace(seen, deployments=(wish(slo=slo(min_top1_agreement=0.98), generation=2),))
        reports = agent.look(now_s)
        ready = any(report.state is ReplicaState.READY for report in reports)
        assert ready or not served, f"nothing serves at {now_s} s, dead at {dies_at}"
        served = served or ready
        if now_s < leads_at_s:
            continue
        sight = NodeSight(replace(node(), replicas=reports), float(now_s), True)
        state, effects = step(state, replace(seen, nodes=(sight,)), float(now_s))
        for number, effect in enumerate([*sorted(effects, key=lambda e: isinstance(e, Commit)), None]):
            if dies_at == (now_s, number):
                state, leads_at_s = State(started_s=float(now_s + HEADLESS_S)), now_s + HEADLESS_S
                break
            points.append((now_s, number))
            seen = carried_out(effect, agent, seen)
    plan = seen.blueprint
    return End(
        tuple(replica.variant_id for replica in plan.replicas),
        tuple(state for state, _ in agent.since.values()),
        len(agent.starts),
        len([r for r in plan.leaving if r.replica_id in agent.since]),
        tuple(points),
        f"{agent.since} {plan}",
    )


def carried_out(effect: Effect | None, agent: Agent, seen: Observation) -> Observation:
    assert not isinstance(effect, Broken), effect
    if isinstance(effect, Push):
        agent.target = effect.targets[0] if effect.targets else agent.target
    if isinstance(effect, Commit):
        return replace(seen, blueprint=effect.plan.blueprint)
    return seen


def rollout(undisturbed: End) -> Iterator[tuple[int, int]]:
    return (point for point in undisturbed.points if SWAP_AT_S <= point[0] <= ROLLED_OUT_S)


def test_a_leader_may_die_after_any_effect_of_a_rollout_and_it_ends_the_same() -> None:
    undisturbed = run()
    assert undisturbed.variants == ("sha256:fast",)
    assert (undisturbed.running, undisturbed.starts) == ((ReplicaState.READY,), 2)
    points = list(rollout(undisturbed))
    assert len(points) > 3 * (ROLLED_OUT_S - SWAP_AT_S)
    for point in points:
        end = run(point)
        assert replace(end, points=(), shown="") == replace(undisturbed, points=(), shown=""), (point, end.shown)
