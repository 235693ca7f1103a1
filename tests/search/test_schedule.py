"""What a search decides: halving, budgets, reasons, and the same winners from the same measurements. Pure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.compiler.search.core.facts import WHOLE, Candidate, Cost, Fate, Measured, Trial
from services.compiler.search.core.front import pareto, rung_winners
from services.compiler.search.core.schedule import Plan, next_trials, verdicts

BOOK = tuple(
    Candidate(recipe, recipe.split("-")[0]) for recipe in ("f32-plain", "f32-tiled", "bf16-plain", "bf16-tiled", "w4")
)
PLAN = Plan(BOOK, model_layers=30, budget_s=300, width=2, measurable=True)


def measured(prefill: float, decode: float, memory_mib: int = 100, kl: float = 0.0) -> Measured:
    costs = (Cost("decode_b1", decode, 2 * decode), Cost("prefill_t64", prefill, 2 * prefill))
    return Measured(costs, memory_mib << 20, kl, "a desk")


# As a machine with AVX2 gave them: tiling helps nobody, w4 is fast and less exact.
RECORDED = {
    "f32-plain": (measured(60, 6), measured(620, 48, 848)),
    "f32-tiled": (measured(140, 12), measured(900, 80, 1700)),
    "bf16-plain": (measured(75, 8), measured(624, 44, 688, 7e-5)),
    "bf16-tiled": (measured(290, 39), measured(2900, 390, 1400, 7e-5)),
    "w4": (measured(30, 2), measured(300, 10, 300, 0.02)),
}


def play(plan: Plan, recorded: dict[str, tuple[Measured, Measured]], spent_s: float = 5.0) -> list[Trial]:
    """Runs a search on recorded measurements; a whole takes ten times as long as a probe."""
    trials: list[Trial] = []
    elapsed_s = 0.0
    while (step := next_trials(plan, trials, elapsed_s)).recipes:
        cost_s = spent_s * (10 if step.layers == WHOLE else 1)
        elapsed_s += cost_s
        for recipe in step.recipes:
            trials.append(Trial(recipe, step.layers, cost_s, recorded[recipe][step.layers == WHOLE]))
        assert len(trials) < 50, "a search that does not end"
    return trials


def fates(plan: Plan, trials: list[Trial]) -> dict[str, Fate]:
    return {verdict.recipe: verdict.fate for verdict in verdicts(plan, trials)}


def test_a_replay_gives_the_same_winners_in_whatever_order_it_is_told() -> None:
    trials = play(PLAN, RECORDED)
    assert {t.recipe for t in trials if t.layers == WHOLE} == {"f32-plain", "bf16-plain", "w4"}
    found = verdicts(PLAN, trials)
    assert {v.recipe: v.fate for v in found} == {
        "f32-plain": Fate.DOMINATED,
        "f32-tiled": Fate.SLOWER,
        "bf16-plain": Fate.KEPT,
        "bf16-tiled": Fate.SLOWER,
        "w4": Fate.KEPT,
    }
    assert verdicts(PLAN, trials[::-1]) == found
    by = {v.recipe: v.words for v in found}
    assert "bf16-plain is as good in everything and better in" in by["f32-plain"]
    assert "290.00 ms against 75.00" in by["bf16-tiled"]


def test_each_precision_is_probed_before_a_second_recipe_of_any() -> None:
    assert next_trials(PLAN, [], 0.0).recipes == ("f32-plain", "bf16-plain", "w4", "f32-tiled")
    assert fates(replace(PLAN, budget_s=60), play(replace(PLAN, budget_s=60), RECORDED))["w4"] is Fate.KEPT


def test_each_phase_sends_its_own_winner_on() -> None:
    seen = {"f32-plain": measured(60, 12), "f32-tiled": measured(90, 6), "w4": measured(30, 2)}
    assert [r for r, beaten in rung_winners(BOOK, seen).items() if beaten is None] == ["f32-tiled", "w4"], "half of all"
    four = seen | {"bf16-plain": measured(80, 9), "bf16-tiled": measured(81, 9.1)}
    winners = [r for r, beaten in rung_winners(BOOK, four).items() if beaten is None]
    assert winners == ["f32-tiled", "bf16-plain", "w4"], "equal but for noise: the first of the book"


def test_a_short_budget_still_builds_the_best_known_and_says_what_it_left() -> None:
    tight = replace(PLAN, budget_s=12)
    trials = play(tight, RECORDED)
    assert sum(t.layers == WHOLE for t in trials) >= 1
    left = [v for v in verdicts(tight, trials) if v.fate is Fate.OVER_BUDGET]
    assert left
    assert all("12 s" in v.words and "--budget" in v.words for v in left)
    remembered = replace(tight, candidates=tuple(sorted(BOOK, key=lambda c: c.recipe != "w4")))
    assert play(remembered, RECORDED)[0].recipe == "w4"
    assert fates(remembered, play(remembered, RECORDED))["w4"] is Fate.KEPT


def test_failures_keep_their_reason_and_the_rest_goes_on() -> None:
    crashed = Trial("w4", 2, 1.0, None, Fate.CRASH, "was ended by signal 11")
    trials = [crashed, *(Trial(c.recipe, 2, 1.0, RECORDED[c.recipe][0]) for c in BOOK if c.recipe != "w4")]
    step = next_trials(PLAN, trials, 10)
    assert (step.layers, set(step.recipes)) == (WHOLE, {"f32-plain", "bf16-plain"})
    (verdict,) = [v for v in verdicts(PLAN, trials) if v.recipe == "w4"]
    assert (verdict.fate, verdict.words) == (Fate.CRASH, "was ended by signal 11")


def test_when_all_winners_fail_whole_who_was_beaten_gets_its_chance() -> None:
    probes = [Trial(c.recipe, 2, 1.0, RECORDED[c.recipe][0]) for c in BOOK]
    winners = ("f32-plain", "bf16-plain", "w4")
    wrong = [Trial(recipe, WHOLE, 9.0, None, Fate.WRONG_ANSWERS, "garbage") for recipe in winners]
    assert next_trials(PLAN, [*probes, *wrong], 40.0).recipes == ("f32-tiled",)
    last = Trial("f32-tiled", WHOLE, 9.0, RECORDED["f32-tiled"][1])
    assert next_trials(PLAN, [*probes, *wrong, last], 50.0).recipes == ()
    assert fates(PLAN, [*probes, *wrong, last])["f32-tiled"] is Fate.KEPT


def test_without_a_device_one_whole_is_built_and_the_next_only_when_it_fails() -> None:
    plan = replace(PLAN, measurable=False, cuttable=False)
    assert next_trials(plan, [], 0.0).recipes == ("f32-plain",)
    failed = Trial("f32-plain", WHOLE, 30.0, None, Fate.COMPILE_ERROR, "refused")
    assert next_trials(plan, [failed], 30.0).recipes == ("f32-tiled",)
    built = [failed, Trial("f32-tiled", WHOLE, 30.0, Measured())]
    assert next_trials(plan, built, 60.0).recipes == ()
    assert fates(plan, built) == {
        "f32-plain": Fate.COMPILE_ERROR,
        "f32-tiled": Fate.KEPT,
        "bf16-plain": Fate.UNMEASURED,
        "bf16-tiled": Fate.UNMEASURED,
        "w4": Fate.UNMEASURED,
    }


TIMES = st.floats(0.1, 1000)


@given(st.lists(st.tuples(TIMES, TIMES, st.integers(1, 4000), st.floats(0, 1)), min_size=5, max_size=5))
def test_nobody_kept_dominates_another_and_somebody_is_kept(drawn: list[tuple[float, float, int, float]]) -> None:
    seen = {c.recipe: measured(*figures) for c, figures in zip(BOOK, drawn, strict=True)}
    answer = pareto(BOOK, seen)
    kept = [recipe for recipe, beaten in answer.items() if beaten is None]
    assert kept
    assert all(beaten is None or beaten.by in kept for beaten in answer.values())
    fastest = min(seen, key=lambda r: seen[r].time_ms("prefill_t64") * seen[r].time_ms("decode_b1"))
    assert fastest in kept


@given(st.integers(1, 96), st.floats(0, 3000), st.floats(0.1, 500), st.booleans())
def test_every_search_ends_and_tells_of_every_candidate(
    layers: int, budget_s: float, spent_s: float, measurable: bool
) -> None:
    plan = replace(PLAN, model_layers=layers, budget_s=budget_s, measurable=measurable)
    trials = play(plan, RECORDED, spent_s)
    assert [v.recipe for v in verdicts(plan, trials)] == [c.recipe for c in BOOK]
    assert Fate.KEPT in fates(plan, trials).values()


@pytest.mark.parametrize(("layers", "rungs"), [(2, (WHOLE,)), (30, (2, WHOLE)), (64, (2, 16, WHOLE))])
def test_deep_models_are_tried_on_more_rungs(layers: int, rungs: tuple[int, ...]) -> None:
    assert replace(PLAN, model_layers=layers).rungs == rungs
