"""A small cluster and a short real trace for tests of the simulator."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from services.orchestrator.core.facts.wish import Demand
from services.simulator.cluster import Cluster, parse_cluster
from services.simulator.devices.menu import Menu, build_menu
from services.simulator.devices.tables import Tables
from services.simulator.run import Case, Limits, demand_of
from services.simulator.scenario import Scenario
from services.simulator.trace import Trace, read_trace

HERE = Path(__file__).parent
TABLES, TRACE = HERE / "tables", HERE / "azure2023_conv_300.csv"
LIMITS = Limits(1.0, 0.05)


@lru_cache
def menu() -> tuple[Cluster, Menu]:
    """Two boards of each type."""
    devices = [{"type": "h100-sxm", "count": 2}, {"type": "a100-sxm", "count": 2}]
    cluster = parse_cluster({"model": "llama-3-8b", "devices": devices}, "small")
    return cluster, build_menu(Tables(TABLES), cluster.model, cluster.boards)


@lru_cache
def trace() -> Trace:
    """300 requests of a real minute."""
    return read_trace(TRACE)


def case(scenario: Scenario | None = None) -> Case:
    """The trace on the small cluster."""
    cluster, points = menu()
    return Case(cluster, points, trace(), LIMITS, look_s=2.0, scenario=scenario or Scenario())


def faulty(scenario: Scenario) -> Case:
    """The trace on boards of one type, so that it is known which node works: the first."""
    cluster = parse_cluster({"model": "llama-3-8b", "devices": [{"type": "h100-sxm", "count": 3}]}, "equal")
    points = build_menu(Tables(TABLES), cluster.model, cluster.boards)
    return Case(cluster, points, trace(), LIMITS, look_s=2.0, scenario=scenario)


def stated(of: Case) -> Demand:
    """What an operator who knows the busiest ten seconds would state; a minute is too short to learn from."""
    return demand_of(of.trace, 1.2 * of.trace.peak_per_s(10.0), of.trace.rate_per_s(0.0, of.trace.length_s))
