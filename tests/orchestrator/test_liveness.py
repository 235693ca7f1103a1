"""The node state table, walked: every state × event, and the ways through it that matter."""

from __future__ import annotations

import itertools

import pytest

from services.orchestrator.core.facts.fleet import NodeState
from services.orchestrator.core.liveness import TABLE, NodeEvent, Patience, next_state

PATIENCE = Patience(suspect_after_s=6, lost_after_s=20)


def look(
    state: NodeState, age_s: float, *, drain: bool = False, busy: bool = True, connected: bool = True
) -> NodeState:
    return next_state(state, age_s=age_s, reported=True, connected=connected, drain=drain, busy=busy, patience=PATIENCE)


def test_every_pair_has_an_outcome() -> None:
    assert set(TABLE) == set(itertools.product(NodeState, NodeEvent))


@pytest.mark.parametrize("state", list(NodeState))
def test_from_every_state_reports_bring_it_back(state: NodeState) -> None:
    assert look(state, 0.0) in (NodeState.ACTIVE,)


@pytest.mark.parametrize("state", list(NodeState))
@pytest.mark.parametrize("drain", [True, False])
def test_silence_loses_it_from_every_state(state: NodeState, drain: bool) -> None:
    assert look(state, 20.1, drain=drain) is NodeState.LOST


def test_late_is_suspect_and_a_cut_stream_at_once() -> None:
    assert look(NodeState.ACTIVE, 5.9) is NodeState.ACTIVE
    assert look(NodeState.ACTIVE, 6.1) is NodeState.SUSPECT
    assert look(NodeState.ACTIVE, 0.1, connected=False) is NodeState.SUSPECT


def test_a_drain_survives_loss_and_ends_when_empty() -> None:
    state = look(NodeState.ACTIVE, 0, drain=True)
    assert state is NodeState.DRAINING
    assert look(state, 10, drain=True) is NodeState.DRAINING, "late and draining still gets no work"
    state = look(state, 30, drain=True)
    assert state is NodeState.LOST
    state = look(state, 0, drain=True)
    assert state is NodeState.DRAINING
    state = look(state, 0, drain=True, busy=False)
    assert state is NodeState.DRAINED
    assert look(state, 0, drain=False, busy=False) is NodeState.ACTIVE


def test_a_node_never_heard_of_is_waited_for_and_then_lost() -> None:
    def unheard(age_s: float) -> NodeState:
        return next_state(
            NodeState.JOINING, age_s=age_s, reported=False, connected=False, drain=False, busy=False, patience=PATIENCE
        )

    assert unheard(19) is NodeState.JOINING
    assert unheard(21) is NodeState.LOST
