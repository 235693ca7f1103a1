"""Watches one board: looks at it each second, counts its energy and its slices', and judges its health.

`look` is one sampling and may block for as long as the driver does; it runs on a thread of its own (telemetry.py), so
that a board whose driver hangs holds up neither the agent nor other boards.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from services.node_agent.core import board_energy, board_health, slice_accounts
from services.node_agent.core.attribution import SliceUse
from services.node_agent.core.board_energy import EnergyAccount, MeterReading
from services.node_agent.core.board_health import BoardHealth
from services.node_agent.core.mig.model import DeviceTable
from services.node_agent.core.slice_accounts import SliceAccounts
from services.node_agent.gpu.faults import BoardLost, GpuError
from services.node_agent.gpu.port import (
    BoardFacts,
    BoardReading,
    EventKind,
    GpuEvent,
    GpuReader,
    SliceReading,
)
from services.node_agent.gpu.state import BoardState, SliceState, seen
from tradewind.domain.figures import EnergyFigure, FigureSource, weakest

# Slices are listed when the driver tells of a change, when readings name another slice, and this often anyway.
RELIST_S: Final = 10.0
# A helper that lists slices is back within seconds of a crash; one that stays away is a fault of the board's.
UNLISTED_LIMIT_S: Final = 30.0
UNREAD: Final = "its profiles could not be read; give the agent the right or a helper, and start it again"
# An empty slice reports some MiB as used; a CUDA context takes more than this.
OCCUPIED_BYTES: Final = 128 << 20
# Power is a mean over at least the window from which on a figure may be called measured.
POWER_WINDOW_S: Final = board_energy.MEASURED_WINDOW_S


class BoardWatch:
    """One board.

    Args:
        reader: reads it.
        facts: of it.
        table: its profiles; None when it cannot be cut, or they could not be read.
        now_s: monotonic clock.
        label: weakest label that its figures may have: SIMULATED for boards that are not there.
        lister: lists its slices, where that wants a right that the reader has not: the helper's client.
    """

    def __init__(
        self,
        reader: GpuReader,
        facts: BoardFacts,
        table: DeviceTable | None,
        now_s: Callable[[], float],
        label: FigureSource = FigureSource.MEASURED_COUNTER,
        lister: GpuReader | None = None,
    ) -> None:
        self._lister = lister or reader
        self.facts, self.table = facts, table
        self._reader, self._now_s, self._label = reader, now_s, label
        self._account, self._accounts, self._health = EnergyAccount(), SliceAccounts(), BoardHealth()
        self._unlisted, self._ever_listed = "", False
        self._totals: deque[tuple[float, float]] = deque()
        self._events: Counter[str] = Counter()
        self._idle_mw, self._listed_at_s, self._relist = 0.0, now_s(), True
        self._state = BoardState(now_s())
        self._lock, self._looking = threading.Lock(), threading.Lock()

    @property
    def state(self) -> BoardState:
        """As last seen."""
        return self._state

    @property
    def fault(self) -> str:
        """Why the board is out, in words; "" when it is well. Says so, too, when looks do not end any more."""
        words = board_health.fault(self._health, self._now_s() - self._state.seen_at_s)
        unlisted_s = self._now_s() - self._listed_at_s
        if words or not self._unlisted or (self._ever_listed and unlisted_s < UNLISTED_LIMIT_S):
            return words
        return f"MIG is on, and its slices cannot be listed: {self._unlisted}"

    @property
    def fault_lasts(self) -> bool:
        """Whether the board is out until the agent starts again: what runs on it cannot be trusted."""
        return bool(self._health.lasting)

    def on_event(self, event: GpuEvent) -> None:
        """The driver told of something about this board."""
        with self._lock:
            self._events[f"xid {event.number}" if event.kind is EventKind.XID else event.kind.value] += 1
            if event.kind is EventKind.XID:
                self._health = board_health.after_xid(self._health, event.number)
            if event.kind is EventKind.MIG_CHANGED:
                self._relist = True

    def look(self) -> None:
        """One sampling. Failures of this board go into its health; nothing is raised. One at a time."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        try:
            reading = self._reader.read(self.facts.uuid)
            self._list_slices()
            readings = self._read_slices()
        except GpuError as error:
            with self._lock:
                self._health = board_health.after_failure(self._health, error.message, isinstance(error, BoardLost))
            self._state, self._relist = replace(self._state, seen_at_s=self._now_s()), True
            return
        with self._lock:
            self._health = board_health.after_look(self._health, reading.ecc_uncorrected)
        self._count(reading, readings)

    def _list_slices(self) -> None:
        """Lists slices when they may have changed."""
        now_s = self._now_s()
        if not self.facts.mig_capable or not (self._relist or now_s - self._listed_at_s >= RELIST_S):
            return
        # Cleared first: a change that comes meanwhile is not forgotten.
        self._relist = False
        mode_on = self._reader.mig_mode(self.facts.uuid).current
        if self.table is None:
            self._unlisted, self._listed_at_s = UNREAD if mode_on else "", now_s
            self._state = replace(self._state, mode_on=mode_on)
            return
        try:
            instances = self._lister.instances(self.facts.uuid) if mode_on else ()
        except BoardLost:
            raise
        except GpuError as error:
            # A right is missing, or a helper is away: what was listed before stands, and the board is still metered.
            self._unlisted, self._relist = error.message, True
            self._state = replace(self._state, mode_on=mode_on)
            return
        self._unlisted, self._listed_at_s, self._ever_listed = "", now_s, True
        known = {one.uuid: one for one in self._state.slices if one.uuid}
        slices = tuple(seen(instance, self.table, known) for instance in instances)
        self._state = replace(self._state, mode_on=mode_on, slices=slices)

    def _read_slices(self) -> dict[int, SliceReading]:
        if not self._state.mode_on:
            return {}
        readings = {one.gi_id: one for one in self._reader.read_slices(self.facts.uuid)}
        if set(readings) != {one.instance.gi_id for one in self._state.slices if one.uuid}:
            self._relist = True
        return readings

    def _count(self, reading: BoardReading, readings: dict[int, SliceReading]) -> None:
        now_s, before = self._now_s(), self._account
        most_mw = self.facts.power.most_mw if self.facts.power else 0
        meter = MeterReading(now_s, reading.energy_mj, reading.power_mw)
        self._account = board_energy.count(before, meter, most_mw)
        if reading.power_mw is not None:
            self._idle_mw = min(self._idle_mw or reading.power_mw, reading.power_mw)
        window_s = now_s - before.last.at_s if before.last else 0.0
        grown_mj = self._account.total_mj - before.total_mj
        power_mw, power_source = self._power(now_s)
        slices = self._charge(readings, grown_mj, window_s)
        source = weakest((self._account.source, self._label))
        attributed = weakest((source, FigureSource.ATTRIBUTED))
        self._state = BoardState(
            seen_at_s=now_s,
            mode_on=self._state.mode_on,
            slices=slices,
            reading=reading,
            energy=EnergyFigure(self._account.total_mj, source, self._account.figure.method),
            power_mw=power_mw if power_source is not FigureSource.UNAVAILABLE else float(reading.power_mw or 0),
            power_source=power_source,
            idle_mw=self._idle_mw,
            unallocated=EnergyFigure(self._accounts.unallocated_mj, attributed, self._accounts.rule),
            former_mj=self._accounts.former_mj,
            events=tuple(sorted(self._events.items())),
        )

    def _power(self, now_s: float) -> tuple[float, FigureSource]:
        """Mean power over the window, with its label."""
        totals = self._totals
        totals.append((now_s, self._account.total_mj))
        while len(totals) > 2 and now_s - totals[1][0] >= POWER_WINDOW_S:
            totals.popleft()
        window_s = now_s - totals[0][0]
        source = weakest((board_energy.window_source(window_s, self._account.source), self._label))
        return ((self._account.total_mj - totals[0][1]) / window_s if window_s > 0 else 0.0), source

    def _charge(self, readings: dict[int, SliceReading], grown_mj: float, window_s: float) -> tuple[SliceState, ...]:
        """Slices with what the window brought them."""
        if self.table is None:
            return ()
        standing = [one for one in self._state.slices if one.uuid]
        uses = [_use(one, readings.get(one.instance.gi_id), self.table) for one in standing]
        before, idle_mj = self._accounts, self._idle_mw * window_s
        self._accounts = slice_accounts.charge(before, grown_mj, idle_mj, self.table.memory_slices, uses)
        label = weakest((self._account.source, self._label, FigureSource.ATTRIBUTED))
        return tuple(self._charged(one, readings, before, label, window_s) for one in self._state.slices)

    def _charged(
        self,
        one: SliceState,
        readings: dict[int, SliceReading],
        before: SliceAccounts,
        label: FigureSource,
        window_s: float,
    ) -> SliceState:
        total_mj = self._accounts.slices.get(one.uuid, 0.0)
        grown_mj = total_mj - before.slices.get(one.uuid, 0.0)
        return replace(
            one,
            reading=readings.get(one.instance.gi_id),
            energy=EnergyFigure(total_mj, label, self._accounts.rule),
            power_mw=grown_mj / window_s if window_s > 0 else 0.0,
        )


def _use(one: SliceState, reading: SliceReading | None, table: DeviceTable) -> SliceUse:
    profile = table.profile(one.instance.profile_id)
    return SliceUse(
        key=one.uuid,
        memory_slices=one.instance.placement.size,
        multiprocessors=profile.multiprocessor_count if profile else 0,
        sm_activity=reading.sm_activity if reading else 0.0,
        dram_activity=reading.dram_activity if reading else None,
        occupied=reading is not None and reading.memory_used_bytes >= OCCUPIED_BYTES,
    )
