"""Every legal state × every target: no illegal plan, none missed, none that disturbs more than it must."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

import pytest

from services.node_agent.core.mig import Layout, Plan, Planner, Refusal, RefusalReason, Standing, check_plan

from . import brute_force

# The full product of all profiles (2319 × 128) takes minutes; `bench/mig/pairs.py` runs it, this takes a sample of it.
SAMPLED_LAYOUTS = 12
SEED = 4


def check_pairs(planner: Planner, layouts: Sequence[Layout]) -> int:
    """Plans each layout, all of it live, to every multiset; returns how many pairs were checked."""
    table = planner.space.table
    candidates = brute_force.by_multiset(brute_force.all_layouts(table))
    pairs = 0
    for before in layouts:
        standing = Standing(before, live=frozenset(before))
        live = brute_force.seats_of(before)
        for target, others in candidates.items():
            plan = planner.plan(standing, dict(target))
            assert isinstance(plan, Plan), f"{before} to {target}: {plan}"
            assert check_plan(table, standing, dict(target), plan) == ()
            assert len(plan.live_destroyed) == brute_force.fewest_destroyed(others, live)
            pairs += 1
    return pairs


def test_every_plain_pair(plain: Planner) -> None:
    assert check_pairs(plain, list(plain.space.layouts())) == 298 * 38


def test_every_pair_of_a30(a30: Planner) -> None:
    assert check_pairs(a30, list(a30.space.layouts())) == 76 * 20


def test_sampled_pairs_with_double_memory(extended: Planner) -> None:
    some = random.Random(SEED).sample(list(extended.space.layouts()), SAMPLED_LAYOUTS)
    assert check_pairs(extended, some) == SAMPLED_LAYOUTS * 78


def test_sampled_pairs_with_all_profiles(whole: Planner) -> None:
    some = random.Random(SEED).sample(list(whole.space.layouts()), SAMPLED_LAYOUTS)
    assert check_pairs(whole, some) == SAMPLED_LAYOUTS * 128


def test_mean_destroyed_over_maximal_pairs(plain: Planner) -> None:
    """2.71 in the documentation looks for targets among maximal layouts; all legal ones allow 2.60."""
    largest = list(plain.space.maximal_layouts())
    maximal = brute_force.by_multiset(brute_force.seats_of(one) for one in largest)
    everything = brute_force.by_multiset(brute_force.all_layouts(plain.space.table))
    ours = among_all = among_maximal = 0
    for before, target in product(largest, maximal):
        live = brute_force.seats_of(before)
        plan = plain.plan(Standing(before, live=frozenset(before)), dict(target))
        assert isinstance(plan, Plan)
        best = brute_force.fewest_destroyed(everything[target], live)
        best_maximal = brute_force.fewest_destroyed(maximal[target], live)
        assert best is not None and best_maximal is not None
        assert len(plan.destroyed) == best
        ours += len(plan.destroyed)
        among_all += best
        among_maximal += best_maximal
    pairs = len(largest) * len(maximal)

    assert pairs == 19 * 14
    assert ours == among_all == 692
    assert ours / pairs <= 2.71
    assert round(among_maximal / pairs, 2) == 2.71


@pytest.mark.parametrize("pinned_share", [0.3, 0.7])
def test_with_pinned_slices_a_plan_is_found_exactly_when_there_is_one(plain: Planner, pinned_share: float) -> None:
    seeded = random.Random(SEED)
    candidates = brute_force.by_multiset(brute_force.all_layouts(plain.space.table))
    refused = 0
    for before in plain.space.layouts():
        pinned = frozenset(one for one in before if seeded.random() < pinned_share)
        standing = Standing(before, live=frozenset(before), pinned=pinned)
        live, fixed = brute_force.seats_of(before), brute_force.seats_of(Layout.of(pinned))
        for target, others in candidates.items():
            answer = plain.plan(standing, dict(target))
            best = brute_force.fewest_destroyed(others, live, fixed)
            if isinstance(answer, Refusal):
                refused += 1
                assert best is None
                assert answer.reason is RefusalReason.PINNED_IN_THE_WAY
                assert len(answer.in_the_way) == min(len(fixed - other) for other in others)
            else:
                assert len(answer.live_destroyed) == best
                assert check_plan(plain.space.table, standing, dict(target), answer) == ()
    assert refused > 1000


def test_every_multiset_that_does_not_fit_is_refused(plain: Planner) -> None:
    """All counts up to each profile's limit plus one: refused exactly when no layout has them."""
    table = plain.space.table
    fitting = brute_force.by_multiset(brute_force.all_layouts(table))
    ids = [profile.profile_id for profile in table.profiles]
    refused = 0
    for counts in product(*(range(profile.instance_limit + 2) for profile in table.profiles)):
        asked = dict(zip(ids, counts, strict=True))
        answer = plain.plan(Standing(Layout()), asked)
        assert isinstance(answer, Plan) == (brute_force.multiset(asked) in fitting)
        if isinstance(answer, Refusal):
            refused += 1
            assert answer.reason is RefusalReason.DOES_NOT_FIT
            rest = {one: asked[one] - answer.unplaced.get(one, 0) for one in ids}
            assert brute_force.multiset(rest) in fitting
            assert sum(answer.unplaced.values()) == sum(asked.values()) - max(
                sum(held.values()) for held in map(dict, fitting) if all(held[one] <= asked[one] for one in held)
            )
    assert refused > 1000
