"""Layouts that a board would not take: remembered, kept from being asked for again, and tried again later. Pure.

    refused, restored, blocked, degraded, or waiting for too long
        → bar (reason, ever longer pause) → plan without it → pause over, or others' slices changed → tried again

Want of room and holders are about slices: those that could not be made are not asked for, those that somebody holds
stay, and the rest of the board may be cut anew. Any other trouble (a driver, a permission, a reset, a way back that
failed) is the board's own: it is planned with as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.fleet import Device, LayoutNews, LayoutReport, Node

# The node agent tries a holder for some seconds by itself; a minute later the cause may have gone.
FIRST_PAUSE_S: Final = 60.0
# A board that never takes a layout is tried once an hour: each try costs a plan and some calls of the driver.
LONGEST_PAUSE_S: Final = 3_600.0
# A change that waits for work to leave a slice: replicas of ours have ended before it is asked for, and their processes
# are killed within 30 s; what is still there then is somebody else's.
WAIT_LIMIT_S: Final = 60.0

Place = tuple[str, str]

_HELD: Final = "holder_unknown"
# Codes of the node agent that speak of the whole board, whichever slices are asked for.
_OF_THE_BOARD: Final = ("not_supported", "reset_required", "no_permission", "driver_trouble", "no_driver", "board_lost")


@dataclass(frozen=True, slots=True)
class LayoutBar:
    """What one board is not asked for.

    Attributes:
        generation: of the blueprint whose layout failed last.
        barred: slices that could not be made.
        kept: slices that somebody holds.
        as_it_is: the board is not cut at all for now.
        reason: in words.
        failures: in a row.
        foreign: slices of others when it failed; when they change, the pause is over.
    """

    place: Place
    generation: int
    barred: tuple[str, ...]
    kept: tuple[str, ...]
    as_it_is: bool
    reason: str
    failures: int
    until_s: float
    foreign: tuple[str, ...] = ()

    @property
    def pause_s(self) -> float:
        """How long it lasts, by how often it failed."""
        return min(FIRST_PAUSE_S * 2.0 ** (self.failures - 1), LONGEST_PAUSE_S)


@dataclass(frozen=True, slots=True)
class Wait:
    """A change that waits for something to leave a slice, and since when."""

    place: Place
    generation: int
    since_s: float


@dataclass(frozen=True, slots=True)
class LayoutMemory:
    """What is remembered of boards' layouts. Bars whose pause is over count the failures of the next one."""

    bars: tuple[LayoutBar, ...] = ()
    waits: tuple[Wait, ...] = ()


def watch_layouts(memory: LayoutMemory, blueprint: Blueprint, nodes: Iterable[Node], now_s: float) -> LayoutMemory:
    """The memory after one look at what nodes report of the blueprint's layouts."""
    bars = {bar.place: bar for bar in memory.bars if now_s < bar.until_s + bar.pause_s}
    since = {(w.place, w.generation): w.since_s for w in memory.waits}
    waits: list[Wait] = []
    for node in nodes:
        for report in node.layouts:
            place = (node.node_id, report.device_id)
            bars.update(_freed(bars.get(place), report, now_s))
            if not _is_of(report, blueprint, node) or _is_known(bars.get(place), report):
                continue
            if report.news is LayoutNews.WAITING:
                wait = Wait(place, report.generation, since.get((place, report.generation), now_s))
                if now_s - wait.since_s < WAIT_LIMIT_S:
                    waits.append(wait)
                    continue
            bars[place] = _bar(bars.get(place), node, report, blueprint, now_s)
    return LayoutMemory(tuple(bars[place] for place in sorted(bars)), tuple(waits))


def without_barred(nodes: tuple[Node, ...], memory: LayoutMemory, now_s: float) -> tuple[Node, ...]:
    """Nodes as they may be planned with now."""
    bars = {bar.place: bar for bar in memory.bars if now_s < bar.until_s}
    if not bars:
        return nodes
    return tuple(
        replace(node, devices=tuple(_limited(d, bars.get((node.node_id, d.device_id))) for d in node.devices))
        if any(name == node.node_id for name, _ in bars)
        else node
        for node in nodes
    )


def _limited(device: Device, bar: LayoutBar | None) -> Device:
    if bar is None:
        return device
    if bar.as_it_is:
        return replace(device, table=(), layout_trouble=bar.reason)
    standing = {p.partition_id for p in device.partitions}
    barred = tuple(name for name in bar.barred if name not in standing)
    kept = tuple(name for name in bar.kept if name in standing)
    return replace(device, barred=barred, kept=kept, layout_trouble=bar.reason)


def _freed(bar: LayoutBar | None, report: LayoutReport, now_s: float) -> dict[Place, LayoutBar]:
    """Others have made or removed slices since it failed: it may be tried at once."""
    if bar is None or report.foreign == bar.foreign or now_s >= bar.until_s:
        return {}
    return {bar.place: replace(bar, until_s=now_s, foreign=report.foreign)}


def _is_of(report: LayoutReport, blueprint: Blueprint, node: Node) -> bool:
    """Whether it tells of trouble with the layout that the blueprint wants of this board, and that does not stand."""
    if report.news is LayoutNews.WELL or report.generation != blueprint.generation:
        return False
    wanted = _wanted(blueprint, node.node_id, report.device_id)
    return bool(wanted) and wanted != _standing(node, report.device_id)


def _is_known(bar: LayoutBar | None, report: LayoutReport) -> bool:
    return bar is not None and bar.generation == report.generation


def _bar(before: LayoutBar | None, node: Node, report: LayoutReport, blueprint: Blueprint, now_s: float) -> LayoutBar:
    wanted = _wanted(blueprint, node.node_id, report.device_id)
    standing = _standing(node, report.device_id)
    failures = before.failures + 1 if before else 1
    held = report.news is LayoutNews.WAITING or report.code == _HELD
    stay = {name for name in standing - wanted if not name.endswith(":whole")} if held else set[str]()
    # What an earlier bar still forbids stays forbidden with it: each failure leaves fewer layouts to try.
    still = before if before and now_s < before.until_s else None
    bar = LayoutBar(
        (node.node_id, report.device_id),
        report.generation,
        tuple(sorted((wanted - standing) | set(still.barred if still else ()))),
        tuple(sorted(stay | set(still.kept if still else ()))),
        report.news is LayoutNews.DEGRADED or report.code in _OF_THE_BOARD,
        "",
        failures,
        now_s,
        report.foreign,
    )
    words = f"{report.words or report.code} ({report.news}, failure {failures}; tried again after {bar.pause_s:.0f} s)"
    return replace(bar, reason=words, until_s=now_s + bar.pause_s)


def _wanted(blueprint: Blueprint, node_id: str, device_id: str) -> set[str]:
    layout = blueprint.layout_of(node_id)
    return {p.partition_id for p in layout.partitions if p.device_id == device_id} if layout else set()


def _standing(node: Node, device_id: str) -> set[str]:
    device = next((d for d in node.devices if d.device_id == device_id), None)
    return {p.partition_id for p in device.partitions} if device else set()
