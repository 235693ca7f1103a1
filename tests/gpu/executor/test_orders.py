"""Old wishes, reboots, and what a journal survives."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from services.node_agent.core.mig.goal import Order, Wish
from services.node_agent.core.mig.ledger import Outcome
from services.node_agent.core.mig.model import Layout
from services.node_agent.gpu.executor.board import Planners
from services.node_agent.gpu.executor.journal import Journal, JournalDamaged
from services.node_agent.gpu.simulated import Fault, FaultKind
from tests.gpu.executor.bench import Bench
from tests.mig.fixtures import layout, wanted
from tradewind.domain.errors import GenerationConflict, InUse, StaleGeneration

BEFORE, AFTER = "3g.40gb@4 1g.10gb@0", "4g.40gb@0 3g.40gb@4"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_no_older_wish_is_ever_taken(bench: Bench) -> None:
    """Every older order, shuffled and repeated, before and after a restart; 0 are accepted."""
    draw = random.Random(7)
    newest = Order(3, 5, 2)
    texts = [BEFORE, AFTER]
    at_newest = bench.wish(layout(bench.table, AFTER), 5, 3, 2)
    assert bench.reach(at_newest) is Outcome.REACHED
    older = [Order(f, g, s) for f in range(5) for g in range(7) for s in range(4) if Order(f, g, s) < newest] * 2
    draw.shuffle(older)
    for index, order in enumerate(older):
        if index == len(older) // 2:
            bench.start()
        text = layout(bench.table, draw.choice(texts))
        with pytest.raises(StaleGeneration, match="older than"):
            bench.executor.want(bench.wish(text, order.generation, order.fencing, order.step))
        bench.executor.turn()
    assert bench.layout == layout(bench.table, AFTER)
    bench.executor.want(at_newest)
    with pytest.raises(GenerationConflict, match="differ"):
        bench.executor.want(bench.wish(layout(bench.table, BEFORE), 5, 3, 2))


def test_a_new_wish_in_the_middle_of_a_change_wins(bench: Bench) -> None:
    bench.reach(bench.wish(layout(bench.table, BEFORE)))
    bench.executor.want(bench.wish(layout(bench.table, "7g.80gb@0"), 2))
    for _ in range(3):
        bench.executor.turn()
    assert bench.layout != layout(bench.table, BEFORE)
    assert bench.reach(bench.wish(layout(bench.table, AFTER), 3)) is Outcome.REACHED
    assert bench.layout == layout(bench.table, AFTER)


def test_kinds_without_places_go_where_they_disturb_least(bench: Bench) -> None:
    bench.reach(bench.wish(layout(bench.table, BEFORE)))
    kept = dict(bench.uuids)
    counts = wanted(bench.table, "3g.40gb 1g.10gb 2g.20gb")
    assert bench.reach(Wish(Order(1, 2), True, tuple(sorted(counts.items())))) is Outcome.REACHED
    assert kept.items() <= bench.uuids.items()


@pytest.mark.parametrize(
    ("text", "words"), [("4g.40gb@4", "cannot lie there"), ("7g.80gb@0 1g.10gb@0", "overlap"), ("1g.10gb@9", "cannot")]
)
def test_places_that_cannot_be_are_refused_with_the_reason(bench: Bench, text: str, words: str) -> None:
    assert bench.reach(bench.wish(layout(bench.table, text))) is Outcome.REFUSED
    last = bench.executor.state.last
    assert last is not None
    assert words in last.words


@pytest.mark.parametrize("product", ["h100-80", "a100-80"])
def test_after_a_reboot_the_board_is_as_it_was(tmp_path: Path, product: str) -> None:
    """Hopper forgets its mode, Ampere keeps it; slices of both are gone and come back, also of a change half done."""
    bench = Bench(tmp_path, product)
    if product == "a100-80":
        bench.machine.board(bench.uuid).set_mode(True)
    text = "3g.40gb@4 1g.10gb@0"
    assert bench.reach(bench.wish(layout(bench.table, text))) is Outcome.REACHED
    bench.machine.reboot()
    assert bench.layout == Layout()
    bench.start()
    bench.run()
    assert bench.layout == layout(bench.table, text)
    assert bench.orphans == []
    bench.executor.want(bench.wish(layout(bench.table, "7g.80gb@0"), 2))
    for _ in range(4):
        bench.executor.turn()
    bench.machine.reboot()
    bench.start()
    bench.run()
    assert bench.layout == layout(bench.table, "7g.80gb@0")


def test_a_slice_made_unheard_leaves_nothing_behind(bench: Bench) -> None:
    """The reply of a create is lost and it fails for good then: the slice that exists is found by reading again."""
    bench.machine.inject(Fault(FaultKind.LOST_REPLY, verb="create_gpu_instance"))
    bench.machine.inject(Fault(FaultKind.TROUBLE, verb="create_compute_instance", times=2))
    assert bench.reach(bench.wish(layout(bench.table, "3g.40gb@4"))) is Outcome.RESTORED
    assert bench.layout == Layout()
    assert bench.reach(bench.wish(layout(bench.table, "3g.40gb@4"), 2)) is Outcome.REACHED


def test_a_journal_has_one_writer(bench: Bench) -> None:
    with pytest.raises(InUse, match="one agent"):
        Journal(bench.folder / "board.journal")


def test_a_journal_loses_at_most_its_last_line(bench: Bench) -> None:
    """Cut at every byte it opens, and the board converges; changed in the middle it is refused, whole."""
    bench.reach(bench.wish(layout(bench.table, BEFORE)))
    path = bench.folder / "board.journal"
    bench.executor.close()
    data = path.read_bytes()
    before = Journal(path)
    ledger = before.ledger
    before.close()
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        Journal(path).close()
        assert data.startswith(path.read_bytes())
    for position in range(10, data.rindex(b"\n", 0, -1), 97):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(JournalDamaged, match="line"):
            Journal(path)
    path.write_bytes(data)
    again = Journal(path)
    assert again.ledger == ledger
    again.close()


def test_a_journal_stays_bounded(tmp_path: Path) -> None:
    """A thousand records of churn fit a small file, and the sum of it survives."""
    planners = Planners()
    bench = Bench(tmp_path, sync=lambda _file: None, planners=planners, longest_bytes=4 << 10)
    for generation in range(1, 40):
        text = BEFORE if generation % 2 else AFTER
        assert bench.reach(bench.wish(layout(bench.table, text), generation)) is Outcome.REACHED
        assert (tmp_path / "board.journal").stat().st_size < 8 << 10
    bench.start()
    bench.run()
    assert bench.executor.state.order == Order(1, 39)
    assert bench.executor.state.foreign == ()
