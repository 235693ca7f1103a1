"""A tiny compiled variant and agents; see `tests.node_agent.conftest`."""

from __future__ import annotations

from tests.node_agent.conftest import compiler, orchestrator, start_agent, tiny

__all__ = ["compiler", "orchestrator", "start_agent", "tiny"]
