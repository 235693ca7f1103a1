"""A simulated node: the agent's own rules (which target it obeys, what it does next) over simulated devices.

receive(target) ─► accept? ─► reconcile.step ─► create (wake, load) · drain · settle · serve · remove
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from services.node_agent.core import reconcile
from services.node_agent.core.replica_states import Event, after
from services.node_agent.core.replica_states import ReplicaState as AgentState
from services.node_agent.core.target import ReplicaSpec, Target, accept
from services.orchestrator.core.facts.blueprint import NodeLayout
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, Node, ReplicaReport, ReplicaState
from services.simulator.engine.clocks import Easing
from services.simulator.engine.cost import StepCost
from services.simulator.engine.device import SimDevice
from services.simulator.engine.replica import Replica
from services.simulator.engine.request import Request
from services.simulator.engine.timeline import Timeline
from tradewind.domain.errors import TradewindError

# Destroying and creating slices: the driver takes about a second for each (PEERS), the agent verifies; a cautious sum.
LAYOUT_S: Final = 8.0
Costs: TypeAlias = Callable[[str, str, str, int], StepCost]


@dataclass(slots=True)
class Held:
    """A replica on this node; `engine` is there from READY on."""

    spec: ReplicaSpec
    state: AgentState
    device: SimDevice
    engine: Replica | None = None
    started: int = 0


class SimNode:
    """Obeys the newest target it was given.

    Args:
        deadlines: engines take in prompts so that as many as possible are in time.

    Attributes:
        devices: by id.
        orphans: requests of replicas that ended with work in hand; the world takes them up.
        changed: whether its report differs since it was last asked.
        refits: grows with every change of its replicas.
        clock_s: how much its own clock is ahead; a fault.
    """

    def __init__(
        self, seen: Node, devices: Iterable[SimDevice], timeline: Timeline, costs: Costs, *, deadlines: bool = False
    ) -> None:
        self.node_id, self._seen = seen.node_id, seen
        self.devices = {d.seen.device_id: d for d in devices}
        self._timeline, self._costs, self._deadlines = timeline, costs, deadlines
        self.held: dict[str, Held] = {}
        self.newest: Target | None = None
        self.layout: NodeLayout | None = None
        self.orphans: list[tuple[Replica, list[Request]]] = []
        self.changed, self.clock_s, self.boots = True, 0.0, 0
        self.refused = self.refits = 0
        self._engines: dict[str, Replica] = {}

    def report(self) -> Node:
        """What it says of itself."""
        if self.changed:
            replicas = tuple(
                ReplicaReport(h.spec.replica_id, ReplicaState(h.state.name.lower()), h.spec.deployment_id,
                              h.spec.variant_id, starts=h.started)
                for h in self.held.values()
            )  # fmt: skip
            devices = tuple(d.seen for d in self.devices.values())
            self._seen = replace(self._seen, devices=devices, replicas=replicas)
            self.changed = False
        return self._seen

    def receive(self, target: Target, layout: NodeLayout | None, now_s: float) -> None:
        """A target has come; an older one is refused, a repeat changes nothing."""
        try:
            if not accept(self.newest, target, self.node_id):
                return
        except TradewindError:
            self.refused += 1
            return
        self.newest = target
        self._follow_layout(layout, now_s)
        self.follow(now_s)

    def follow(self, now_s: float) -> None:
        """One look of the agent: does whatever leads towards the target."""
        if self.newest is None:
            return
        own_s = now_s + self.clock_s
        seen = [reconcile.Observed(h.spec, h.state, h.engine.in_hand if h.engine else 0) for h in self.held.values()]
        for action in reconcile.step(self.newest.replicas, seen, own_s):
            self._act(action, now_s)
        wanted = {spec.replica_id: spec for spec in self.newest.replicas}
        for name, held in self.held.items():
            held.spec = wanted.get(name, held.spec)
        self._rest(now_s)

    def emptied(self, replica: Replica, now_s: float) -> bool:
        """A replica has nothing in hand any more; matters to one that drains. Whether it did."""
        held = self.held.get(replica.replica_id)
        drains = held is not None and held.state is AgentState.DRAINING
        if drains:
            self.follow(now_s)
        return drains

    def crash(self, now_s: float) -> None:
        """Everything that ran is gone; what was obeyed is kept on disk."""
        self.boots += 1
        for name in list(self.held):
            self._remove(name, now_s)

    def engines(self) -> dict[str, Replica]:
        """Replicas that serve."""
        return self._engines

    def _refit(self) -> None:
        """Its replicas changed."""
        self.changed = True
        self.refits += 1
        self._engines = {
            name: h.engine for name, h in self.held.items() if h.engine is not None and h.state is AgentState.READY
        }

    def _act(self, action: reconcile.Action, now_s: float) -> None:
        if isinstance(action, reconcile.Create):
            device = self.devices[action.spec.device_id]
            self.held[action.spec.replica_id] = held = Held(action.spec, AgentState.FETCHING, device)
            self._start(held, now_s)
        elif isinstance(action, reconcile.Remove):
            self._remove(action.replica_id, now_s)
        else:
            event = {reconcile.Drain: Event.DRAIN, reconcile.Settle: Event.EMPTIED, reconcile.Serve: Event.SERVE,
                     reconcile.Retry: Event.RETRY}[type(action)]  # fmt: skip
            held = self.held[action.replica_id]
            held.state = after(held.state, event)
            if event is Event.DRAIN and held.engine and not held.engine.in_hand:
                held.state = after(held.state, Event.EMPTIED)
        self._refit()

    def _start(self, held: Held, now_s: float) -> None:
        held.state, held.started = after(held.state, Event.FETCHED), held.started + 1
        if held.device.seen.asleep:
            held.device.wake(now_s)
        held.device.load(now_s)
        begins_s = max(now_s, held.device.waking_until_s)
        self._timeline.at(begins_s + self._cost(held).load_s, self._loaded, (held, self.boots))

    def _loaded(self, now_s: float, started: tuple[Held, int]) -> None:
        held, boots = started
        if boots != self.boots or self.held.get(held.spec.replica_id) is not held:
            return
        held.state = after(held.state, Event.READY)
        limit_s = held.spec.limits.ttft_s if self._deadlines else math.inf
        held.engine = Replica(
            held.spec.replica_id, self._cost(held), held.spec.batch_limit, now_s, self._easing(held), limit_s,
            held.spec.limits.pace_s,
        )  # fmt: skip
        held.device.serve(now_s)
        self._refit()
        self.follow(now_s)

    def _remove(self, name: str, now_s: float) -> None:
        held = self.held.pop(name)
        self._refit()
        left = held.engine.stop(now_s) if held.engine else []
        held.device.unload(now_s, held.engine)
        if held.engine:
            self.orphans.append((held.engine, left))

    def _cost(self, held: Held) -> StepCost:
        spec, device = held.spec, held.device
        return self._costs(spec.variant_id, device.board.name, spec.partition_kind, device.clock_mhz)

    def _easing(self, held: Held) -> Easing | None:
        spec, device = held.spec, held.device
        clock = device.eased_clock_mhz
        if not clock:
            return None
        cost = self._costs(spec.variant_id, device.board.name, spec.partition_kind, clock)
        full_mhz = device.clock_mhz or device.board.clocks_mhz[0]
        return Easing(cost, full_mhz / clock, spec.limits)

    def _follow_layout(self, layout: NodeLayout | None, now_s: float) -> None:
        self.layout = layout
        if layout is None:
            return
        settings = dict(layout.power_settings)
        for name, device in self.devices.items():
            setting = settings.get(name, DEFAULT_POWER)
            if setting != device.seen.setting:
                device.set_power(setting)
                self.changed = True
                for held in self.held.values():
                    if held.device is device and held.engine:
                        held.engine.change(self._cost(held), held.engine.batch_limit, now_s, self._easing(held))
            wanted = tuple(p for p in layout.partitions if p.device_id == name)
            if wanted and {p.partition_id for p in wanted} != {p.partition_id for p in device.seen.partitions}:
                self._timeline.at(now_s + LAYOUT_S, self._cut, (device, wanted))

    def _cut(self, _: float, change: tuple[SimDevice, tuple]) -> None:  # type: ignore[type-arg]
        device, wanted = change
        made = tuple(p if p.uuid else replace(p, uuid=f"MIG-{self.node_id}-{p.partition_id}") for p in wanted)
        device.cut(made)
        self.changed = True

    def _rest(self, now_s: float) -> None:
        """Sleeping and waking as the layout says; a device with something on it never sleeps."""
        asleep = self.layout.asleep if self.layout else ()
        for name, device in self.devices.items():
            if name in asleep and not device.loaded and not device.seen.asleep:
                device.sleep(now_s)
                self.changed = True
            elif name not in asleep and device.seen.asleep:
                device.wake(now_s)
                self.changed = True
