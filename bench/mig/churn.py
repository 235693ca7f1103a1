"""How often a request is refused although enough is free, for ways to choose the start. Nothing here runs on a GPU.

One 8/7 board, plain profiles, all equally likely. Each step brings a request for one profile, with the chance named
load, or else a random slice leaves. A request that finds no legal start while free memory and compute slices would do
is refused *for fragmentation*. Seeded: the same seed draws the same requests for every policy.

    python -m bench.mig.churn [--steps 20000] [--seeds 8]
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.node_agent.core.mig import DeviceTable, Layout, Placement, Plan, Planner, Slice, Standing
from tests.mig.fixtures import A100_40, PLAIN, only

# Chance that a step brings a request. At a half the board is seldom full, at three quarters nearly always.
LOADS: Final = (0.5, 0.6, 0.75)

Chooser = Callable[[Planner, Layout, tuple[Placement, ...], random.Random], Placement]


@dataclass
class Tally:
    """What came of the requests of one run."""

    requests: int = 0
    accepted: int = 0
    no_room: int = 0
    fragmented: int = 0
    moved: int = 0

    @property
    def fragmented_share(self) -> float:
        """Requests refused although enough was free."""
        return self.fragmented / self.requests


def first_fit(_planner: Planner, _layout: Layout, starts: tuple[Placement, ...], _rng: random.Random) -> Placement:
    """The lowest start."""
    return min(starts)


def last_fit(_planner: Planner, _layout: Layout, starts: tuple[Placement, ...], _rng: random.Random) -> Placement:
    """The highest start."""
    return max(starts)


def any_fit(_planner: Planner, _layout: Layout, starts: tuple[Placement, ...], rng: random.Random) -> Placement:
    """A random start."""
    return rng.choice(sorted(starts))


def most_open(_planner: Planner, _layout: Layout, starts: tuple[Placement, ...], _rng: random.Random) -> Placement:
    """The planner's own choice: it keeps most starts open for what comes."""
    return starts[0]


CHOOSERS: Final[dict[str, Chooser]] = {
    "random": any_fit,
    "last fit": last_fit,
    "first fit": first_fit,
    "most starts kept open (ours)": most_open,
}


def churn(planner: Planner, choose: Chooser, seed: int, steps: int, load: float, *, repartition: bool = False) -> Tally:
    """Runs one board through arrivals and departures.

    Args:
        planner: of the board.
        choose: how a start is chosen among free ones.
        seed: of requests, departures and the random chooser.
        steps: arrivals and departures together.
        load: chance that a step brings a request.
        repartition: when no start is free, live slices may be moved to make one.
    """
    events, private = random.Random(seed), random.Random(seed + 1)
    table, layout, tally = planner.space.table, Layout(), Tally()
    ids = [profile.profile_id for profile in table.profiles]
    for _ in range(steps):
        arrival, profile_id, leaver = events.random() < load, events.choice(ids), events.random()
        if not arrival:
            layout = _without(layout, leaver)
            continue
        tally.requests += 1
        starts = planner.starts(layout, profile_id)
        if starts:
            place = choose(planner, layout, starts, private)
            layout = Layout.of([*layout, Slice(place.start, place.size, profile_id)])
            tally.accepted += 1
        elif not _enough_free(table, layout, profile_id):
            tally.no_room += 1
        else:
            layout = _repartitioned(planner, layout, profile_id, tally) if repartition else layout
            tally.fragmented += not repartition
    return tally


def _repartitioned(planner: Planner, layout: Layout, profile_id: int, tally: Tally) -> Layout:
    answer = planner.admit(Standing(layout, live=frozenset(layout)), profile_id)
    if not isinstance(answer, Plan):
        tally.fragmented += 1
        return layout
    tally.accepted += 1
    tally.moved += len(answer.live_destroyed)
    return answer.after


def _without(layout: Layout, leaver: float) -> Layout:
    """Takes out the slice that a number in [0, 1) points at, in order of profile and start."""
    if not layout.slices:
        return layout
    by_profile = sorted(layout, key=lambda one: (one.profile_id, one.start))
    gone = by_profile[int(leaver * len(by_profile))]
    return Layout.of(one for one in layout if one != gone)


def _enough_free(table: DeviceTable, layout: Layout, profile_id: int) -> bool:
    one = {profile_id: 1}
    free_memory = table.memory_slices - sum(each.size for each in layout)
    free_compute = table.compute_slices - table.compute_slices_of(layout.counts())
    return free_memory >= table.memory_slices_of(one) and free_compute >= table.compute_slices_of(one)


def main() -> None:
    """Prints a table row for each policy at each load."""
    parser = argparse.ArgumentParser(description="refusals for fragmentation under churn")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=8)
    chosen = parser.parse_args()
    planner = Planner(only(A100_40, *PLAIN))
    print(f"8/7 board, plain profiles, {chosen.seeds} seeds × {chosen.steps} steps")
    print("| load | start | refused for fragmentation (least–most of a seed) | accepted | live slices moved for each |")
    print("|---|---|---|---|---|")
    for load in LOADS:
        for name, choose in CHOOSERS.items():
            runs = [churn(planner, choose, seed, chosen.steps, load) for seed in range(chosen.seeds)]
            print(_row(load, name, runs), flush=True)
        runs = [churn(planner, most_open, seed, chosen.steps, load, repartition=True) for seed in range(chosen.seeds)]
        print(_row(load, "ours, and live slices may move", runs), flush=True)


def _row(load: float, name: str, runs: list[Tally]) -> str:
    shares = [100 * run.fragmented_share for run in runs]
    accepted = sum(run.accepted for run in runs)
    accepted_share = 100 * accepted / sum(run.requests for run in runs)
    moved = sum(run.moved for run in runs) / accepted
    spread = f"{min(shares):.2f}–{max(shares):.2f}"
    return f"| {load} | {name} | {statistics.mean(shares):.2f} % ({spread}) | {accepted_share:.2f} % | {moved:.3f} |"


if __name__ == "__main__":
    main()
