"""Tokens chosen from the device's picks are those that all logits give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_agent.core.sampling import Choice, Picks, choose, choose_picked, picks_suffice
from tests.node_agent.cache_model import greedy, shapes
from tests.node_agent.test_engine import Bench, prompts

PICKS = 8


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    coarse=st.booleans(),
    top_k=st.integers(1, 64),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 1.0)),
    temperature=st.floats(0.0, 2.0),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_top_k_from_picks_is_top_k_from_everything(
    seed: int, coarse: bool, top_k: int, top_p: float, temperature: float, draw: float
) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, 500).astype(np.float32)
    logits = logits.round() if coarse else logits
    ids = np.argsort(-logits, kind="stable")[:64]
    choice = Choice(temperature=temperature, top_k=top_k, top_p=top_p)
    assert picks_suffice(choice, len(ids))
    assert choose_picked(Picks(logits[ids], ids), choice, draw) == choose(logits, choice, draw)


@pytest.mark.parametrize(
    ("choice", "enough"),
    [
        (Choice(), True),
        (Choice(temperature=1, top_k=PICKS), True),
        (Choice(temperature=1, top_k=PICKS + 1), False),
        (Choice(temperature=1), False),
        (Choice(temperature=1, top_p=0.5), False),
    ],
)
def test_other_choices_need_all_logits(choice: Choice, enough: bool) -> None:
    assert picks_suffice(choice, PICKS) == enough


def test_an_engine_asks_for_all_logits_only_where_they_are_needed() -> None:
    """The model gives none: a request that reads them ends the replica, the others do not see the difference."""
    bench = Bench(shapes(), picks=PICKS)
    bench.model.whole = False
    texts = prompts(4)
    callers = [bench.ask(i + 1, text, 12) for i, text in enumerate(texts)]
    assert [c.wait().tokens for c in callers] == [greedy(text, 12) for text in texts]
    seeded = Choice(temperature=1.0, top_k=5, seed=3)
    plain = Bench(shapes())
    assert bench.ask(9, texts[0], 12, seeded).wait().tokens == plain.ask(9, texts[0], 12, seeded).wait().tokens
    bench.model.whole = True
    wanted = bench.ask(10, texts[1], 6, Choice(logprobs=True, top_logprobs=2)).wait()
    assert [o.logprob is not None for o in wanted.outcomes] == [True] * 6
    free = Choice(temperature=1.0, seed=4)
    assert bench.ask(11, texts[2], 12, free).wait().tokens == plain.ask(11, texts[2], 12, free).wait().tokens
    for one in (bench, plain):
        one.engine.stop()
        assert not one.faults
