"""The fast path: what a look does for a deployment in danger within two seconds of its being seen, without a plan."""

from __future__ import annotations

from dataclasses import replace

from services.orchestrator.core.effects import Effect, Publish, Push
from services.orchestrator.core.facts.blueprint import EMPTY, NodeLayout, child_of
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import Device, DeviceKind, Node, NodeState, ReplicaReport, ReplicaState
from services.orchestrator.core.facts.profile import Profile
from services.orchestrator.core.facts.traffic import WINDOW_S, DeploymentTraffic, Speed, Window
from services.orchestrator.core.rollout.rollout import RolloutMemory
from services.orchestrator.core.state import NodeSight, Observation, State
from services.orchestrator.core.step import step
from tests.adaptation.test_relief_and_slices import GIB, KEPT, OLD, SLOW, replica
from tests.orchestrator.worlds import profile, slo, wish

# The live loop looks twice a second (`control.PERIOD_S`).
PERIOD_S = 0.5
PROMISE_S = 2.0
S = ReplicaState
STANDBY = replica("old", OLD, hold=True)
SERVING = (replica("a", KEPT), replace(replica("b", KEPT), node_id="g2"))
BLUEPRINT = child_of(EMPTY, SERVING, (STANDBY,), (NodeLayout("g1", (KEPT,), (("GPU-1", SLOW),)),))
WISH = wish("chat", rate=4.0, slo=slo(ttft=400, tpot=60))
WISH = replace(WISH, deployment_id="chat")
BATCHES = (1, 2, 4, 8)


def profiled(power: object) -> Profile:
    made = profile("v", "mig/1g.10gb", device_class="gpu:test", batches=BATCHES, ttft_ms=20.0)
    return replace(made, power=power) if power else made


class Desk:
    """Looks at two boards, one with a lowered clock and a loaded standby, as the live loop does; plans nothing."""

    def __init__(self) -> None:
        self.now_s = 100.0
        board = Device("GPU-1", "gpu:test", 80 * GIB, (), (OLD, KEPT), kind=DeviceKind.GPU, setting=SLOW)
        here = (ReplicaReport("a", S.READY), ReplicaReport("old", S.DRAINED))
        self.nodes = (
            Node("g1", NodeState.ACTIVE, (board,), here),
            Node("g2", NodeState.ACTIVE, (replace(board, setting=board.setting),), (ReplicaReport("b", S.READY),)),
        )
        self.seen = Observation(
            deployments=(WISH,),
            catalog=Catalog((), (profiled(None), profiled(SLOW))),
            blueprint=BLUEPRINT,
            catalog_known=False,
            traffic=(DeploymentTraffic("chat", self.windows()),),
        )
        # The standby was left out of the routes a while ago and has been drained since; it is loaded still.
        self.state = State(started_s=0.0, blueprint=BLUEPRINT, rollout=RolloutMemory((("old", 50.0),)))

    def windows(self, tpot_within: float = 1.0) -> tuple[Window, ...]:
        to_s = self.now_s // WINDOW_S * WINDOW_S
        return tuple(
            Window(
                to_s - n * WINDOW_S, arrivals=20, finished=20, judged=20, within=int(20 * tpot_within),
                ttft_within=20, tpot_within=int(20 * tpot_within), prompt_tokens=20.0 * 128,
            )
            for n in range(6, 0, -1)
        )  # fmt: skip

    def look(self) -> tuple[Effect, ...]:
        self.now_s += PERIOD_S
        seen = replace(self.seen, nodes=tuple(NodeSight(n, self.now_s, True) for n in self.nodes))
        self.state, effects = step(self.state, seen, self.now_s)
        return effects

    def until(self, done: object) -> float:
        """Seconds from now until a look does something; a minute at most."""
        began_s = self.now_s
        while self.now_s - began_s < 60.0:
            if done(*_told(self.look())):  # type: ignore[operator]
                return self.now_s - began_s
        raise AssertionError("never")

    def burst(self) -> None:
        """Forty requests wait where four a second are answered."""
        self.seen = replace(self.seen, traffic=(DeploymentTraffic("chat", self.windows(), queued=40, at_work=4),))


def _told(effects: tuple[Effect, ...]) -> tuple[Push, Publish]:
    push = next(e for e in effects if isinstance(e, Push))
    return push, next(e for e in effects if isinstance(e, Publish))


def settings(push: Push) -> dict[str, object]:
    return {t.node_id: dict(t.power_settings).get("GPU-1") for t in push.targets}


def test_a_burst_lifts_clocks_within_two_seconds() -> None:
    desk = Desk()
    push, _ = _told(desk.look())
    assert settings(push)["g1"] == SLOW
    desk.burst()
    assert desk.until(lambda push, _: settings(push)["g1"] is None) <= PROMISE_S


def test_a_burst_wakes_a_loaded_standby_within_two_seconds() -> None:
    desk = Desk()
    desk.burst()

    def serves(push: Push, _: Publish) -> bool:
        return any(r.replica_id == "old" and str(intent) == "serve" for t in push.targets for r, intent in t.replicas)

    assert desk.until(serves) <= PROMISE_S


def test_a_burst_lets_less_wait_at_each_replica_within_two_seconds() -> None:
    desk = Desk()
    _, calm = _told(desk.look())
    before = {name: fill.tokens for name, fill in calm.fills}
    assert set(before) == {"a", "b"}
    desk.burst()

    def fewer(_: Push, publish: Publish) -> bool:
        return all(fill.tokens < before.get(name, 0) for name, fill in publish.fills if name in before)

    assert desk.until(fewer) <= PROMISE_S


def test_slow_tokens_make_batches_smaller_within_two_seconds_of_the_window_that_shows_it() -> None:
    desk = Desk()
    _, calm = _told(desk.look())
    assert calm.limits == ()
    desk.seen = replace(desk.seen, traffic=(DeploymentTraffic("chat", desk.windows(tpot_within=0.5)),))
    assert desk.until(lambda _, publish: dict(publish.limits) == {"a": 6, "b": 6}) <= PROMISE_S


def test_a_replica_that_falls_behind_is_given_less_within_two_seconds() -> None:
    desk = Desk()
    _, calm = _told(desk.look())
    assert calm.weights == ()
    speeds = (Speed("g1", "a", 100.0, 20.0, 4.0, 50), Speed("g2", "b", 100.0, 60.0, 4.0, 50))
    desk.seen = replace(desk.seen, speeds=speeds)
    assert desk.until(lambda _, publish: dict(publish.weights).get("b", 1.0) < 0.5) <= PROMISE_S
