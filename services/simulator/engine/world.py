"""A run: requests arrive, replicas work, nodes obey, the orchestrator looks. Deterministic: no clock, no randomness."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from services.gateway.core.choice import LEAST_WEIGHT
from services.gateway.limits import MAX_ATTEMPTS, MAX_WAITING, RETRY_PAUSE_S, WAIT_READY_S
from services.node_agent.core.target import Target as AgentTarget
from services.orchestrator.core.effects import Publish
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.fleet import Node
from services.orchestrator.core.facts.policy import Policy
from services.orchestrator.core.facts.wish import Demand, Deployment
from services.orchestrator.core.rollout.fills import EVENLY
from services.simulator.checks import Checks
from services.simulator.devices.boards import Board
from services.simulator.engine.conductor import Conductor, Sight
from services.simulator.engine.counting import TrafficCount
from services.simulator.engine.device import SimDevice
from services.simulator.engine.meter import Meter
from services.simulator.engine.node import Costs, SimNode
from services.simulator.engine.power import PowerMeters
from services.simulator.engine.replica import Replica
from services.simulator.engine.request import Request
from services.simulator.engine.router import Router
from services.simulator.engine.timeline import Timeline
from services.simulator.trace import Trace

# Before the first arrival the first plan has so long to come up.
LEAD_S: Final = 120.0
# After the last arrival everything in hand is finished within this, or counts as lost.
AFTERMATH_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Service:
    """A deployment and what is asked of it; limits are for judging each request."""

    deployment: Deployment
    trace: Trace
    ttft_limit_s: float
    tpot_limit_s: float
    e2e_limit_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything a run is made of.

    Attributes:
        look_s: period of the orchestrator's looks; it also looks whenever a node changed.
        lead_s: time before the first arrival in which the first plan comes up.
        foresee: demand to come at a moment, for policies that foresee.
        metered: whether nodes report the power of their devices, so that trials can be judged by it.
    """

    nodes: tuple[tuple[Node, tuple[Board, ...]], ...]
    costs: Costs
    catalog: Catalog
    services: tuple[Service, ...]
    policy: Policy
    look_s: float = 1.0
    lead_s: float = LEAD_S
    sample_s: float = 10.0
    foresee: Callable[[float], tuple[tuple[str, Demand], ...]] | None = None
    metered: bool = False


@dataclass(slots=True)
class _Line:
    """One deployment's requests on their way.

    Attributes:
        held: requests that wait at the gateway, for a route or for room.
        retries: those that wait for room will be tried again.
    """

    service: Service
    router: Router
    count: TrafficCount
    requests: list[Request] = field(default_factory=list)
    held: list[Request] = field(default_factory=list)
    retries: bool = False


class World:
    """One run from `-lead_s` to the last answer. Call `run` once; afterwards read what came of it."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.timeline, self.checks = setting, Timeline(), Checks()
        self.nodes = {
            node.node_id: SimNode(
                node,
                [SimDevice(b, d) for b, d in zip(boards, node.devices, strict=True)],
                self.timeline,
                setting.costs,
                deadlines=setting.policy.levers.deadlines,
            )
            for node, boards in setting.nodes
        }
        self.lines = {s.deployment.deployment_id: self._line(s) for s in setting.services}
        self.meter = Meter(self.nodes, self.lines_in_order(), setting.sample_s)
        self.power = PowerMeters(self.nodes)
        self.conductor = Conductor(
            policy=setting.policy,
            catalog=setting.catalog,
            sights={name: Sight(node) for name, node in self.nodes.items()},
            publish=self._publish,
            deliver=self._deliver,
            deployments=tuple(s.deployment for s in setting.services),
        )
        self._now_s = 0.0
        self._homes: dict[str, tuple[Replica, SimNode]] = {}
        self._published: tuple[Publish, int] | None = None
        self._shift_s = setting.lead_s
        self.crashed = False

    @property
    def end_s(self) -> float:
        """Time of the last arrival, on the run's own clock, which starts `lead_s` before the trace."""
        return self._shift_s + max(s.trace.length_s for s in self.setting.services)

    def lines_in_order(self) -> list[_Line]:
        """Deployments in the order they were given."""
        return [self.lines[s.deployment.deployment_id] for s in self.setting.services]

    def requests(self) -> Iterator[Request]:
        """All requests, deployment by deployment."""
        for line in self.lines_in_order():
            yield from line.requests

    def run(self, progress: Callable[[float], None] | None = None) -> None:
        """Lets everything happen. `progress` is told shares in [0, 1] now and then."""
        self.timeline.at(0.0, self._look, True)
        self.timeline.at(self._shift_s, self._sample)
        end_s, told_s = self.end_s, 0.0
        arrivals = self._arrivals()
        arriving = next(arrivals, None)
        while True:
            due_s = self.timeline.next_s
            if arriving is not None and arriving[1].arrival_s <= due_s:
                self._arrive(*arriving)
                arriving = next(arrivals, None)
                continue
            if due_s > end_s and arriving is None and (not self._open() or due_s > end_s + AFTERMATH_S):
                break
            self.timeline.pop()
            if progress and due_s - told_s > 0.01 * end_s:
                told_s = due_s
                progress(min(due_s / end_s, 1.0))
        self.checks.findings.extend(self.conductor.broken)
        self.checks.requests(list(self.requests()), cut_allowed=self.crashed)

    @property
    def digest(self) -> str:
        """SHA-256 of what happened to every request and of every decision: equal runs have equal digests."""
        sha = hashlib.sha256()
        for r in self.requests():
            sha.update(repr((r.number, r.first_s, r.done_s, r.replica_id, r.cut)).encode())
        for line in self.conductor.journal:
            sha.update(repr(line).encode())
        return sha.hexdigest()

    # --- requests --------------------------------------------------------------------------------------------------

    def _line(self, service: Service) -> _Line:
        limits_s = (service.ttft_limit_s, service.tpot_limit_s, service.e2e_limit_s)
        count = TrafficCount(service.deployment.deployment_id, *limits_s)
        shift = self.setting.lead_s
        trace = service.trace
        rows = zip(trace.arrival_s, trace.prompt_tokens, trace.output_tokens, strict=True)
        requests = [Request(i, t + shift, p, o) for i, (t, p, o) in enumerate(rows)]
        return _Line(service, Router(), count, requests)

    def _arrivals(self) -> Iterator[tuple[_Line, Request]]:
        lines = self.lines_in_order()
        if len(lines) == 1:
            for request in lines[0].requests:
                yield lines[0], request
            return
        merged = sorted(
            ((r.arrival_s, k, r) for k, line in enumerate(lines) for r in line.requests), key=lambda e: e[:2]
        )
        for _, k, request in merged:
            yield lines[k], request

    def _arrive(self, line: _Line, request: Request) -> None:
        at_replicas, most = line.count.at_work - len(line.held), line.router.capacity
        line.count.arrived(request, request.arrival_s)
        if most and at_replicas >= most:
            self._refuse(line, request, request.arrival_s)
        else:
            self._send(line, request, request.arrival_s)

    def _send(self, line: _Line, request: Request, now_s: float) -> None:
        """One round over the replicas, as the gateway's dispatcher makes them; who finds no room waits or is refused.

        Who finds no route waits until there is one, however long: a run begins before its first replica is there.
        """
        full: list[Replica] = []
        while request.attempts < MAX_ATTEMPTS:
            replica = line.router.choose(request.prompt_tokens, full)
            if replica is None:
                break
            request.attempts += 1
            if replica.submit(request, now_s):
                self._await(replica, line)
                return
            full.append(replica)
        tired = request.attempts >= MAX_ATTEMPTS or now_s - request.arrival_s >= WAIT_READY_S
        if full and (tired or len(line.held) >= MAX_WAITING):
            self._refuse(line, request, now_s)
            return
        line.held.append(request)
        line.count.queued = len(line.held)
        if full and not line.retries:
            line.retries = True
            self.timeline.at(now_s + RETRY_PAUSE_S, self._retry, line)

    def _retry(self, now_s: float, line: _Line) -> None:
        line.retries = False
        self._send_held(line, now_s)

    def _send_held(self, line: _Line, now_s: float) -> None:
        waiting, line.held = line.held, []
        line.count.queued = 0
        for request in waiting:
            self._send(line, request, max(request.arrival_s, now_s))

    def _refuse(self, line: _Line, request: Request, now_s: float) -> None:
        request.done_s, request.refused = now_s, True
        line.count.finished(request, now_s)

    def _ran(self, now_s: float, ended: tuple[Replica, int, _Line]) -> None:
        replica, version, line = ended
        if version != replica.version:
            return
        done = replica.advance(now_s)
        self._await(replica, line)
        for request in done:
            line.count.finished(request, now_s)
        if done and not replica.in_hand:
            node = self._homes[replica.replica_id][1]
            if node.emptied(replica, now_s):
                self.after_node(node, now_s)

    def _await(self, replica: Replica, line: _Line) -> None:
        """Puts the end of a replica's run in the queue, unless it is there."""
        if replica.version != replica.awaited and replica.ends_at_s != float("inf"):
            replica.awaited = replica.version
            self.timeline.at(replica.ends_at_s, self._ran, (replica, replica.version, line))

    def _open(self) -> bool:
        return any(line.count.at_work for line in self.lines.values())

    # --- the control plane -----------------------------------------------------------------------------------------

    def _look(self, now_s: float, again: bool) -> None:
        self._now_s = now_s
        traffic = [line.count.seen(now_s) for line in self.lines_in_order()]
        foreseen = self.setting.foresee(now_s - self._shift_s) if self.setting.foresee else ()
        power = self.power.read(now_s) if self.setting.metered else ()
        self.conductor.look(now_s, traffic, foreseen, power)
        if again:
            self.timeline.at(now_s + self.setting.look_s, self._look, True)

    def _deliver(self, sight: Sight, target: AgentTarget, layout: Any) -> None:
        node = sight.node
        now_s = self._now_s
        if sight.delay_s > 0.0:
            self.timeline.at(now_s + sight.delay_s, self._receive, (node, target, layout))
        else:
            self._receive(now_s, (node, target, layout))

    def _receive(self, now_s: float, message: tuple[SimNode, AgentTarget, Any]) -> None:
        node, target, layout = message
        node.receive(target, layout, now_s)
        self.after_node(node, now_s)

    def _publish(self, published: Publish) -> None:
        refits = sum(self.nodes[r.node_id].refits for _, replicas in published.routes for r in replicas)
        if self._published and self._published[0] is published and self._published[1] == refits:
            return
        self._published = (published, refits)
        weights, limits, fills = dict(published.weights), dict(published.limits), dict(published.fills)
        for deployment_id, replicas in published.routes:
            line = self.lines.get(deployment_id)
            if line is None:
                continue
            ready = []
            for replica in replicas:
                node = self.nodes[replica.node_id]
                engine = node.engines().get(replica.replica_id)
                if engine is not None:
                    self._homes[engine.replica_id] = (engine, node)
                    places = min(engine.batch_limit, limits.get(engine.replica_id, 0) or engine.batch_limit)
                    size = places * max(weights.get(engine.replica_id, 1.0), LEAST_WEIGHT)
                    ready.append((engine, size, fills.get(engine.replica_id, EVENLY)))
            line.router.publish(ready)
            if ready and line.held:
                self._send_held(line, self._now_s)

    def after_node(self, node: SimNode, now_s: float) -> None:
        """Takes up what ended replicas left behind, and checks the node."""
        self.checks.node(node, now_s, self.conductor.blueprint)
        for held in node.held.values():
            if held.engine is not None:
                self._await(held.engine, self.lines[held.spec.deployment_id])
        while node.orphans:
            replica, left = node.orphans.pop()
            for line in self.lines.values():
                line.router.forget(replica)
                for request in left:
                    if request.number < len(line.requests) and line.requests[request.number] is request:
                        self._again(line, request, now_s)

    def crash(self, node: SimNode, now_s: float) -> None:
        """A node loses everything that ran on it; what it was told stays on its disk."""
        node.crash(now_s)
        self.after_node(node, now_s)

    def pause(self, node: SimNode, now_s: float, for_s: float) -> None:
        """Everything on a node stands still, then goes on where it was."""
        for held in node.held.values():
            if held.engine is not None and held.engine.ends_at_s != float("inf"):
                held.engine.delay(for_s)
                self._await(held.engine, self.lines[held.spec.deployment_id])

    def _again(self, line: _Line, request: Request, now_s: float) -> None:
        """A replica ended with this in hand: before its first token it goes elsewhere, after it its stream is cut."""
        if request.first_s < 0.0 and request.attempts < MAX_ATTEMPTS:
            self._send(line, request, now_s)
            return
        request.done_s, request.cut = now_s, True
        line.count.finished(request, now_s)

    def _sample(self, now_s: float, _: object) -> None:
        self.meter.sample(now_s, self.conductor.commits)
        self.timeline.at(now_s + self.setting.sample_s, self._sample)
