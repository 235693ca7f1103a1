"""A replica's life on this node: fetch, start, serve, fail, try again, go. Follows the table in core.replica_states."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from services.node_agent.artifacts.fetcher import Fetcher
from services.node_agent.artifacts.store import ArtifactStore
from services.node_agent.core.backoff import RESTART
from services.node_agent.core.fallback import Descent, Link, check_target
from services.node_agent.core.governor import Limits
from services.node_agent.core.reconcile import Observed
from services.node_agent.core.replica_states import Event, ReplicaState, after
from services.node_agent.core.target import ReplicaSpec
from services.node_agent.replica.spec import ProcessSpec
from services.node_agent.supervision.process import ReplicaProcess
from tradewind.domain.errors import DeviceFault, Internal, NoReadyReplica, TradewindError, reason_of

# A replica that served this long starts its back-off anew when it fails.
STABLE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What replicas need of their agent.

    Attributes:
        check: raises InvalidField for a partition this node does not have.
        targets: those that a device runs, by its id.
        process_spec: what a process is told (replica id, variant id, envelope, CPU ids, batch limit).
        now_s: monotonic clock.
        draw: uniform in [0, 1).
        changed: called after each change of state.
        emptied: called when the last request in hand of a replica is done.
    """

    fetcher: Fetcher
    store: ArtifactStore
    check: Callable[[ReplicaSpec], None]
    targets: Callable[[str], tuple[str, ...]]
    process_spec: Callable[[ReplicaSpec, Path, int], ProcessSpec]
    load_limit_s: float
    now_s: Callable[[], float]
    draw: Callable[[], float]
    changed: Callable[[], None]
    emptied: Callable[[], None]


class Replica:
    """One replica as wanted, and how far it is."""

    def __init__(self, spec: ReplicaSpec, around: Surroundings) -> None:
        self.spec = spec
        self.state = ReplicaState.FETCHING
        self.reason = ""
        self.starts = 0
        self.failures = 0
        self.load_s = 0.0
        self.in_hand = 0
        self.process: ReplicaProcess | None = None
        self.digests: frozenset[str] = frozenset({spec.manifest.digest})
        self.limits = spec.limits
        self._descent = Descent(spec.links)
        self._around = around
        self._retry_at_s = 0.0
        self._log = structlog.get_logger("replica").bind(replica=spec.replica_id)
        self._life: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def observed(self) -> Observed:
        """For the reconciler."""
        return Observed(self.spec, self.state, self.in_hand, self._retry_at_s)

    @property
    def variant_id(self) -> str:
        """The variant that it runs or loads: its spec's, or a fallback."""
        return self._descent.link.variant_id

    @property
    def words(self) -> str:
        """Why it failed, or why it runs a fallback; "" when there is nothing to say."""
        return self.reason or self._descent.words

    def begin(self) -> None:
        """Fetches, starts and watches; for a new replica and for one that failed."""
        if self.state is ReplicaState.FAILED:
            self._to(Event.RETRY)
        self._life = asyncio.create_task(self._live())

    def on(self, event: Event) -> None:
        """Moves it as the reconciler decided."""
        self._to(event)

    def follow(self, limits: Limits) -> None:
        """Its requests may take so long from now on."""
        if limits != self.limits:
            self.limits = limits
            if self.process is not None:
                self.process.tell_limits(limits)

    async def remove(self) -> None:
        """Ends it; returns when its process is gone."""
        self._to(Event.REMOVE)
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        if self._ending is not None:
            await self._ending

    @contextmanager
    def holding(self) -> Iterator[ReplicaProcess]:
        """Counts a request in hand while open.

        Raises:
            NoReadyReplica: it takes nothing now.
        """
        if self.state is not ReplicaState.READY or self.process is None:
            raise NoReadyReplica(
                f"replica {self.spec.replica_id} is {self.state.name.lower()} and takes no requests; try another",
                {"replica": self.spec.replica_id, "state": self.state.name},
            )
        self.in_hand += 1
        try:
            yield self.process
        finally:
            self.in_hand -= 1
            if not self.in_hand:
                self._around.emptied()

    async def _live(self) -> None:
        """From FETCHING until it fails or is cancelled; the process never outlives this."""
        ready_at_s: float | None = None
        try:
            self._around.check(self.spec)
            process = await self._load()
            self.load_s, ready_at_s = process.load_s, self._around.now_s()
            process.tell_limits(self.limits)
            self._to(Event.READY)
            raise await process.ended()
        except TradewindError as error:
            await self._fail(error, ready_at_s)
        except Exception as error:  # noqa: BLE001  whatever it is, the replica is down and the report must say so
            self._log.error("replica failed by a fault of ours", exc_info=error)
            await self._fail(Internal(f"{type(error).__name__}: {error}"), ready_at_s)
        finally:
            await self._end_process()

    async def _load(self) -> ReplicaProcess:
        """A process that is ready, of the first link of its chain that the device takes.

        Raises:
            TradewindError: the last link failed, or one for a reason that is not the device's.
        """
        while True:
            try:
                return await self._load_link(self._descent.link)
            except TradewindError as error:
                further = self._descent.after(reason_of(error), error.message)
                if further is None:
                    raise self._exhausted(error) from error
                await self._end_process()
                self._descent = further
                self._log.warning("fell back", why=further.words)
                self._to(Event.REFUSED)

    async def _load_link(self, link: Link) -> ReplicaProcess:
        manifest = await self._around.fetcher.manifest(link.variant_id, link.manifest)
        if not self._descent.is_last:
            check_target(manifest.target, manifest.compiled_target, self._around.targets(self.spec.device_id))
        self.digests = frozenset({link.manifest.digest, *(f.digest for f in manifest.files)})
        await self._around.fetcher.variant(link.variant_id, link.manifest)
        self._to(Event.FETCHED)
        self.starts += 1
        envelope = self._around.store.path_of(link.manifest.digest)
        spec = replace(self.spec, variant_id=link.variant_id, manifest=link.manifest)
        self.process = process = await ReplicaProcess.start(self._around.process_spec(spec, envelope, self.starts))
        await process.ready(self._around.load_limit_s)
        return process

    def _exhausted(self, error: TradewindError) -> TradewindError:
        """The error, or that no link is left; the next try begins with the first again."""
        words = self._descent.exhausted(reason_of(error), error.message)
        if not words:
            return error
        self._descent = Descent(self.spec.links)
        return DeviceFault(words)

    async def _fail(self, error: TradewindError, ready_at_s: float | None) -> None:
        await self._end_process()
        if reason_of(error) == "ARTIFACT_REJECTED":
            bad = await asyncio.to_thread(self._around.store.recheck, sorted(self.digests))
            self._log.warning("changed files were thrown away", digests=bad)
        now_s = self._around.now_s()
        stable = ready_at_s is not None and now_s - ready_at_s > STABLE_S
        self.failures = 1 if stable else self.failures + 1
        self._retry_at_s = now_s + RESTART.pause_s(self.failures, self._around.draw())
        self.reason = f"{reason_of(error)}: {error.message}"
        self._log.warning("replica failed", reason=self.reason, failures=self.failures)
        self._to(Event.FAILED)

    async def _end_process(self) -> None:
        if self.process is not None:
            self._ending = asyncio.create_task(self.process.stop())
            self.process = None
        if self._ending is not None:
            # A life that is cancelled here leaves the task to `remove`.
            await asyncio.shield(self._ending)

    def _to(self, event: Event) -> None:
        before, self.state = self.state, after(self.state, event)
        if self.state is not ReplicaState.FAILED:
            self.reason = ""
        self._log.info("replica moved", before=before.name, by=event.value, now=self.state.name)
        self._around.changed()
