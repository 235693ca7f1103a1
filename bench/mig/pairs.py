"""Every legal state × every target multiset, planned and checked; and what a plan costs in time. No GPU takes part.

    python -m bench.mig.pairs [--profiles plain|double-memory|all] [--every 1] [--no-gc]

`--every N` takes each Nth state. All slices of a state are live. The checker shares no code with the planner. `--no-gc`
leaves garbage collection out of the times: a collection of everything falls on some plan of a hundred thousand.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import time
from itertools import islice
from typing import Final

from services.node_agent.core.mig import Layout, Plan, Planner, Standing, Wanted, check_plan
from tests.mig.fixtures import A100_40, EXTENDED, PLAIN, only

# Plans that are timed again, to tell a slow plan from a disturbed clock.
SLOWEST: Final = 20
REPEATS: Final = 5
PROFILES: Final = {"plain": PLAIN, "double-memory": EXTENDED, "all": (*EXTENDED, "1g+me")}


def plan_all_pairs(planner: Planner, every: int) -> None:
    """Plans and checks all pairs, prints what was found and how long a plan takes on the process's own clock."""
    table = planner.space.table
    wishes = [planner.space.wanted(counts) for counts in planner.space.multisets()]
    took_s: list[float] = []
    slowest: list[tuple[float, int, Standing, Wanted]] = []
    illegal = destroyed = with_stop = moves = exclusive = 0
    alone = {profile.profile_id for profile in table.profiles if profile.instance_limit == 1}
    for before in islice(planner.space.layouts(), 0, None, every):
        standing = Standing(before, live=frozenset(before))
        for wish in wishes:
            begin = time.process_time()
            plan = planner.plan(standing, wish)
            took_s.append(time.process_time() - begin)
            slowest = heapq.nlargest(SLOWEST, [*slowest, (took_s[-1], len(took_s), standing, wish)])
            assert isinstance(plan, Plan), "every multiset of a legal layout fits an unpinned board"
            illegal += bool(check_plan(table, standing, wish, plan))
            destroyed += len(plan.destroyed)
            moves += len(plan.moves)
            stops = [move.source.profile_id for move in plan.moves if not move.made_before_break]
            with_stop += len(stops)
            exclusive += sum(profile_id in alone for profile_id in stops)
    took_s.sort()
    print(f"pairs {len(took_s)}, illegal {illegal}, destroyed {destroyed / len(took_s):.3f} per pair")
    print(f"moves {moves}, with a stop {with_stop}, {exclusive} of them since the profile is limited to one slice")
    print(
        f"time of a plan: median {1e3 * took_s[len(took_s) // 2]:.3f} ms, "
        f"p99 {1e3 * took_s[int(0.99 * len(took_s))]:.3f} ms, most {1e3 * took_s[-1]:.3f} ms"
    )
    again = max(_best_of(planner, standing, wish) for _, _, standing, wish in slowest)
    print(f"the slowest {len(slowest)} planned {REPEATS} times more, best of each: most {1e3 * again:.3f} ms")


def _best_of(planner: Planner, standing: Standing, wish: Wanted) -> float:
    """Seconds of the quickest repetition, which no garbage collection and no other process has part in."""
    took_s = []
    for _ in range(REPEATS):
        begin = time.process_time()
        planner.plan(standing, wish)
        took_s.append(time.process_time() - begin)
    return min(took_s)


def compare_disturbance(planner: Planner) -> None:
    """Mean destroyed over maximal layouts × maximal multisets, against clearing and against a fixed layout."""
    largest = list(planner.space.maximal_layouts())
    canonical: dict[tuple[tuple[int, int], ...], Layout] = {}
    for one in largest:
        canonical.setdefault(tuple(sorted(one.counts().items())), one)
    pairs = len(largest) * len(canonical)
    cleared = sum(len(before) for before in largest) * len(canonical)
    fixed = sum(len(set(before) - set(after)) for before in largest for after in canonical.values())
    ours = 0
    for before in largest:
        for target in canonical:
            plan = planner.plan(Standing(before, live=frozenset(before)), dict(target))
            assert isinstance(plan, Plan)
            ours += len(plan.destroyed)
    print(f"{len(largest)} maximal layouts × {len(canonical)} multisets, live slices destroyed per pair:")
    print(f"  clear all {cleared / pairs:.2f}, one fixed layout {fixed / pairs:.2f}, ours {ours / pairs:.2f}")


def main() -> None:
    """Builds the planner and runs both."""
    parser = argparse.ArgumentParser(description="all pairs of state and target")
    parser.add_argument("--profiles", choices=sorted(PROFILES), default="plain")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--no-gc", action="store_true")
    chosen = parser.parse_args()
    if chosen.no_gc:
        gc.disable()
    begin = time.process_time()
    planner = Planner(only(A100_40, *PROFILES[chosen.profiles]))
    built_ms = 1e3 * (time.process_time() - begin)
    print(f"{chosen.profiles}: {sum(1 for _ in planner.space.layouts())} states, built in {built_ms:.1f} ms")
    plan_all_pairs(planner, chosen.every)
    compare_disturbance(planner)


if __name__ == "__main__":
    main()
