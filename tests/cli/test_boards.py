"""Boards that are cut, as `tradewind top` and `tradewind nodes` tell them."""

from __future__ import annotations

import pytest

from tradewind.cli import boards
from tradewind.v1 import common_pb2, node_pb2


def report(**layout: object) -> node_pb2.NodeReport:
    names = (("9@4", "mig/3g.40gb"), ("19@0", "mig/1g.10gb"), ("19@1", "mig/1g.10gb"))
    partitions = [common_pb2.Partition(partition_id=f"G:mig:{at}", device_id="G", kind=kind) for at, kind in names]
    partitions.append(common_pb2.Partition(partition_id="cpu0:cores=0", device_id="cpu0", kind="cpu/1", cpu_ids=[0]))
    status = node_pb2.LayoutStatus(device_id="G", **layout)  # type: ignore[arg-type]
    return node_pb2.NodeReport(partitions=partitions, layouts=[status])


def test_slices_are_counted_by_kind_and_cores_are_not() -> None:
    assert boards.slices(report(), "G") == "2 × 1g.10gb, 3g.40gb"
    assert boards.slices(report(), "cpu0") == ""


@pytest.mark.parametrize(
    ("activity", "outcome", "words"),
    [
        ("NOTHING", "REACHED", ""),
        ("NOTHING", "REFUSED", "layout refused: the reason"),
        ("GOING_BACK", "REACHED", "layout going back: the activity"),
    ],
)
def test_trouble_with_a_layout_is_told(activity: str, outcome: str, words: str) -> None:
    told = report(
        activity=node_pb2.LayoutActivity.Value(f"LAYOUT_ACTIVITY_{activity}"),
        outcome=node_pb2.LayoutOutcome.Value(f"LAYOUT_OUTCOME_{outcome}"),
        words="the activity",
        outcome_words="the reason",
    )
    assert boards.trouble(told, "G").plain == words
    assert not boards.trouble(told, "cpu0")
