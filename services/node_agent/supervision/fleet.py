"""All replicas of this node: keeps reconciling what there is with the newest target. The decision is core.reconcile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from services.node_agent.core import reconcile
from services.node_agent.core.energy import Rate
from services.node_agent.core.governor import Limits
from services.node_agent.core.reconcile import Create, Drain, Remove, Retry, Serve, Settle
from services.node_agent.core.replica_states import Event, ReplicaState
from services.node_agent.core.target import ReplicaSpec
from services.node_agent.supervision.process import ReplicaProcess
from services.node_agent.supervision.replica import Replica, Surroundings
from tradewind.domain.errors import NotFound

# The whole state is looked at this often, whatever was or was not noticed.
PERIOD_S: Final = 5.0


class Fleet:
    """The replicas of a node.

    Args:
        around: makes what replicas need, given what to call on a change and when one has nothing in hand.
        on_change: called after each change of any replica.
        now_s: monotonic clock.
    """

    def __init__(
        self,
        around: Callable[[Callable[[], None], Callable[[], None]], Surroundings],
        on_change: Callable[[], None],
        now_s: Callable[[], float],
    ) -> None:
        self._around = around(self._changed, self._on_emptied)
        self._on_change, self._now_s = on_change, now_s
        self._replicas: dict[str, Replica] = {}
        self._wanted: tuple[ReplicaSpec, ...] = ()
        self._wake = asyncio.Event()
        self._emptied = asyncio.Event()
        self._removals: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("fleet")

    def start(self) -> None:
        """Begins to reconcile."""
        self._task = asyncio.create_task(self._run())

    def want(self, replicas: tuple[ReplicaSpec, ...]) -> None:
        """Every replica there shall be from now on."""
        self._wanted = replicas
        for spec in replicas:
            if spec.replica_id in self._replicas:
                self._replicas[spec.replica_id].follow(spec.limits)
        self._wake.set()

    @property
    def replicas(self) -> list[Replica]:
        """Every replica there is, by id."""
        return [self._replicas[replica_id] for replica_id in sorted(self._replicas)]

    def find(self, replica_id: str) -> Replica:
        """One replica.

        Raises:
            NotFound: this node does not run it.
        """
        try:
            return self._replicas[replica_id]
        except KeyError:
            raise NotFound("replica", replica_id, "this node does not run it") from None

    @property
    def digests(self) -> set[str]:
        """Artifacts that replicas here need."""
        return set().union(*(replica.digests for replica in self._replicas.values()))

    @property
    def busy(self) -> set[int | str]:
        """CPUs, and UUIDs of slices, that replicas here have."""
        specs = [replica.spec for replica in self._replicas.values()]
        return {cpu for spec in specs for cpu in spec.cpu_ids} | {s.partition_uuid for s in specs if s.partition_uuid}

    @property
    def held(self) -> dict[str, tuple[str, ...]]:
        """Replicas here by the partition they have, draining ones included, in words."""
        held: dict[str, tuple[str, ...]] = {}
        # Boards are kept on threads of their own: the copy is taken in one step.
        for replica in list(self._replicas.values()):
            partition_id = replica.spec.partition_id
            held[partition_id] = (*held.get(partition_id, ()), f"replica {replica.spec.replica_id}")
        return held

    def abandon(self, device_id: str) -> None:
        """Ends every process on a device that cannot be trusted any more; their replicas fail, and say why."""
        for replica in self._replicas.values():
            if replica.process is not None and replica.spec.device_id == device_id:
                replica.process.kill()

    def at_work(self, device_id: str) -> list[tuple[Limits, ReplicaProcess]]:
        """Processes on a device that have requests in hand, and the newest limits of those."""
        return [
            (replica.limits, replica.process)
            for replica in self._replicas.values()
            if replica.process is not None and replica.in_hand and replica.spec.device_id == device_id
        ]

    def tell_rate(self, device_id: str, rate: Rate) -> None:
        """Says to every process on a device what its busy time costs from now on."""
        for replica in self._replicas.values():
            if replica.process is not None and replica.spec.device_id == device_id:
                replica.process.tell_rate(rate)

    async def drain(self, limit_s: float) -> int:
        """Stops reconciling, takes nothing new, and waits until nothing is in hand.

        Args:
            limit_s: longest wait.

        Returns:
            Requests still in hand at the limit.
        """
        await self._stop_reconciling()
        for replica in self._replicas.values():
            if replica.state is ReplicaState.READY:
                replica.on(Event.DRAIN)
        deadline_s = self._now_s() + limit_s
        while left := sum(replica.in_hand for replica in self._replicas.values()):
            self._emptied.clear()
            try:
                async with asyncio.timeout(deadline_s - self._now_s()):
                    await self._emptied.wait()
            except TimeoutError:
                return left
        return 0

    async def stop(self) -> None:
        """Stops reconciling and ends every replica. Idempotent."""
        await self._stop_reconciling()
        for replica_id, replica in list(self._replicas.items()):
            if replica.state is not ReplicaState.STOPPING:
                self._remove(replica_id)
        if self._removals:
            await asyncio.gather(*self._removals)

    async def _stop_reconciling(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            observed = [replica.observed for replica in self._replicas.values()]
            for action in reconcile.step(self._wanted, observed, self._now_s()):
                self._apply(action)
            retry_at_s = reconcile.next_retry_s([r.observed for r in self._replicas.values()])
            pause_s = PERIOD_S if retry_at_s is None else min(PERIOD_S, max(0.0, retry_at_s - self._now_s()) + 0.001)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            self._wake.clear()

    def _apply(self, action: reconcile.Action) -> None:
        self._log.info("act", action=type(action).__name__, **_subject(action))
        match action:
            case Create(spec):
                self._replicas[spec.replica_id] = replica = Replica(spec, self._around)
                replica.begin()
                self._on_change()
            case Retry(replica_id):
                self._replicas[replica_id].begin()
            case Drain(replica_id):
                self._replicas[replica_id].on(Event.DRAIN)
            case Settle(replica_id):
                self._replicas[replica_id].on(Event.EMPTIED)
            case Serve(replica_id):
                self._replicas[replica_id].on(Event.SERVE)
            case Remove(replica_id):
                self._remove(replica_id)

    def _remove(self, replica_id: str) -> None:
        async def remove() -> None:
            await self._replicas[replica_id].remove()
            del self._replicas[replica_id]
            self._changed()

        task = asyncio.create_task(remove())
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    def _on_emptied(self) -> None:
        self._emptied.set()
        self._wake.set()

    def _changed(self) -> None:
        self._wake.set()
        self._on_change()


def _subject(action: reconcile.Action) -> dict[str, str]:
    return {"replica": action.spec.replica_id if isinstance(action, Create) else action.replica_id}
