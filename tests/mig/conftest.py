"""Planners that several tests share; they are immutable, building one takes up to tens of milliseconds."""

from __future__ import annotations

import pytest

from services.node_agent.core.mig import Planner

from .fixtures import A30, A100_40, EXTENDED, PLAIN, only


@pytest.fixture(scope="session")
def plain() -> Planner:
    """An 8/7 board with 1g, 2g, 3g, 4g and 7g."""
    return Planner(only(A100_40, *PLAIN))


@pytest.fixture(scope="session")
def extended() -> Planner:
    """An 8/7 board with double-memory 1g besides."""
    return Planner(only(A100_40, *EXTENDED))


@pytest.fixture(scope="session")
def whole() -> Planner:
    """An 8/7 board with all its profiles, media extensions too."""
    return Planner(A100_40.table)


@pytest.fixture(scope="session")
def a30() -> Planner:
    """A 4/4 board with all its profiles."""
    return Planner(A30.table)
