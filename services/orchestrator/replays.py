"""Replays of the journal: each decision made again in a thread, compared with what was decided."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from services.orchestrator.core.memo import Unreadable
from services.orchestrator.core.planning.report import differences
from services.orchestrator.core.replay import Look, answer_of, decide_again
from services.orchestrator.journal import KeptInputs, find_inputs, inputs_of
from services.orchestrator.records import Records, decisions
from tradewind.v1 import orchestrator_pb2

# What is left of a deadline when no further decision is begun: the largest plan takes about as long.
LEAST_LEFT_S: Final = 3.0
_SAME: Final = orchestrator_pb2.REPLAY_OUTCOME_SAME
_DIFFERENT: Final = orchestrator_pb2.REPLAY_OUTCOME_DIFFERENT
_NOT_POSSIBLE: Final = orchestrator_pb2.REPLAY_OUTCOME_NOT_POSSIBLE


class Replays:
    """Makes decisions again.

    Args:
        records: the journal.
        now_s: monotonic clock.
    """

    def __init__(self, records: Records, now_s: Callable[[], float]) -> None:
        self._records, self._now_s = records, now_s

    async def replay(
        self, deployment_id: str, count: int, time_left_s: float
    ) -> orchestrator_pb2.ReplayDecisionsResponse:
        """The newest decisions, made again; those that the deadline leaves no time for are left out."""
        end_s = self._now_s() + time_left_s - LEAST_LEFT_S
        async with self._records.read() as session:
            found = [decision for _, decision in await decisions(session, deployment_id, None, count)]
        replays: list[orchestrator_pb2.Replay] = []
        for decision in found:
            if replays and self._now_s() > end_s:
                break
            async with self._records.read() as session:
                kept = (await find_inputs(session, [decision.decision_id])).get(decision.decision_id)
            outcome, words = await asyncio.to_thread(made_again, kept, decision.trigger)
            replays.append(
                orchestrator_pb2.Replay(
                    decision_id=decision.decision_id,
                    create_time=decision.create_time,
                    trigger=decision.trigger,
                    outcome=outcome,
                    differences=words,
                )
            )
        return orchestrator_pb2.ReplayDecisionsResponse(replays=replays)


def made_again(
    kept: KeptInputs | None, trigger: str
) -> tuple[orchestrator_pb2.ReplayOutcome.ValueType, tuple[str, ...]]:
    """How one decision comes out today, and what is otherwise."""
    if kept is None:
        return _NOT_POSSIBLE, ("its inputs are not kept",)
    try:
        inputs = inputs_of(kept)
    except Unreadable as error:
        return _NOT_POSSIBLE, (str(error),)
    again = decide_again(inputs)
    if again.plan is None:
        return _DIFFERENT, ("nothing would be decided",)
    words: list[str] = []
    if isinstance(inputs, Look) and again.trigger != trigger:
        words.append(f"it would be set off by: {again.trigger}")
    if answer_of(again.plan) != kept.answer:
        parent = inputs.seen.blueprint if isinstance(inputs, Look) else inputs.situation.parent
        words += ["another plan would be made:", *differences(parent, again.plan.blueprint, {})]
    return (_DIFFERENT, tuple(words)) if words else (_SAME, ())
