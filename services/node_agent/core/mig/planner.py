"""Chooses the layout that disturbs least, and admits single slices. A pure function of table, board and wish.

For a wish the planner looks at *every* legal layout that fulfils it (they are enumerated in `space.py`), so that its
choice is the optimum and "there is none" is a proof. It takes, in this order: the fewest live slices destroyed, the
most slices kept in number, the fewest slices destroyed at all, the fewest moves for which work has to stop, the most
ways left to place one more slice, the seats in the order of the table. Does not act: an executor runs the steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from . import refusals
from .model import DeviceTable, Layout, Placement, Slice, Standing, Wanted
from .order import Change, Ordering, put_in_order, spell
from .plan import Order, Plan, Policy, Refusal
from .space import Counts, LayoutSpace, Mask

DEFAULT_POLICY: Final = Policy()
# No place is given.
NOWHERE: Final = Layout()

# Live destroyed, slices given up in number, destroyed at all. Less is better.
_Disturbance = tuple[int, int, int]


class Planner:
    """Plans for one kind of board. Build once for a table and keep: building enumerates, planning looks up.

    Args:
        table: profiles and placements as the device reports them.
    """

    def __init__(self, table: DeviceTable) -> None:
        self.space: Final = LayoutSpace(table)

    def plan(
        self,
        standing: Standing,
        wanted: Wanted,
        policy: Policy = DEFAULT_POLICY,
        fixed: Layout = NOWHERE,
    ) -> Plan | Refusal:
        """The way from what stands to exactly the wanted slices.

        Args:
            standing: what is on the board.
            wanted: how many slices of each profile id the board shall have in the end; no others.
            policy: limits of what the plan may do.
            fixed: those of the wanted slices whose place is given.

        Returns:
            A plan with the least disturbance there is, or a refusal that says what is in the way. The same
            arguments give the same answer.
        """
        refusal = refusals.bad_question(self.space, standing, wanted)
        if refusal:
            return refusal
        if not self.space.is_legal(fixed):
            return refusals.bad_places(self.space, fixed)
        exactly = self.space.counts(wanted)
        gentlest = self._gentlest(standing, exactly, exactly, self._mask(fixed))
        if not gentlest:
            return refusals.no_layout(self.space, standing, wanted, fixed)
        return self._answer(standing, gentlest, policy)

    def admit(self, standing: Standing, profile_id: int, policy: Policy = DEFAULT_POLICY) -> Plan | Refusal:
        """The way to one more slice of a profile.

        Live slices keep their number (they may move), pinned ones their place; idle ones of other profiles are given
        up where they must. A plan that destroys nothing means: there is a legal start now. Whether an idle slice of
        the profile will do is the caller's question, this always adds one.

        Args:
            standing: what is on the board.
            profile_id: the profile of the slice to add.
            policy: limits of what the plan may do.
        """
        refusal = refusals.bad_question(self.space, standing, {profile_id: 1})
        if refusal:
            return refusal
        most = Counter(one.profile_id for one in standing.layout)
        most[profile_id] += 1
        least = Counter(one.profile_id for one in standing.live | standing.pinned)
        least[profile_id] = most[profile_id]
        lower, upper = self.space.counts(least), self.space.counts(most)
        gentlest = self._gentlest(standing, lower, upper)
        if not gentlest:
            return refusals.not_admitted(self.space, standing, profile_id, lower)
        return self._answer(standing, gentlest, policy)

    def starts(self, layout: Layout, profile_id: int) -> tuple[Placement, ...]:
        """Free legal placements of a profile beside a legal layout, the one that keeps most others open first."""
        free = [one for one in self.space.addable(layout) if one.profile_id == profile_id]
        mask = self._mask(layout)
        free.sort(key=lambda one: (-self._room(mask | self._mask([one])), one))
        return tuple(Placement(one.start, one.size) for one in free)

    def _gentlest(self, standing: Standing, lower: Counts, upper: Counts, fixed: Mask = 0) -> list[Change]:
        """Of all layouts between two multisets with pinned and fixed slices in place, those that disturb least."""
        before, live, pinned = (self._mask(part) for part in (standing.layout, standing.live, standing.pinned))
        stays = pinned | fixed
        best: _Disturbance | None = None
        equals: list[Mask] = []
        for counts, masks in self.space.between(lower, upper):
            given_up = sum(upper) - sum(counts)
            for after in masks:
                if stays & ~after:
                    continue
                disturbance = (live & ~after).bit_count(), given_up, (before & ~after).bit_count()
                if best is None or disturbance < best:
                    best, equals = disturbance, [after]
                elif disturbance == best:
                    equals.append(after)
        return [Change(before, after, live) for after in equals]

    def _answer(self, standing: Standing, gentlest: list[Change], policy: Policy) -> Plan | Refusal:
        change, ordered = self._smoothest(gentlest, policy)
        gone = self.space.decode(change.destroyed & change.live)
        if policy.max_live_destroyed is not None and len(gone) > policy.max_live_destroyed:
            return refusals.disturbs_too_much(self.space, gone, policy.max_live_destroyed)
        return self._plan_of(standing, change, ordered)

    def _smoothest(self, changes: list[Change], policy: Policy) -> tuple[Change, Ordering]:
        """Of changes that disturb alike, the one with fewest stops, then with the most room for what comes next."""
        by_room = sorted(changes, key=lambda change: (-self._room(change.after), change.after))
        best: tuple[Change, Ordering] | None = None
        for change in by_room:
            ordered = put_in_order(self.space, change, policy.order)
            if best is None or ordered.broken_moves < best[1].broken_moves:
                best = change, ordered
            if not best[1].broken_moves or policy.order is Order.DESTROY_FIRST:
                break  # there is no better one, or all stop alike
        assert best is not None, "there is at least one change to choose from"
        return best

    def _plan_of(self, standing: Standing, change: Change, ordered: Ordering) -> Plan:
        decode = self.space.decode
        kept = decode(change.before & change.after).slices
        # A pinned slice may be somebody's half-made one: it is not ours to complete.
        kept_bare = [one for one in kept if one in standing.bare and one not in standing.pinned]
        return Plan(
            before=standing.layout,
            after=decode(change.after),
            kept=kept,
            destroyed=decode(change.destroyed).slices,
            created=decode(change.created).slices,
            live_destroyed=decode(change.destroyed & change.live).slices,
            moves=tuple(ordered.moves),
            steps=spell(ordered, standing.bare, kept_bare),
            open_starts_after=self._room(change.after),
        )

    def _room(self, mask: Mask) -> int:
        addable = self.space.open_mask(mask)
        assert addable is not None, "only legal layouts are compared"
        return addable.bit_count()

    def _mask(self, slices: Iterable[Slice]) -> Mask:
        mask = self.space.encode(slices)
        assert mask is not None, "bad_question lets no stranger through"
        return mask
