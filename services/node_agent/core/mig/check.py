"""Checks a plan by replaying it on a board of memory seats. Shares no code with the planner, only its data.

Where the planner looks layouts up in an enumeration, this replays each step on a row of seats and counts; where the
planner trusts that parts of legal layouts are legal, this looks after every step. Used before a plan is committed,
before it is run, and in every simulation. Must not import `space`, `order`, `planner` or `refusals`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from .model import DeviceTable, Layout, Slice, Standing, Wanted
from .plan import Action, Plan, Step


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a plan breaks.

    Attributes:
        step: index of the step after which it shows, None when it is the plan as a whole.
        message: what is wrong.
    """

    step: int | None
    message: str


def check_plan(table: DeviceTable, standing: Standing, wanted: Wanted, plan: Plan) -> tuple[Violation, ...]:
    """Every rule that the plan breaks; none means that it leads from what stands to exactly the wanted slices.

    Args:
        table: profiles and placements as the device reports them.
        standing: what is on the board, read from the device and not from the plan.
        wanted: slices by profile id.
        plan: what to check.
    """
    replay = _Replay(table, standing)
    replay.run(plan)
    asked = {profile_id: count for profile_id, count in wanted.items() if count}
    if replay.counts() != asked:
        replay.note(None, f"ends with {replay.counts()}, wanted is {asked}")
    return tuple(replay.violations)


def check_admission(table: DeviceTable, standing: Standing, profile_id: int, plan: Plan) -> tuple[Violation, ...]:
    """Every rule that a plan to add one slice breaks: it must come, and no work may lose its kind of slice."""
    replay = _Replay(table, standing)
    replay.run(plan)
    least = Counter(one.profile_id for one in standing.live | standing.pinned)
    most = Counter(one.profile_id for one in standing.layout)
    most[profile_id] += 1
    least[profile_id] = most[profile_id]
    after = Counter(replay.counts())
    if not least <= after <= most:
        replay.note(None, f"ends with {dict(after)}, at least {dict(least)} and at most {dict(most)} is asked")
    return tuple(replay.violations)


class _Replay:
    """A board of memory seats on which steps are tried."""

    def __init__(self, table: DeviceTable, standing: Standing) -> None:
        self._profiles: Final = {profile.profile_id: profile for profile in table.profiles}
        self._compute_limit: Final = table.compute_slices
        self._engine_limits: Final = table.engine_limits
        self._standing: Final = standing
        self._seats: Final[list[Slice | None]] = [None] * table.memory_slices
        self._with_compute: Final[set[Slice]] = set()
        self._destroyed: Final[set[Slice]] = set()
        self._created: Final[set[Slice]] = set()
        self.violations: Final[list[Violation]] = []
        for one in standing.layout:
            self._occupy(None, one)
        self._with_compute.update(set(standing.layout) - standing.bare)
        self._look(None)

    def note(self, step: int | None, message: str) -> None:
        """Records a violation."""
        self.violations.append(Violation(step, message))

    def counts(self) -> dict[int, int]:
        """Slices on the board by profile id."""
        return dict(Counter(one.profile_id for one in self._present()))

    def run(self, plan: Plan) -> None:
        """Replays the plan's steps and compares the end with what the plan says of itself."""
        if plan.before != self._standing.layout:
            self.note(None, "starts from another layout than the one that stands")
        for index, step in enumerate(plan.steps):
            self._take(index, step)
            self._look(index)
        self._look_at_end(plan)

    def _take(self, index: int, step: Step) -> None:
        one = step.slice
        if one in self._standing.pinned:
            self.note(index, f"touches pinned {one}")
        match step.action:
            case Action.CREATE_GPU:
                self._created.add(one)
                self._occupy(index, one)
            case Action.CREATE_COMPUTE:
                if one not in self._present() or one in self._with_compute:
                    self.note(index, f"{one} is not there or has a compute instance")
                self._with_compute.add(one)
            case Action.DESTROY_COMPUTE:
                if one not in self._with_compute:
                    self.note(index, f"{one} has no compute instance")
                self._with_compute.discard(one)
            case Action.DESTROY_GPU:
                self._vacate(index, one)

    def _occupy(self, index: int | None, one: Slice) -> None:
        profile = self._profiles.get(one.profile_id)
        if profile is None or (one.start, one.size) not in {(p.start, p.size) for p in profile.placements}:
            self.note(index, f"{one} is no placement of this device")
            return
        for seat in range(one.start, one.start + one.size):
            if self._seats[seat] is not None:
                self.note(index, f"{one} overlaps {self._seats[seat]} at memory slice {seat}")
            self._seats[seat] = one

    def _vacate(self, index: int, one: Slice) -> None:
        if one not in self._present():
            self.note(index, f"{one} is not there")
        if one in self._with_compute:
            self.note(index, f"{one} still has a compute instance")
        self._destroyed.add(one)
        self._seats[:] = [None if holder == one else holder for holder in self._seats]

    def _present(self) -> set[Slice]:
        return {holder for holder in self._seats if holder is not None}

    def _look(self, index: int | None) -> None:
        """Counts everything that is limited."""
        compute = 0
        engines: Counter[str] = Counter()
        for profile_id, count in self.counts().items():
            profile = self._profiles[profile_id]
            compute += profile.compute_slices * count
            if count > profile.instance_limit:
                self.note(index, f"{count} × {profile.name}, at most {profile.instance_limit}")
            for engine, each in profile.engines:
                engines[engine] += each * count
        if compute > self._compute_limit:
            self.note(index, f"{compute} compute slices of {self._compute_limit}")
        for engine, taken in engines.items():
            if taken > self._engine_limits[engine]:
                self.note(index, f"{taken} × {engine} of {self._engine_limits[engine]}")

    def _look_at_end(self, plan: Plan) -> None:
        before, end = set(self._standing.layout), self._present()
        for one in sorted(self._destroyed & self._created):
            self.note(None, f"{one} is destroyed and made again: it was not to be touched")
        if end != set(plan.after):
            self.note(None, f"ends in {Layout.of(end)}, not in the layout that the plan names")
        told = (set(plan.kept), set(plan.destroyed), set(plan.created), set(plan.live_destroyed))
        seen = (before & end, before - end, end - before, (before - end) & self._standing.live)
        if told != seen:
            self.note(None, "names other slices kept, destroyed or created than its steps do")
        unfinished = end - self._with_compute - self._standing.pinned
        if unfinished:
            self.note(None, f"leaves {', '.join(map(str, sorted(unfinished)))} without a compute instance")
        self._look_at_moves(plan)

    def _look_at_moves(self, plan: Plan) -> None:
        steps = list(plan.steps)
        for move in plan.moves:
            source, destination = move.source, move.destination
            gone, made = Step(Action.DESTROY_GPU, source), Step(Action.CREATE_COMPUTE, destination)
            if source.profile_id != destination.profile_id or gone not in steps or made not in steps:
                self.note(None, f"{source} cannot move to {destination}")
            elif move.made_before_break != (steps.index(made) < steps.index(gone)):
                self.note(None, f"the move of {source} to {destination} is not in the order that it claims")
