"""Nodes that are gone: when, how many are shown and for how long, and that they come back."""

from __future__ import annotations

from collections.abc import Collection

from services.orchestrator.departed import MOST_SHOWN, SHOWN_S
from services.orchestrator.links import FORGET_AFTER_S, Links
from tradewind.v1 import node_pb2

LATE_S = 6.0


class Nodes:
    """Links under a clock of our own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.links = Links(lambda: self.now_s, lambda: 1e9 + self.now_s, lambda _: None)

    def hear(self, name: str, *replicas: str, epoch: int = 1) -> node_pb2.NodeReport:
        """A report."""
        report = node_pb2.NodeReport(
            node_id=name, agent_epoch=epoch, replicas=[node_pb2.ReplicaStatus(replica_id=r) for r in replicas]
        )
        self.links.hear(self.links.open(), report)
        return report

    def after(self, silence_s: float, *, needed: Collection[str] = (), draining: Collection[str] = ()) -> list[str]:
        """Nodes that are gone after so long a silence."""
        self.now_s += silence_s
        self.links.forget(lambda: needed, draining, LATE_S)
        return [link.node.node_id for link in self.links.departed.all()]


def test_a_drained_node_is_gone_when_it_is_late_and_a_lost_one_after_an_hour() -> None:
    nodes = Nodes()
    for name, replicas in (("drained", ()), ("busy", ("r1",)), ("lost", ()), ("needed", ())):
        nodes.hear(name, *replicas)
    draining = ("drained", "busy")
    assert nodes.after(LATE_S, draining=draining) == []
    assert nodes.after(1.0, draining=draining) == ["drained"]
    assert nodes.links.get("drained") is None, "nothing is planned with it"
    assert nodes.after(FORGET_AFTER_S, needed=["needed"], draining=draining) == ["busy", "drained", "lost"]
    assert nodes.links.get("needed"), "its work has nowhere to go yet"


def test_a_node_that_reports_again_is_here_and_an_old_report_of_it_is_not_news() -> None:
    nodes = Nodes()
    last = nodes.hear("n1")
    assert nodes.after(7.0, draining=["n1"]) == ["n1"]
    nodes.links.overhear([last])
    assert nodes.links.get("n1") is None, "Redis keeps a report for some seconds"
    nodes.hear("n1", epoch=2)
    assert (nodes.after(0.0), nodes.links.get("n1") is not None) == ([], True)


def test_the_newest_are_shown_for_a_day() -> None:
    nodes = Nodes()
    for number in range(MOST_SHOWN + 5):
        nodes.hear(f"n{number:03}")
        nodes.after(7.0, draining=[f"n{number:03}"])
    shown = nodes.after(0.0)
    assert (len(shown), shown[0], shown[-1]) == (MOST_SHOWN, "n005", f"n{MOST_SHOWN + 4:03}")
    assert nodes.after(SHOWN_S - 50.0) == shown[-7:], "by when each was last seen"
    assert nodes.after(50.0) == []


def test_what_was_kept_is_shown_by_the_next_leader_for_the_rest_of_its_day() -> None:
    nodes, offset_s = Nodes(), 2e9
    last = nodes.hear("n1", epoch=3)
    assert nodes.after(7.0, draining=["n1"]) == ["n1"]
    kept = nodes.links.departed.kept()
    others = Nodes()
    # This one's clock began later.
    others.now_s = 1e9 + nodes.now_s - offset_s
    others.links.departed.restore(kept, offset_s)
    assert others.links.departed.kept() == kept
    others.links.overhear([last])
    assert others.links.get("n1") is None, "Redis keeps a report for some seconds"
    assert others.after(SHOWN_S - 10.0) == ["n1"]
    assert others.after(10.0) == [] and others.links.departed.kept() == ()
