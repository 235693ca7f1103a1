"""Choosing tokens: exact for greedy, right in distribution for the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.node_agent.core.draws import uniform
from services.node_agent.core.sampling import Choice, choose, log_probabilities
from tradewind.domain.errors import InvalidField

LOGITS = np.log(np.array([0.5, 0.25, 0.125, 0.0625, 0.0625], np.float32))


def shares(choice: Choice, draws: int = 4000) -> list[float]:
    counts = np.zeros(len(LOGITS))
    for i in range(draws):
        counts[choose(LOGITS, choice, uniform(choice.seed, i))] += 1
    return [float(c) / draws for c in counts]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(temperature=1.0), [0.5, 0.25, 0.125, 0.0625, 0.0625]),
        (Choice(temperature=0.5), [0.744, 0.186, 0.047, 0.012, 0.012]),
        (Choice(temperature=1.0, top_k=2), [2 / 3, 1 / 3, 0, 0, 0]),
        (Choice(temperature=1.0, top_p=0.74), [2 / 3, 1 / 3, 0, 0, 0]),
        (Choice(temperature=1.0, top_p=0.76), [0.571, 0.286, 0.143, 0, 0]),
        (Choice(temperature=1.0, top_k=3, top_p=0.5), [1.0, 0, 0, 0, 0]),
        (Choice(temperature=1.0, top_k=1), [1.0, 0, 0, 0, 0]),
    ],
)
def test_shares_are_those_of_the_distribution(choice: Choice, expected: list[float]) -> None:
    assert shares(choice) == pytest.approx(expected, abs=0.025)


def test_greedy_takes_the_likeliest_whatever_the_draw() -> None:
    assert {choose(LOGITS, Choice(), draw) for draw in (0.0, 0.5, 0.999)} == {0}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(2, 3000),
    top_k=st.sampled_from([0, 1, 5, 2000]),
    top_p=st.floats(0.01, 1.0),
    temperature=st.floats(0.05, 2.0),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_only_kept_tokens_are_chosen(
    seed: int, size: int, top_k: int, top_p: float, temperature: float, draw: float
) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)
    token = choose(logits, Choice(temperature=temperature, top_p=top_p, top_k=top_k), draw)
    order = np.argsort(-logits, kind="stable")[: top_k or size]
    weights = np.exp((logits[order].astype(np.float64) - logits.max()) / temperature)
    kept = int(np.searchsorted(np.cumsum(weights), top_p * weights.sum() * (1 + 1e-6))) + 1
    assert token in order[: kept + 1]


def test_log_probabilities_are_those_of_the_softmax() -> None:
    own, top = log_probabilities(LOGITS, 2, 3)
    assert np.exp(own) == pytest.approx(0.125, rel=1e-5)
    assert [t for t, _ in top] == [0, 1, 2]
    assert np.exp([v for _, v in top]) == pytest.approx([0.5, 0.25, 0.125], rel=1e-5)


def test_draws_are_uniform_and_depend_on_seed_and_place() -> None:
    draws = np.array([uniform(s, i) for s in range(50) for i in range(200)])
    assert len(set(draws.tolist())) == len(draws)
    assert draws.min() >= 0 and draws.max() < 1
    histogram, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert abs(histogram - 500).max() < 100
    assert uniform(2**64 + 3, 1) == uniform(3, 1)


@pytest.mark.parametrize("wrong", [{"temperature": 2.1}, {"temperature": -1}, {"top_p": 1.5}, {"top_logprobs": 21}])
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidField, match="sampling"):
        Choice(**wrong)  # type: ignore[arg-type]
