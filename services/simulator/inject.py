"""Puts a scenario's faults into a run."""

from __future__ import annotations

from difflib import get_close_matches

from services.simulator.checks import SETTLE_BOUND_S
from services.simulator.engine.world import World
from services.simulator.scenario import Fault, FaultKind, Scenario
from tradewind.domain.errors import InvalidField


def inject(world: World, scenario: Scenario) -> None:
    """Schedules every fault, times counted from the trace's start.

    Raises:
        InvalidField: a fault names a node that does not exist; the nearest is suggested.
    """
    for fault in scenario.faults:
        if fault.node not in world.nodes:
            near = get_close_matches(fault.node, world.nodes, 1, 0.0)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidField("scenario.faults.node", f"no node {fault.node!r} in the cluster{hint}")
        world.timeline.at(world.setting.lead_s + fault.at_s, _begin, (world, fault))
    if scenario.faults:
        world.timeline.at(
            world.setting.lead_s + scenario.last_s, _settle, (world, world.setting.lead_s + scenario.last_s)
        )


def _begin(now_s: float, subject: tuple[World, Fault]) -> None:
    world, fault = subject
    sight, node = world.conductor.sights[fault.node], world.nodes[fault.node]
    end_s = now_s + fault.for_s
    if fault.kind is FaultKind.CRASH:
        world.crashed = True
        world.crash(node, now_s)
        sight.deaf_until_s = sight.mute_until_s = end_s
        world.timeline.at(end_s, _recover, subject)
    elif fault.kind is FaultKind.PAUSE:
        world.pause(node, now_s, fault.for_s)
        sight.deaf_until_s = sight.mute_until_s = end_s
        world.timeline.at(end_s, _recover, subject)
    elif fault.kind is FaultKind.PARTITION:
        sight.deaf_until_s = sight.mute_until_s = end_s
        world.timeline.at(end_s, _recover, subject)
    elif fault.kind is FaultKind.LOST_ANSWER:
        sight.mute_until_s = end_s
    elif fault.kind is FaultKind.SLOW_LINK:
        sight.delay_s = fault.delay_s
        world.timeline.at(end_s, _quick, subject)
    else:
        node.clock_s += fault.delay_s


def _recover(now_s: float, subject: tuple[World, Fault]) -> None:
    """The node is heard again; it goes on with the newest target it kept, and is told the present one anew."""
    world, fault = subject
    world.conductor.sights[fault.node].told = None
    node = world.nodes[fault.node]
    node.changed = True
    node.follow(now_s)
    world.after_node(node, now_s)


def _quick(_: float, subject: tuple[World, Fault]) -> None:
    world, fault = subject
    world.conductor.sights[fault.node].delay_s = 0.0


def _settle(now_s: float, subject: tuple[World, float]) -> None:
    """Looks every second whether all that is planned is ready, and tells the checks when."""
    world, since_s = subject
    ready = {name for node in world.nodes.values() for name in node.engines()}
    missing = sum(r.replica_id not in ready for r in world.conductor.blueprint.replicas)
    if missing and now_s - since_s <= SETTLE_BOUND_S:
        world.timeline.at(now_s + 1.0, _settle, subject)
        return
    world.checks.settled(now_s - since_s, missing)
