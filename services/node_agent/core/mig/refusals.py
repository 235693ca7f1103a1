"""Why there is no plan, with the figures and the least that would have to change. Looks for reasons, not for plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from operator import add

from .model import Layout, Slice, Standing, Wanted
from .plan import Refusal, RefusalReason
from .space import Counts, LayoutSpace, Mask


def bad_question(space: LayoutSpace, standing: Standing, wanted: Wanted) -> Refusal | None:
    """A refusal when the question itself does not match the device's table.

    Raises:
        ValueError: a negative number of slices is wanted.
    """
    if any(count < 0 for count in wanted.values()):
        raise ValueError(f"negative number of slices wanted: {dict(wanted)}")
    table = space.table
    unknown = sorted(profile_id for profile_id, count in wanted.items() if count and not table.profile(profile_id))
    if unknown:
        known = ", ".join(f"{profile.profile_id} ({profile.name})" for profile in table.profiles)
        message = f"{table.name} has no profile {', '.join(map(str, unknown))}; it has {known}"
        return Refusal(RefusalReason.UNKNOWN_PROFILE, message, unplaced={one: wanted[one] for one in unknown})
    if not space.is_legal(standing.layout):
        return _impossible_state(space, standing.layout)
    return None


def no_layout(space: LayoutSpace, standing: Standing, wanted: Wanted, fixed: Layout) -> Refusal:
    """The refusal for a multiset that no legal layout has beside the pinned slices, with the fixed ones in place."""
    exactly = space.counts(wanted)
    masks = [mask for _, some in space.between(exactly, exactly) for mask in some]
    if not masks:
        return _does_not_fit(space, wanted)
    places = space.encode(fixed) or 0
    with_places = [mask for mask in masks if not places & ~mask]
    return _pinned_in_the_way(space, standing, with_places, wanted) if with_places else bad_places(space, fixed, wanted)


def bad_places(space: LayoutSpace, fixed: Layout, wanted: Wanted | None = None) -> Refusal:
    """The refusal for slices at places where they cannot lie, alone or with the other wanted ones."""
    what = f"{space.table.describe(fixed)} cannot lie there on {space.table.name}"
    if wanted is None:
        message = f"{what}: a start that the profile does not have, an overlap, or too many of one kind"
    else:
        message = f"{what} when {space.table.describe_counts(wanted)} is wanted in all; leave places open"
    return Refusal(RefusalReason.DOES_NOT_FIT, message, unplaced=fixed.counts())


def not_admitted(space: LayoutSpace, standing: Standing, profile_id: int, least: Counts) -> Refusal:
    """The refusal for one more slice, with the fewest and smallest others that would have to go; pinned last.

    Args:
        space: the board's layouts.
        standing: what is on the board.
        profile_id: profile of the slice that was to come.
        least: what the answer had to hold at least, the new slice counted.
    """
    wanted = {profile_id: 1}
    one = space.counts(wanted)
    most = tuple(map(add, space.counts(standing.layout.counts()), one))
    of_profile = space.encode(seat for seat in space.seats if seat.profile_id == profile_id) or 0
    pinned, before = (space.encode(part) or 0 for part in (standing.pinned, standing.layout))
    best: tuple[tuple[int, int, int, int], Mask, Counts] | None = None
    for counts, masks in space.between(one, most):
        missing = _missing(least, counts)
        missing_memory = space.table.memory_slices_of(space.wanted(missing))
        for mask in masks:
            others = mask & ~_lowest(mask & of_profile & ~pinned or mask & of_profile)
            price = (pinned & ~others).bit_count(), sum(missing), missing_memory, (before & ~others).bit_count()
            if best is None or price < best[0]:
                best = price, others, missing
    if best is None:
        return _does_not_fit(space, wanted)
    _, others, missing = best
    stays = standing.live | standing.pinned | {each for each in standing.layout if each.profile_id == profile_id}
    displaced = [each for each in space.decode(before & ~others) if each in stays]
    gone = _gone(displaced, standing.pinned, space.wanted(missing))
    return _occupied(space, standing, len(stays), gone, wanted)


def disturbs_too_much(space: LayoutSpace, gone: Layout, allowed: int) -> Refusal:
    """The refusal for a change that would destroy more live slices than the policy allows."""
    message = (
        f"the gentlest way destroys {len(gone)} live slices ({space.table.describe(gone)}), the policy allows "
        f"{allowed}; drain them first or allow more"
    )
    figures = {"live_destroyed": len(gone), "live_destroyed_allowed": allowed}
    return Refusal(RefusalReason.DISTURBS_TOO_MUCH, message, in_the_way=gone.slices, figures=figures)


def _impossible_state(space: LayoutSpace, layout: Layout) -> Refusal:
    strangers = tuple(one for one in layout if not space.is_legal([one]))
    culprits = strangers or layout.slices
    why = "which its table does not have" if strangers else "which cannot stand together"
    message = (
        f"{space.table.name} was seen with {space.table.describe(culprits)}, {why}; read the device's profiles and "
        "instances again"
    )
    return Refusal(RefusalReason.IMPOSSIBLE_STATE, message, in_the_way=culprits)


def _does_not_fit(space: LayoutSpace, wanted: Wanted) -> Refusal:
    whole = space.counts(wanted)
    nothing = tuple(0 for _ in whole)
    # Wanted counts can be far above any limit; a layout never holds more than the board has memory slices.
    placed = max(
        (counts for counts, _ in space.between(nothing, whole)),
        key=lambda c: (sum(c), space.table.memory_slices_of(space.wanted(c))),
    )
    unplaced = space.wanted(tuple(w - p for w, p in zip(whole, placed, strict=True)))
    figures = _amounts(space, wanted)
    rest = space.table.describe_counts(space.wanted(placed))
    message = (
        f"{space.table.describe_counts(wanted)} do not fit one {space.table.name}: "
        f"{figures['memory_slices_wanted']} of {figures['memory_slices']} memory slices, "
        f"{figures['compute_slices_wanted']} of {figures['compute_slices']} compute slices, and every profile has its "
        f"starts and its limit; {rest} fits, {space.table.describe_counts(unplaced)} has to go elsewhere"
    )
    return Refusal(RefusalReason.DOES_NOT_FIT, message, unplaced=unplaced, figures=figures)


def _pinned_in_the_way(space: LayoutSpace, standing: Standing, masks: list[Mask], wanted: Wanted) -> Refusal:
    pinned = space.encode(standing.pinned) or 0
    fewest = min((pinned & ~mask for mask in masks), key=lambda gone: (gone.bit_count(), gone))
    gone = space.decode(fewest)
    message = (
        f"{space.table.describe_counts(wanted)} fits {space.table.name}, but not beside its pinned slices; at least "
        f"{len(gone)} of {len(standing.pinned)} would have to be released: {space.table.describe(gone)}"
    )
    figures = {"pinned": len(standing.pinned), "pinned_in_the_way": len(gone)}
    return Refusal(RefusalReason.PINNED_IN_THE_WAY, message, in_the_way=gone.slices, figures=figures)


def _gone(displaced: Iterable[Slice], pinned: frozenset[Slice], missing: Mapping[int, int]) -> Layout:
    """Of the slices that lose their place: all pinned ones, of the others as many as find no new place."""
    left = Counter(missing)
    gone = []
    for one in sorted(displaced, key=lambda one: (one not in pinned, one)):
        if one in pinned or left[one.profile_id] > 0:
            left[one.profile_id] -= 1
            gone.append(one)
    return Layout.of(gone)


def _occupied(space: LayoutSpace, standing: Standing, stays: int, gone: Layout, wanted: Wanted) -> Refusal:
    by_pin = any(one in standing.pinned for one in gone)
    free = {
        "memory_slices_free": space.table.memory_slices - sum(one.size for one in standing.layout),
        "compute_slices_free": space.table.compute_slices - space.table.compute_slices_of(standing.layout.counts()),
    }
    message = (
        f"no layout of {space.table.name} has {space.table.describe_counts(wanted)} beside the {stays} slices that "
        f"stay, {'some of them pinned to their place' if by_pin else 'wherever they are moved'} "
        f"({free['memory_slices_free']} memory and {free['compute_slices_free']} compute slices are free); at least "
        f"{len(gone)} would have to go: {space.table.describe(gone)}"
    )
    reason = RefusalReason.PINNED_IN_THE_WAY if by_pin else RefusalReason.OCCUPIED
    return Refusal(reason, message, in_the_way=gone.slices, figures={"stay": stays, "in_the_way": len(gone), **free})


def _lowest(mask: Mask) -> Mask:
    return mask & -mask


def _missing(least: Counts, counts: Counts) -> Counts:
    return tuple(max(0, wanted - there) for wanted, there in zip(least, counts, strict=True))


def _amounts(space: LayoutSpace, wanted: Wanted) -> dict[str, int]:
    return {
        "memory_slices_wanted": space.table.memory_slices_of(wanted),
        "memory_slices": space.table.memory_slices,
        "compute_slices_wanted": space.table.compute_slices_of(wanted),
        "compute_slices": space.table.compute_slices,
    }
