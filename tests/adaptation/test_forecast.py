"""What is provisioned for: noise of independent requests is no burst, however unequal their prompts; bursts are."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from services.orchestrator.core.adaptation.forecast import Forecast, deviations, forecast
from services.orchestrator.core.adaptation.history import History, absorb
from services.orchestrator.core.facts.traffic import WINDOW_S, Window

RATE, SECONDS = 8.0, 3600.0
Prompt = Callable[[random.Random, float], float]


def equal(_chance: random.Random, _at_s: float) -> float:
    return 1000.0


def unequal(chance: random.Random, _at_s: float) -> float:
    """Exponential lengths, whose mean square is twice their squared mean."""
    return chance.expovariate(1 / 1000.0)


def long_at_times(_chance: random.Random, at_s: float) -> float:
    """Ten seconds of long prompts every four minutes."""
    return 8000.0 if at_s % 240.0 < 10.0 else 700.0


def seen(prompt: Prompt, rate: Callable[[float], float] = lambda _at_s: RATE, seed: int = 1) -> Forecast:
    """The forecast after an hour of Poisson arrivals."""
    chance = random.Random(seed)
    windows = []
    for number in range(int(SECONDS / WINDOW_S)):
        start_s, prompts, at_s = number * WINDOW_S, [], chance.expovariate(rate(number * WINDOW_S))
        while at_s < WINDOW_S:
            prompts.append(prompt(chance, start_s))
            at_s += chance.expovariate(rate(start_s))
        windows.append(
            Window(
                start_s,
                arrivals=len(prompts),
                prompt_tokens=sum(prompts),
                prompt_squares=sum(length**2 for length in prompts),
            )
        )
    return forecast(absorb(History(), windows), SECONDS)


@pytest.mark.parametrize("prompt", [equal, unequal])
@pytest.mark.parametrize("seed", range(5))
def test_independent_requests_are_no_burst_whatever_their_lengths(prompt: Prompt, seed: int) -> None:
    found = seen(prompt, seed=seed)
    assert RATE * 0.8 < found.mean_per_s < RATE * 1.2
    assert found.mean_per_s <= found.upper_per_s < RATE * 1.5


def test_a_few_seconds_of_long_prompts_are_a_burst_at_an_even_rate() -> None:
    assert seen(long_at_times).upper_per_s > RATE * 3.0


def test_a_few_seconds_of_many_requests_are_a_burst() -> None:
    assert seen(equal, lambda at_s: 60.0 if at_s % 240.0 < 10.0 else 5.0).upper_per_s > RATE * 3.0


@pytest.mark.parametrize(("spread_share", "beyond_share"), [(0.3, 0.01), (0.5, 0.001), (1.0, 0.002)])
def test_so_much_of_a_normal_load_lies_beyond_so_many_deviations(spread_share: float, beyond_share: float) -> None:
    provision = 1.0 + deviations(beyond_share, spread_share) * spread_share
    chance = random.Random(7)
    loads = [chance.gauss(1.0, spread_share) for _ in range(400_000)]
    beyond = sum(max(load - provision, 0.0) for load in loads) / len(loads)
    assert beyond == pytest.approx(beyond_share, rel=0.15)


def test_an_even_load_needs_no_deviations() -> None:
    assert deviations(0.002, 0.0) == deviations(0.002, 0.001) == 0.0


def test_noise_moves_the_level_little_and_a_change_at_once() -> None:
    """Half an hour of eight a second, then the same, or double, for two minutes."""
    levels = {}
    for after in (RATE, 2 * RATE):
        levels[after] = [
            seen(equal, lambda at_s, after=after: RATE if at_s < SECONDS - 120.0 else after, seed).mean_per_s
            for seed in range(8)
        ]
    assert max(levels[RATE]) - min(levels[RATE]) < 0.1 * RATE
    assert min(levels[2 * RATE]) > 1.5 * RATE
