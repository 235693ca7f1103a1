"""Pure parts of the profiler: Pareto fronts, predictions, what to measure; by example and by property."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.profiler.core.front import pareto_points
from services.profiler.core.loads import Limits, check_request, choose_loads, default_prompts, spread
from services.profiler.core.pareto import dominates, on_front
from services.profiler.core.prediction import METHOD, CostModel
from tests.profiler import worlds
from tradewind.domain.errors import InvalidField
from tradewind.v1 import common_pb2, profiler_pb2

FOUR_SLOTS = Limits(context_tokens=512, decode_batches=(1, 4), slots=4)
COSTS = st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0])] * 3)


@given(st.lists(COSTS, max_size=25))
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, ...]]) -> None:
    flags = on_front(points, lambda p: p)
    for point, wins in zip(points, flags, strict=True):
        assert wins != any(dominates(other, point) for other in points)
    if points:
        assert any(flags)
    for point, wins in zip(points, flags, strict=True):
        if not wins:
            # Whatever is beaten is beaten by something on the front: the front alone tells all.
            assert any(dominates(o, point) for o, w in zip(points, flags, strict=True) if w)


@given(COSTS, COSTS, COSTS)
def test_dominance_is_a_strict_order(one: tuple[float, ...], two: tuple[float, ...], three: tuple[float, ...]) -> None:
    assert not dominates(one, one)
    assert not (dominates(one, two) and dominates(two, one))
    if dominates(one, two) and dominates(two, three):
        assert dominates(one, three)


def law_loads() -> list[profiler_pb2.LoadPoint]:
    return [worlds.load_point(p, c) for p, c in ((32, 1), (128, 1), (448, 1), (128, 4))]


def test_a_prediction_follows_the_law_and_says_what_it_rests_on() -> None:
    model = CostModel(law_loads(), (1, 4))
    inside, outside = model.predict(200, 16, 1), model.predict(900, 16, 1)
    assert (inside.method, outside.method) == ("interpolated", METHOD)
    for found, prompt in ((inside, 200), (outside, 900)):
        assert found.load.ttft.p50_ms == pytest.approx(worlds.ttft_ms(prompt, 1), rel=0.02)
        assert found.load.tpot.p50_ms == pytest.approx(worlds.tpot_ms(prompt, 1), rel=0.02)
        assert found.load.energy_per_token.source == common_pb2.FIGURE_SOURCE_MODELLED
        assert "cpu-linear@1" in found.load.energy_per_token.method


def test_between_compiled_batches_the_larger_function_is_paid() -> None:
    model = CostModel(law_loads(), (1, 4))
    two, four = model.predict(128, 12, 2).load, model.predict(128, 12, 4).load
    assert two.tpot.p50_ms == pytest.approx(four.tpot.p50_ms, rel=0.05)
    prefill_mj = worlds.ttft_ms(128, 1) * 20 / 12
    shared = [load.energy_per_token.energy_mj - prefill_mj for load in (two, four)]
    assert shared[0] == pytest.approx(2 * shared[1], rel=0.05)


def test_a_longer_answer_shares_its_prefill_among_more_tokens() -> None:
    model = CostModel(law_loads(), (1, 4))
    short, long = model.predict(200, 10, 1).load, model.predict(200, 100, 1).load
    prefill_mj = worlds.ttft_ms(200, 1) * 20
    saved = short.energy_per_token.energy_mj - long.energy_per_token.energy_mj
    assert saved == pytest.approx(prefill_mj / 10 - prefill_mj / 100, rel=0.05)


def test_an_unavailable_energy_stays_unavailable() -> None:
    loads = law_loads()
    for load in loads:
        load.energy_per_token.source = common_pb2.FIGURE_SOURCE_UNAVAILABLE
    found = CostModel(loads).predict(200, 12, 1).load
    assert found.energy_per_token.source == common_pb2.FIGURE_SOURCE_UNAVAILABLE


def test_the_error_is_small_on_the_law_and_unknown_with_too_few_points() -> None:
    grid = [worlds.load_point(p, c) for p in (16, 32, 64, 128, 256, 448) for c in (1, 4)]
    assert 0 <= CostModel(grid, (1, 4)).relative_error() < 0.02
    assert CostModel(law_loads()[:2]).relative_error() < 0
    crooked = [*law_loads(), worlds.load_point(256, 1, speed=0.2)]
    assert CostModel(crooked, (1, 4)).relative_error() > 0.2


PLACES = st.lists(
    st.tuples(st.integers(1, 4000), st.integers(1, 16), st.floats(0.1, 1e4), st.floats(0.1, 1e4)),
    min_size=1,
    max_size=8,
    unique_by=lambda t: t[:2],
)


def measured(prompt: int, concurrency: int, ttft: float, tpot: float) -> profiler_pb2.LoadPoint:
    load = worlds.load_point(prompt, concurrency)
    load.ttft.p50_ms, load.tpot.p50_ms = ttft, tpot
    return load


@given(PLACES, st.integers(1, 8000), st.integers(1, 16))
def test_whatever_was_measured_predictions_are_finite_and_exact_where_measured(
    places: list[tuple[int, int, float, float]], prompt: int, concurrency: int
) -> None:
    model = CostModel([measured(*p) for p in places], (1, 2, 4, 8, 16))
    for length, number, ttft, tpot in places:
        found = model.predict(length, 8, number)
        assert (found.method, found.load.ttft.p50_ms, found.load.tpot.p50_ms) == ("measured", ttft, tpot)
    anywhere = model.predict(prompt, 8, concurrency).load
    figures = (anywhere.ttft.p50_ms, anywhere.tpot.p50_ms, anywhere.energy_per_token.energy_mj, anywhere.tokens_per_s)
    assert all(math.isfinite(f) and f >= 0 for f in figures)


@given(st.floats(0.1, 50), st.floats(0.001, 2), st.integers(1, 2000))
def test_a_straight_line_is_found_again(fixed: float, slope: float, prompt: int) -> None:
    loads = [measured(p, 1, fixed + slope * p, fixed) for p in (16, 64, 256, 1024)]
    found = CostModel(loads).predict(prompt, 8, 1).load
    assert found.ttft.p50_ms == pytest.approx(fixed + slope * prompt, rel=1e-3)


def test_default_loads_are_few_and_hold_every_corner() -> None:
    loads = choose_loads(FOUR_SLOTS)
    assert {load.key for load in loads} == {(p, c) for p in (32, 128, 256) for c in (1, 4)}
    between = choose_loads(Limits(context_tokens=512, decode_batches=(1, 2, 4), slots=4))
    assert {load.key for load in between} - {load.key for load in loads} == {(128, 2)}
    # The demo's budget: two variants on two partition kinds at about 25 and 45 ms a token, 600 and 300 prompt tokens a
    # second; four sequences cost about twice a step. The agent's first round, which it does not count, comes on top.
    seconds = 0.0
    for step_s, prefill_per_s in ((0.025, 600), (0.045, 300)):
        for load in loads:
            step = step_s * (2 if load.concurrency > 1 else 1)
            run = load.prompt_tokens * load.concurrency / prefill_per_s + load.output_tokens * step
            seconds += 2 * run * (load.repeats + (load == loads[0]))
    assert seconds < 50


def test_prompts_asked_for_are_measured_with_every_concurrency() -> None:
    loads = choose_loads(FOUR_SLOTS, prompts=[64, 300], concurrencies=[1, 2])
    assert {load.key for load in loads} == {(64, 1), (300, 1), (64, 2), (300, 2)}
    assert {load.key for load in choose_loads(FOUR_SLOTS, prompts=[64])} == {(64, 1), (64, 4)}


@given(st.integers(0, 5000), st.sets(st.integers(1, 64), max_size=8), st.integers(0, 64))
def test_default_loads_always_fit(context: int, batches: set[int], slots: int) -> None:
    limits = Limits(context, tuple(sorted(batches)), slots)
    loads = choose_loads(limits)
    assert loads
    assert all(1 <= load.concurrency <= limits.most_sequences for load in loads)
    assert len({load.key for load in loads}) == len(loads)
    if context > 1:
        assert all(load.prompt_tokens + load.output_tokens <= context for load in loads)


def test_a_short_context_shortens_the_defaults() -> None:
    assert default_prompts(128) == [32, 118]
    assert default_prompts(0) == [32, 128, 256]


@given(st.lists(st.integers(), min_size=1, max_size=30, unique=True).map(sorted), st.integers(2, 6))
def test_spreading_keeps_both_ends(values: list[int], most: int) -> None:
    kept = spread(values, most)
    assert len(kept) == min(len(values), most)
    assert (kept[0], kept[-1]) == (values[0], values[-1])
    assert kept == sorted(set(kept))


@pytest.mark.parametrize(("prompts", "numbers"), [([0], []), ([], [0]), ([], [5000]), (list(range(1, 40)), [1, 2])])
def test_absurd_loads_are_refused(prompts: list[int], numbers: list[int]) -> None:
    with pytest.raises(InvalidField):
        check_request(prompts, numbers)


def test_an_energy_nobody_knows_wins_nothing() -> None:
    known = profiler_pb2.Profile(
        point=common_pb2.OperatingPoint(variant_id="a", batch_limit=4), loads=[worlds.load_point(128, 1)]
    )
    unknown = profiler_pb2.Profile(
        point=common_pb2.OperatingPoint(variant_id="b", batch_limit=4),
        loads=[worlds.load_point(128, 1, energy_mj=0)],
    )
    unknown.loads[0].energy_per_token.source = common_pb2.FIGURE_SOURCE_UNAVAILABLE
    variants = {v.variant_id: v for v in (worlds.variant("a", variant_id="a"), worlds.variant("b", variant_id="b"))}
    points = pareto_points([known, unknown], variants)
    assert {p.point.variant_id: p.on_front for p in points} == {"a": True, "b": False}


def test_points_are_compared_at_the_load_asked_for() -> None:
    profile = profiler_pb2.Profile(
        point=common_pb2.OperatingPoint(variant_id="a", batch_limit=4), loads=law_loads(), memory_bytes=5
    )
    variants = {"a": worlds.variant("a", variant_id="a")}
    at_load = pareto_points([profile], variants, prompt_tokens=256, concurrency=2)[0].load
    assert (at_load.prompt_tokens, at_load.concurrency) == (256, 2)
    assert pareto_points([profile], variants, concurrency=8) == []
    assert pareto_points([profile], {}) == []
