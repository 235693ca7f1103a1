"""Keeps the clocks and caps that the target names in force, under leases of the helper, within the node's budget.

Every few seconds each board is read, what is due is asked for, and what was set is compared with what the board shows.
Of two clocks of a board the governor says which one applies. While a board is measured it has the measurement's
setting in place of the target's. `look` and `ease` block for as long as the helper does: they run on threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from services.node_agent.core.easing import Easing
from services.node_agent.core.power import (
    Bounds,
    Observed,
    OutOfBounds,
    PowerState,
    Setting,
    Sleep,
    admit,
    in_force,
    not_in_force,
    sleeping,
)
from services.node_agent.core.power_budget import Budget, grant, share
from services.node_agent.core.power_lease import LEASE_S
from services.node_agent.gpu.bounds import bounds_of
from services.node_agent.gpu.faults import GpuError
from services.node_agent.gpu.port import BoardFacts, GpuAdmin, GpuReader

# A third of a lease: two renewals may be lost before it ends.
PERIOD_S: Final = LEASE_S / 3


@dataclass(frozen=True, slots=True)
class KeptBoard:
    """A board and what it takes.

    Attributes:
        slices: counts those that stand.
        busy: whether something runs or is measured on it, so that it does not sleep whatever the target says.
        serving: whether replicas have a part of it.
    """

    uuid: str
    bounds: Bounds
    slices: Callable[[], int]
    busy: Callable[[], bool]
    serving: Callable[[], bool]


class Holder(Protocol):
    """Sets boards under a lease: the helper's client, or a simulated machine of this process."""

    def hold_power(self, uuid: str, setting: Setting, safety_cap_mw: int | None = None) -> None:
        """Sets a board under a lease, or renews it."""

    def release_power(self, uuid: str) -> None:
        """Ends the lease: the board goes back to its default."""


class OwnHolder:
    """For a simulated machine that ends with this process: there is nothing for a lease to outlive."""

    def __init__(self, admin: GpuAdmin) -> None:
        self._admin = admin

    def hold_power(self, uuid: str, setting: Setting, safety_cap_mw: int | None = None) -> None:
        """See `Holder`."""
        self._admin.set_power_cap(uuid, setting.cap_mw)
        self._admin.lock_sm_clock(uuid, setting.clock_mhz)

    def release_power(self, uuid: str) -> None:
        """See `Holder`."""
        self.hold_power(uuid, Setting())


class PowerKeeper:
    """See the module.

    Args:
        reader: reads boards.
        holder: sets them.
        boards: of this node.
        budget_mw: of all of them together; None for none.
        left: boards that an agent before this one may have left at another setting: the first look gives them back.
    """

    def __init__(
        self,
        reader: GpuReader,
        holder: Holder,
        boards: Sequence[KeptBoard],
        budget_mw: int | None,
        left: frozenset[str] = frozenset(),
    ) -> None:
        self._reader, self._holder = reader, holder
        self._boards, self._budget_mw = tuple(boards), budget_mw
        self._wanted: Mapping[str, Setting] = {}
        self._may_sleep: frozenset[str] = frozenset()
        self._asleep: set[str] = set()
        self._least_mw: dict[str, int] = {}
        self._measured: dict[str, Setting] = {}
        self._held = set(left)
        self._asked: dict[str, tuple[Setting, int | None]] = {}
        self._eased: set[str] = set()
        self._compared_at: dict[str, int] = {}
        # Between the keeper's loop and a measurement that begins: one look at a time.
        self._looking = threading.Lock()
        # Between a look and the governor: who asks, asks for the clock that applies.
        self._asking = threading.Lock()
        self._clock_changes: dict[str, int] = {board.uuid: 0 for board in boards}
        self.states: dict[str, PowerState] = {board.uuid: PowerState() for board in boards}
        self._log = structlog.get_logger("power")

    def want(self, settings: Mapping[str, Setting], may_sleep: frozenset[str] = frozenset()) -> None:
        """Settings by board from now on; a board that is not named gets its default.

        Args:
            may_sleep: boards that sleep while nothing is on them.
        """
        self._wanted, self._may_sleep = settings, may_sleep

    def targeted(self, uuid: str) -> Setting:
        """What a board is at by the target while nothing eases it."""
        return replace(self._wanted.get(uuid, Setting()), eased_clock_mhz=None)

    def measure_at(self, uuid: str, setting: Setting) -> None:
        """A board is at this setting from the next look on, in place of the target's, until `measured` or it serves."""
        self._measured[uuid] = setting

    def measured(self, uuid: str) -> None:
        """A board is at the target's setting again from the next look on. Idempotent."""
        self._measured.pop(uuid, None)

    def measures(self, uuid: str) -> bool:
        """Whether a board is still held for a measurement: a replica that comes has the target's setting."""
        return uuid in self._measured

    @property
    def measuring(self) -> bool:
        """Whether any board is."""
        return bool(self._measured)

    @property
    def sleeps(self) -> dict[str, Sleep]:
        """Boards that can sleep."""
        able = (board.uuid for board in self._boards if sleeping(board.bounds) is not None)
        return {uuid: Sleep(uuid in self._asleep, self._least_mw.get(uuid)) for uuid in able}

    @property
    def easings(self) -> dict[str, Easing]:
        """Boards whose setting has a clock to ease to."""
        easings: dict[str, Easing] = {}
        for board in self._boards:
            setting, _ = self._asked.get(board.uuid, (Setting(), None))
            if setting.eased_clock_mhz is not None:
                full_mhz = setting.clock_mhz or board.bounds.clocks_mhz[-1]
                eased, changes = board.uuid in self._eased, self._clock_changes[board.uuid]
                easings[board.uuid] = Easing(full_mhz, setting.eased_clock_mhz, eased, changes)
        return easings

    def ease(self, uuid: str, *, eased: bool) -> None:
        """Puts the eased or the full clock of a board's setting in force from now on; looks renew that one. Idempotent.

        Raises:
            GpuError: the board does not take it; the other one goes on.
        """
        with self._asking:
            setting, safety_cap_mw = self._asked.get(uuid, (Setting(), None))
            if setting.eased_clock_mhz is None or eased is (uuid in self._eased):
                return
            self._hold(uuid, in_force(setting, eased=eased), safety_cap_mw)
            (self._eased.add if eased else self._eased.discard)(uuid)
            self._clock_changes[uuid] += 1

    def look(self) -> None:
        """Reads, asks, and compares, once for each board. A board that does not answer holds up no other."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        observed = {board.uuid: self._read(board) for board in self._boards}
        admitted = {board.uuid: self._admit(board) for board in self._boards}
        now = self._granted(observed, admitted)
        for board in self._boards:
            self._ask(board, admitted[board.uuid], now.get(board.uuid))
            self._compare(board)
        self._note_sleep()

    def _note_sleep(self) -> None:
        """Which boards sleep, and what they draw: only those that slept at the look before tell, the others settle."""
        now = {
            board.uuid
            for board in self._boards
            if self._sleeps(board) and not self.states[board.uuid].refusal and not self.states[board.uuid].not_in_force
        }
        for uuid in now & self._asleep:
            if (power_mw := self.states[uuid].observed.power_mw) is not None:
                self._least_mw[uuid] = min(self._least_mw.get(uuid, power_mw), power_mw)
        if now != self._asleep:
            self._log.info("boards that sleep", boards=sorted(now))
        self._asleep = now

    def _sleeps(self, board: KeptBoard) -> bool:
        return board.uuid in self._may_sleep and sleeping(board.bounds) is not None and not board.busy()

    def _read(self, board: KeptBoard) -> Observed:
        try:
            seen = self._reader.read(board.uuid)
        except GpuError as error:
            self._log.debug("a board is not read", board=board.uuid, error=error.message)
            return Observed(None, None, None)
        return Observed(seen.power_cap_mw, seen.power_mw, seen.sm_clock_mhz)

    def _admit(self, board: KeptBoard) -> Setting:
        """The request within the board's own limits; a refused one leaves the board at its default."""
        sleep = sleeping(board.bounds) if self._sleeps(board) else None
        requested = self._measurement(board) or sleep or self._wanted.get(board.uuid, Setting())
        answer = admit(requested, board.bounds)
        refusal, admitted = (answer.words, Setting()) if isinstance(answer, OutOfBounds) else ("", answer)
        before = self.states[board.uuid]
        if refusal and refusal != before.refusal:
            self._log.error("power setting refused", board=board.uuid, why=refusal)
        self.states[board.uuid] = PowerState(requested, admitted, before.observed, refusal, "", board.slices())
        return admitted

    def _measurement(self, board: KeptBoard) -> Setting | None:
        """What a board is measured at. A replica that serves goes before: clocks act on all that is on a board."""
        setting = self._measured.get(board.uuid)
        if setting is not None and setting != self.targeted(board.uuid) and board.serving():
            self._log.warning("a measurement gives its clock up to a replica", board=board.uuid)
            self.measured(board.uuid)
            return None
        return setting

    def _granted(self, observed: Mapping[str, Observed], admitted: Mapping[str, Setting]) -> Mapping[str, int]:
        """Caps that the budget lets boards have now; one that has to wait keeps its own. Empty without a budget."""
        capped = {board.uuid: board.bounds.caps_mw for board in self._boards if board.bounds.caps_mw}
        if self._budget_mw is None or not capped:
            return {}
        asked = {uuid: admitted[uuid].cap_mw or caps[2] for uuid, caps in capped.items()}
        shares = share(self._budget_mw, asked, {uuid: caps[0] for uuid, caps in capped.items()})
        enforced = {uuid: observed[uuid].enforced_cap_mw or caps[1] for uuid, caps in capped.items()}
        granted = grant([Budget("node", self._budget_mw, frozenset(capped))], enforced, shares)
        kept = {**granted.waiting, **granted.refused}
        for uuid, words in kept.items():
            self.states[uuid] = replace(self.states[uuid], refusal=words)
        return {**granted.now_mw, **{uuid: enforced[uuid] for uuid in kept}}

    def _ask(self, board: KeptBoard, admitted: Setting, safety_cap_mw: int | None) -> None:
        cap_mw = admitted.cap_mw if safety_cap_mw is None else safety_cap_mw
        setting = replace(admitted, cap_mw=cap_mw)
        try:
            with self._asking:
                self._asked[board.uuid] = setting, safety_cap_mw
                if setting.eased_clock_mhz is None:
                    self._eased.discard(board.uuid)
                self._hold(board.uuid, in_force(setting, eased=board.uuid in self._eased), safety_cap_mw)
        except GpuError as error:
            self.states[board.uuid] = replace(self.states[board.uuid], refusal=error.message)
            return
        self.states[board.uuid] = replace(self.states[board.uuid], admitted=setting)

    def _hold(self, uuid: str, setting: Setting, safety_cap_mw: int | None) -> None:
        if setting != Setting() or safety_cap_mw is not None:
            self._holder.hold_power(uuid, setting, safety_cap_mw)
            self._held.add(uuid)
        elif uuid in self._held:
            self._holder.release_power(uuid)
            self._held.discard(uuid)

    def _compare(self, board: KeptBoard) -> None:
        state, observed = self.states[board.uuid], self._read(board)
        # Clocks follow a while after they are asked for: an eased one is expected from the second look on.
        changes = self._clock_changes[board.uuid]
        settled = self._compared_at.get(board.uuid) == changes
        self._compared_at[board.uuid] = changes
        wanted = in_force(state.admitted, eased=settled and board.uuid in self._eased)
        words = not_in_force(wanted, board.bounds, observed) if not state.refusal else ""
        if words and words != state.not_in_force:
            self._log.warning("power setting is not in force", board=board.uuid, why=words)
        self.states[board.uuid] = replace(state, observed=observed, not_in_force=words)


def kept_board(
    facts: BoardFacts,
    slices: Callable[[], int],
    busy: Callable[[], bool] = lambda: False,
    serving: Callable[[], bool] = lambda: False,
) -> KeptBoard:
    """A board out of its facts."""
    return KeptBoard(facts.uuid, bounds_of(facts), slices, busy, serving)
