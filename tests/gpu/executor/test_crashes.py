"""Killed at every device call and every journal write of a set of plans: desired or previous, never an orphan."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.node_agent.core.mig.model import Layout
from services.node_agent.core.mig.space import LayoutSpace
from services.node_agent.gpu.executor.board import Planners
from tests.gpu.executor.crashes import Crashes
from tests.mig.fixtures import H100_80, PLAIN, only

# `bench/gpu/executor.py` runs all pairs.
PAIRS = 3


def pairs() -> Iterator[tuple[Layout, Layout]]:
    """Seeded pairs of maximal layouts, and the two ends: from and to an empty board."""
    full = list(LayoutSpace(only(H100_80, *PLAIN)).maximal_layouts())
    draw = random.Random(4)
    yield Layout(), draw.choice(full)
    yield draw.choice(full), Layout()
    for _ in range(PAIRS):
        before, after = draw.sample(full, 2)
        yield before, after


@pytest.mark.parametrize("torn_bytes", [None, 0, 9])
def test_killed_between_any_two_steps(tmp_path: Path, torn_bytes: int | None) -> None:
    planners, count = Planners(), 0
    for index, (before, after) in enumerate(pairs()):
        crashes = Crashes(tmp_path / str(index), planners, before, after)
        if torn_bytes is None:
            crashes.at_every_call()
        else:
            crashes.at_every_sync(torn_bytes)
        assert crashes.count >= len(set(before) ^ set(after)) * 2
        count += crashes.count
    assert count > 50
