"""Which replica gets the next request. Pure; observations are arguments. The simulator routes by the same function.

Evenly: the replica with the least work for its size. With fills in the table: one replica is filled up to what the
SLO allows before the next one works, for tokens of a large batch take less energy and a replica with nothing to do
draws little. When all are full, the one with the fewest prompt tokens that wait. A replica that holds much of the
prompt in its cache goes before either, while it is at work already or would have been chosen anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from tradewind.domain.routes import ReplicaRoute

# A replica of this weight still gets a request now and then, by which it is seen to be well again.
LEAST_WEIGHT: Final = 0.05
# Prompt tokens that another replica has to save; fewer are not worth leaving the usual order.
LEAST_SAVED_TOKENS: Final = 64


class Place(NamedTuple):
    """A replica as a choice sees it.

    Attributes:
        size: places of its batch times its weight.
        at_work: requests that it has.
        unanswered: prompt tokens of those of them that have no first token yet.
        fill_sequences, fill_tokens: what these two are filled up to; 0 when requests are shared out evenly.
    """

    size: float
    at_work: int
    unanswered: int = 0
    fill_sequences: int = 0
    fill_tokens: int = 0


def pick(places: Sequence[Place], turn: int, tokens: int = 0) -> int:
    """Number of the place that gets the next request.

    Args:
        places: at least one, in the order in which they are filled.
        turn: grows with each choice; spreads equal places round-robin.
        tokens: of the request's prompt; one that is longer than any fill goes where nothing waits.
    """
    filling = False
    for number, (_, at_work, unanswered, most, most_tokens) in enumerate(places):
        if most:
            if at_work < most and (not unanswered or unanswered + tokens <= most_tokens):
                return number
            filling = True
    loads = [(unanswered if filling else 0, (at_work + 1) / size) for size, at_work, unanswered, _, _ in places]
    least = min(loads)
    equal = [number for number, load in enumerate(loads) if load == least]
    return equal[turn % len(equal)]


def pick_holder(places: Sequence[Place], held: Sequence[int], usual: int, tokens: int) -> int:
    """The usual place, or the one with room that saves most of a prompt's tokens.

    A filled replica that has nothing to do stays so: a batch of its own would cost more than the prompt.

    Args:
        places, tokens: as for `pick`.
        held: for each place, tokens of the prompt that it need not work out.
        usual: what `pick` said.
    """

    def has_room(place: Place, kept: int) -> bool:
        if not place.fill_sequences:
            return place.at_work < place.size
        waits = place.unanswered + tokens - kept if place.unanswered else 0
        return 0 < place.at_work < place.fill_sequences and waits <= place.fill_tokens

    able = [number for number, place in enumerate(places) if has_room(place, held[number])]
    best = max(able, key=lambda number: held[number], default=usual)
    return best if held[best] - held[usual] >= LEAST_SAVED_TOKENS else usual


def choose(
    replicas: Sequence[ReplicaRoute],
    outstanding: Mapping[str, int],
    turn: int,
    excluded: Collection[str] = (),
    unanswered: Mapping[str, int] = MappingProxyType({}),
    tokens: int = 0,
    held: Mapping[str, int] = MappingProxyType({}),
) -> ReplicaRoute | None:
    """The replica that `pick` says, or `pick_holder` where one holds some of the prompt.

    Load is (outstanding + 1) / (batch limit × weight): a replica that decodes eight sequences together takes eight
    times as many requests as one that decodes a single one, and of two idle ones the larger goes first.

    Args:
        replicas: routes of one deployment; draining ones are never chosen.
        outstanding: requests at work by replica id, as this gateway counts them.
        turn: grows with each choice; spreads equal replicas round-robin.
        excluded: replica ids that must not be chosen.
        unanswered: prompt tokens of requests at work that have no first token yet, by replica id.
        tokens: of this request's prompt.
        held: of them those that a replica's cache holds, by replica id.

    Returns:
        The replica, or None when no one is left.
    """
    able = sorted(
        (r for r in replicas if not r.draining and r.replica_id not in excluded),
        key=lambda r: (r.fill_rank, r.replica_id),
    )
    if not able:
        return None
    places = [
        Place(
            max(r.batch_limit, 1) * max(r.weight, LEAST_WEIGHT),
            outstanding.get(r.replica_id, 0),
            unanswered.get(r.replica_id, 0),
            r.fill_sequences,
            r.fill_tokens,
        )
        for r in able
    ]
    usual = pick(places, turn, tokens)
    if not held:
        return able[usual]
    return able[pick_holder(places, [held.get(r.replica_id, 0) for r in able], usual, tokens)]


def capacity(replicas: Sequence[ReplicaRoute], queued_per_place: int) -> int:
    """Most requests that a deployment may have at once: every place of every batch, and so many waiting for each."""
    places = sum(max(replica.batch_limit, 1) for replica in replicas if not replica.draining)
    return places * (1 + queued_per_place)
