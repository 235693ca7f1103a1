"""What an executor does next on one board: a pure function of the ledger, what was just seen, and the planner.

    wish → resolve → (decide → one call → read again)* → ended

The way is planned anew before every call, from what stands towards where the change is heading. So it makes no
difference whether a call of before succeeded, was lost, or was never made, and a crash needs no path of its own: the
next decision continues. Slices of others are pinned: never touched, and planned around.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .goal import Goal, Wish
from .ledger import Began, Call, Ended, Ledger, ModeStep, Operation, Outcome, Renewed, TurnedBack
from .model import Layout, Slice, Standing
from .plan import Action, Refusal, Step
from .planner import Planner


@dataclass(frozen=True, slots=True)
class Sight:
    """A board as it was just read.

    Attributes:
        capable: whether it can be cut at all.
        resetless: whether its mode changes without a reset.
        mig: the mode in force.
        pending: the mode that a reset would bring.
        layout: every GPU instance.
        bare: those without a compute instance.
        holders: who holds a slice, in words such as "pid 7"; slices that nobody is seen to hold are not in it.
        whole: who holds the board as a whole.
    """

    capable: bool
    resetless: bool
    mig: bool
    pending: bool
    layout: Layout = field(default_factory=Layout)
    bare: frozenset[Slice] = field(default_factory=frozenset)
    holders: Mapping[Slice, tuple[str, ...]] = field(default_factory=dict)
    whole: tuple[str, ...] = ()

    def stands(self, ours: frozenset[Slice]) -> Goal:
        """Mode, and what of ours stands."""
        return Goal(self.mig, Layout.of(set(self.layout) & ours))


@dataclass(frozen=True, slots=True)
class Await:
    """What has to go still carries work: its holders, named, have to leave first."""

    holders: tuple[str, ...]


# One call to make; or wait; or turn back; or the end.
Next = Await | Call | TurnedBack | Ended


def resolve(ledger: Ledger, sight: Sight, planner: Planner | None, wish: Wish) -> Began | Renewed | Ended:
    """What becomes of a wish that is newer than the one obeyed: every place is chosen here, once.

    The origin of a change that replaces another one under way is that one's origin: the last layout that was whole.

    Args:
        ledger: the journal's sum.
        sight: the board as just read.
        planner: for its table; None for a board that cannot be cut.
        wish: what is wished.
    """
    if _same_again(ledger, wish):
        return Renewed(wish.order)
    now = sight.stands(ledger.ours)
    origin = ledger.operation.origin if ledger.operation else now
    goal = _impossible(sight, wish) or (_goal(ledger, sight, planner, wish) if wish.mig and planner else Goal(False))
    if isinstance(goal, tuple):
        code, words = goal
        return Ended(wish.order, wish.content, Outcome.REFUSED, code, words, ledger.settled or origin)
    if goal == now and not sight.bare & ledger.ours:
        return Ended(wish.order, wish.content, Outcome.REACHED, "", "", now)
    return Began(wish.order, wish.content, origin, goal)


def rebuild(ledger: Ledger, sight: Sight) -> Began | None:
    """After a start of the machine: the change that brings back what was wished; None when nothing is missing."""
    wished = ledger.operation.heading if ledger.operation else ledger.settled
    now = sight.stands(frozenset())
    if ledger.order is None or wished is None or wished == now:
        return None
    return Began(ledger.order, ledger.content, now, wished)


def decide(ledger: Ledger, operation: Operation, sight: Sight, planner: Planner | None) -> Next:
    """The next thing to do for a change under way. The same arguments give the same answer."""
    if operation.heading.mig and not sight.mig:
        return _mode(ledger, sight, True)
    if not sight.mig or planner is None:
        return _end(ledger, sight)
    return _toward(ledger, operation, sight, planner)


def drift(ledger: Ledger, sight: Sight) -> tuple[str, ...]:
    """What others did to the board since the last change, in words. Nothing is done about it."""
    gone = sorted(set(ledger.settled.layout if ledger.settled else ()) - set(sight.layout))
    mode = ledger.settled is not None and ledger.settled.mig is not sight.mig
    return (
        *((f"MIG mode was turned {'on' if sight.mig else 'off'} by somebody else",) if mode else ()),
        *(f"{one} was removed by somebody else" for one in gone),
        *(f"{one} is somebody else's and left alone" for one in sorted(_strangers(ledger, sight))),
        *(f"{one} lost its compute instance" for one in sorted(sight.bare & ledger.ours)),
    )


def _same_again(ledger: Ledger, wish: Wish) -> bool:
    """Whether it is what is under way already, or what has failed within the same blueprint."""
    if ledger.order is None or wish.content != ledger.content:
        return False
    if ledger.operation is not None and ledger.operation.back is None:
        return True
    failed = ledger.operation is not None or (ledger.last is not None and ledger.last.outcome is not Outcome.REACHED)
    return failed and (wish.order.fencing, wish.order.generation) == (ledger.order.fencing, ledger.order.generation)


def _goal(ledger: Ledger, sight: Sight, planner: Planner, wish: Wish) -> Goal | tuple[str, str]:
    pinned = _strangers(ledger, sight)
    if taken := pinned & set(wish.fixed):
        words = f"{planner.space.table.describe(sorted(taken))} is somebody else's already; ask for another place"
        return "place_taken", words
    wanted = Counter(dict(wish.counts)) + Counter(Layout.of(pinned).counts())
    answer = planner.plan(_standing(ledger, sight), wanted, fixed=Layout.of(wish.fixed))
    if isinstance(answer, Refusal):
        return answer.reason, answer.message
    return Goal(True, Layout.of(set(answer.after) - pinned))


def _toward(ledger: Ledger, operation: Operation, sight: Sight, planner: Planner) -> Next:
    full = Layout.of(set(operation.heading.layout) | _strangers(ledger, sight))
    answer = planner.plan(_standing(ledger, sight), full.counts(), fixed=full)
    if isinstance(answer, Refusal):
        return _give_up(ledger, sight, Outcome.RESTORED, answer.reason, answer.message)
    if answer.steps:
        return _unless_held(answer.steps[0], sight)
    if operation.heading.mig:
        return _end(ledger, sight)
    if strangers := _strangers(ledger, sight):
        words = f"slices of others keep MIG mode on: {planner.space.table.describe(sorted(strangers))}; remove them"
        return _give_up(ledger, sight, Outcome.BLOCKED, "foreign_slices", words)
    return _mode(ledger, sight, False)


def _unless_held(step: Step, sight: Sight) -> Step | Await:
    holders = sight.holders.get(step.slice, ())
    if step.action in (Action.DESTROY_COMPUTE, Action.DESTROY_GPU) and holders:
        return Await(tuple(f"{holder} on {step.slice}" for holder in holders))
    return step


def _mode(ledger: Ledger, sight: Sight, enabled: bool) -> Next:
    if sight.whole:
        return Await(tuple(f"{holder} on the whole board" for holder in sight.whole))
    if sight.resetless:
        return ModeStep(enabled)
    word = "on" if enabled else "off"
    words = (
        f"MIG mode has to go {word}, which this board does only by a reset: run `nvidia-smi -mig {int(enabled)}` and "
        "reset the board (with its NVLink peers) or reboot, in a maintenance window"
    )
    return _give_up(ledger, sight, Outcome.BLOCKED, "reset_required", words)


def _give_up(ledger: Ledger, sight: Sight, outcome: Outcome, code: str, words: str) -> TurnedBack | Ended:
    assert ledger.operation is not None and ledger.order is not None
    if ledger.operation.back is None:
        return TurnedBack(outcome, code, words)
    return degraded(ledger, sight, code, words)


def degraded(ledger: Ledger, sight: Sight, code: str, words: str) -> Ended:
    """The end of a change whose way back failed, too."""
    assert ledger.order is not None
    first = ledger.operation.back.words if ledger.operation and ledger.operation.back else ""
    whole = f"{first}; and the earlier layout could not be restored: {words}" if first else words
    return Ended(ledger.order, ledger.content, Outcome.DEGRADED, code, whole, sight.stands(ledger.ours))


def _end(ledger: Ledger, sight: Sight) -> Ended:
    assert ledger.operation is not None and ledger.order is not None
    back, stands = ledger.operation.back, sight.stands(ledger.ours)
    if back is None:
        return Ended(ledger.order, ledger.content, Outcome.REACHED, "", "", stands)
    return Ended(ledger.order, ledger.content, back.outcome, back.code, back.words, stands)


def _impossible(sight: Sight, wish: Wish) -> tuple[str, str] | None:
    if wish.mig and not sight.capable:
        return "not_supported", "this board cannot be cut into slices; leave it whole"
    if wish.mig is not sight.mig and not sight.resetless:
        now, word = ("on", "off") if sight.mig else ("off", "on")
        return "reset_required", (
            f"MIG mode is {now} and this board changes it only by a reset; run `nvidia-smi -mig {int(wish.mig)}` and "
            f"reset it in a maintenance window to have it {word}"
        )
    return None


def _strangers(ledger: Ledger, sight: Sight) -> set[Slice]:
    return set(sight.layout) - ledger.ours


def _standing(ledger: Ledger, sight: Sight) -> Standing:
    return Standing(
        sight.layout,
        live=frozenset(one for one in sight.layout if sight.holders.get(one) and one not in sight.bare),
        pinned=frozenset(_strangers(ledger, sight)),
        bare=sight.bare & set(sight.layout),
    )
