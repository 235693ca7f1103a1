"""Decisions made again from what was kept: the same action, and any other one is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.orchestrator.core.asking import Asked
from services.orchestrator.core.effects import Commit, Effect
from services.orchestrator.core.memo import Unreadable
from services.orchestrator.core.replay import Look, answer_of, decide_again, read, written
from services.orchestrator.core.state import Observation, State
from services.orchestrator.core.step import step
from services.orchestrator.journal import MOST_BYTES, KeptInputs, inputs_of, kept_inputs
from services.orchestrator.replays import made_again
from tests.adaptation.house import House, one_point_each
from tests.orchestrator.worlds import slo, wish, world
from tradewind.v1 import orchestrator_pb2


class Witness(House):
    """Keeps the inputs of every decision."""

    def __init__(self) -> None:
        super().__init__(lambda t: 0.5 if t < 100 else 3.0, deployments=(wish(rate=0.5, slo=slo(ttft=400)),))
        self.kept: list[tuple[Look, Commit]] = []

    def decide(self, state: State, seen: Observation, now_s: float) -> tuple[State, tuple[Effect, ...]]:
        after, effects = step(state, seen, now_s)
        self.kept += [(Look(state, seen, now_s), effect) for effect in effects if isinstance(effect, Commit)]
        return after, effects


def test_every_decision_comes_out_the_same_and_another_one_is_found() -> None:
    house = Witness()
    house.run(140)
    assert len(house.kept) >= 2
    for look, commit in house.kept:
        kept = kept_inputs(look, commit.plan)
        assert kept is not None and len(kept.data) < MOST_BYTES / 100
        assert inputs_of(kept) == look, "nothing is lost in writing"
        assert made_again(kept, commit.trigger) == (orchestrator_pb2.REPLAY_OUTCOME_SAME, ())
    look, commit = house.kept[-1]
    kept = kept_inputs(look, commit.plan)
    assert kept
    outcome, words = made_again(kept, "something else")
    assert outcome == orchestrator_pb2.REPLAY_OUTCOME_DIFFERENT and "would be set off by" in words[0]
    # Today's code would see another world: as if the rule that made the plan had changed.
    other = replace(look, seen=replace(look.seen, catalog=one_point_each("slow")))
    kind, text = written(other)
    changed = decide_again(read(kind, text))
    assert changed.plan is None or answer_of(changed.plan) != kept.answer


def test_what_was_asked_for_is_made_again() -> None:
    asked = Asked(world(wish(slo=slo(ttft=400)), catalog=one_point_each("fast", "lean")))
    again = decide_again(asked)
    assert again.plan
    kept = kept_inputs(asked, again.plan)
    assert kept and made_again(kept, "deployment chat created")[0] == orchestrator_pb2.REPLAY_OUTCOME_SAME


def test_inputs_that_do_not_fit_say_so() -> None:
    with pytest.raises(Unreadable):
        read("Look", '[["no", "such", "thing"]]')
    outcome, words = made_again(KeptInputs("Look", "", b"not zlib"), "")
    assert outcome == orchestrator_pb2.REPLAY_OUTCOME_NOT_POSSIBLE and "damaged" in words[0]
    assert made_again(None, "")[1] == ("its inputs are not kept",)
