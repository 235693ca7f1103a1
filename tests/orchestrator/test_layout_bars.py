"""A board that would not take a layout: planned without it, said why, tried again later and ever more rarely."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.orchestrator.core.checking.check import check
from services.orchestrator.core.effects import Commit
from services.orchestrator.core.facts.blueprint import Blueprint, NodeLayout
from services.orchestrator.core.facts.catalog import Catalog
from services.orchestrator.core.facts.explanation import Refusal
from services.orchestrator.core.facts.fleet import LayoutNews, LayoutReport, Partition
from services.orchestrator.core.rollout.bars import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    WAIT_LIMIT_S,
    LayoutMemory,
    watch_layouts,
    without_barred,
)
from services.orchestrator.core.state import NodeSight, Observation, State
from services.orchestrator.core.step import step
from tests.orchestrator.test_plan_boards import catalog, gpus
from tests.orchestrator.worlds import wish, world

SLICE = "mig/3g.40gb"


class Board:
    """One board behind the step function: takes layouts, except those with a slice that it will not make."""

    def __init__(self, *refused: str, news: LayoutNews = LayoutNews.REFUSED, code: str = "does_not_fit") -> None:
        whole = catalog()
        halves = Catalog(whole.variants, tuple(p for p in whole.profiles if p.partition_kind == SLICE))
        self.seen = Observation(deployments=(wish(rate=0.2),), catalog=halves)
        self.state, self.now_s = State(started_s=0.0), 0.0
        (self.node,) = gpus(boards=1)
        self.refused, self.news, self.code = refused, news, code
        self.foreign: tuple[str, ...] = ("mig/4g.40gb",)
        self.triggers: list[str] = []
        self.asked: list[tuple[str, ...]] = []

    def run(self, seconds: float, every_s: float = 1.0) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += every_s
            self._take(self.seen.blueprint)
            seen = replace(self.seen, nodes=(NodeSight(self.node, self.now_s, True),))
            self.state, effects = step(self.state, seen, self.now_s)
            for effect in effects:
                if isinstance(effect, Commit):
                    self.seen = replace(self.seen, blueprint=effect.plan.blueprint)
                    self.triggers.append(effect.trigger)
                    self.asked.append(_names(effect.plan.blueprint.layout_of("g0")))

    @property
    def places(self) -> list[str]:
        return [r.partition.partition_id.partition(":mig:")[2] for r in self.seen.blueprint.replicas]

    def _take(self, blueprint: Blueprint) -> None:
        layout = blueprint.layout_of("g0")
        news, code = LayoutNews.WELL, ""
        if layout and set(_names(layout)) & set(self.refused):
            news, code = self.news, self.code
        elif layout and layout.partitions:
            made = tuple(replace(p, uuid=f"MIG-{p.partition_id}") for p in layout.partitions)
            self.node = replace(self.node, devices=(replace(self.node.devices[0], partitions=made),))
        report = LayoutReport("GPU-0", news, blueprint.generation, code, "it will not", self.foreign)
        self.node = replace(self.node, layouts=(report,))


def _names(layout: NodeLayout | None) -> tuple[str, ...]:
    return tuple(p.partition_id.partition(":mig:")[2] for p in layout.partitions) if layout else ()


def test_a_refused_slice_is_planned_around_and_tried_again_when_others_change() -> None:
    board = Board("9@0", "9@4")
    board.run(10)
    assert board.places == [], "both places were refused, one after the other"
    assert {name for names in board.asked for name in names} >= {"9@0", "9@4"}
    (told,) = board.state.explanations
    assert (told.binding_limit, "it will not (refused" in told.summary) == (Refusal.QUARANTINED, True)
    assert any("layout of g0 GPU-0 failed: it will not (refused, failure 1" in words for words in board.triggers)
    asked = len(board.asked)
    board.run(20)
    assert len(board.asked) == asked, "not asked for again"
    board.refused, board.foreign = ("9@0",), ()
    board.run(10)
    assert board.places == ["9@4"], "the stranger has gone, which is reason enough"


def test_pauses_grow_and_have_a_limit() -> None:
    board = Board("9@0", "9@4", news=LayoutNews.RESTORED, code="no_permission")
    board.run(12 * LONGEST_PAUSE_S, every_s=FIRST_PAUSE_S / 4)
    tries = [bar.failures for bar in board.state.layouts.bars]
    asked = sum(bool(set(names) & {"9@0", "9@4"}) for names in board.asked)
    assert tries[0] == asked and 12 < asked < 20, "six tries in the first hour, then one an hour"


def test_another_slice_is_used_where_there_is_one() -> None:
    board = Board("9@0", code="holder_unknown", news=LayoutNews.BLOCKED)
    board.run(5)
    assert board.places == ["9@4"]


@pytest.mark.parametrize("code", ["reset_required", "driver_trouble"])
def test_trouble_of_the_board_itself_leaves_it_as_it_stands(code: str) -> None:
    board = Board("9@0", "9@4", news=LayoutNews.BLOCKED, code=code)
    board.run(10)
    assert [names for names in board.asked if names] == [("9@0",)], "once; then the plan without"
    assert board.places == []


def test_of_a_degraded_board_what_stands_is_planned_with() -> None:
    board = Board("9@0", news=LayoutNews.DEGRADED, code="no_room")
    left = Partition("GPU-0:mig:9@4", "GPU-0", SLICE, uuid="MIG-left", memory_bytes=40 << 30)
    board.refused = ("9@0", "9@4")
    board.run(2)
    board.node = replace(board.node, devices=(replace(board.node.devices[0], partitions=(left,)),))
    board.run(3)
    assert board.places == ["9@4"]
    assert _names(board.seen.blueprint.layout_of("g0")) == (), "it is told no layout, so it is left alone"


def test_a_holder_that_stays_is_waited_for_a_bounded_time_and_its_slice_is_kept() -> None:
    (node,) = gpus(boards=1)
    small = Partition("GPU-0:mig:19@0", "GPU-0", "mig/1g.10gb", uuid="MIG-small")
    half = Partition("GPU-0:mig:9@0", "GPU-0", SLICE)
    blueprint = Blueprint("bp-7", 7, "", layouts=(NodeLayout("g0", (half,)),))
    waiting = LayoutReport("GPU-0", LayoutNews.WAITING, 7, words="waits for pid 7")
    device = replace(node.devices[0], partitions=(small,))
    nodes = (replace(node, devices=(device,), layouts=(waiting,)),)
    memory = watch_layouts(LayoutMemory(), blueprint, nodes, 100.0)
    memory = watch_layouts(memory, blueprint, nodes, 99.0 + WAIT_LIMIT_S)
    assert without_barred(nodes, memory, 99.0 + WAIT_LIMIT_S) == nodes
    late_s = 100.0 + WAIT_LIMIT_S
    memory = watch_layouts(memory, blueprint, nodes, late_s)
    (limited,) = without_barred(nodes, memory, late_s)[0].devices
    assert (limited.barred, limited.kept) == (("GPU-0:mig:9@0",), ("GPU-0:mig:19@0",))
    assert "waits for pid 7 (waiting, failure 1" in limited.layout_trouble
    situation = world(nodes=(replace(nodes[0], devices=(limited,)),))
    assert "GPU-0:mig:9@0 could not be made lately" in " ".join(check(situation, blueprint, ()))
    assert without_barred(nodes, memory, late_s + FIRST_PAUSE_S) == nodes, "later it may be tried again"
