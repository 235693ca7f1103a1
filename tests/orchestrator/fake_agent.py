"""A node agent of a few lines that speaks the real wire: connects, reports, obeys the newest target, keeps a history.

Replicas become ready after one report unless their variant is in `broken`; draining ones end when `hold_drains` is off.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from services.node_agent.orchestrators import Orchestrators
from tests.orchestrator.neighbours import CPU
from tradewind.domain.errors import TradewindError
from tradewind.rpc.errors import translated
from tradewind.v1 import node_pb2

PERIOD_S = 0.2
_S = node_pb2


class FakeAgent:
    """One node."""

    def __init__(self, address: str, node_id: str = "n1", cores: int = 4, labels: dict[str, str] | None = None) -> None:
        self.address, self.node_id, self.cores, self.labels = address, node_id, cores, labels or {}
        self.replicas: dict[str, node_pb2.ReplicaStatus] = {}
        self.specs: dict[str, node_pb2.ReplicaSpec] = {}
        self.target: node_pb2.NodeTarget | None = None
        self.targets: list[node_pb2.NodeTarget] = []
        self.stale: list[node_pb2.NodeTarget] = []
        self.starts: list[str] = []
        self.broken: dict[str, str] = {}
        self.hold_drains = False
        self.silent = False
        self.connections = 0
        self._epoch, self._sequence = time.time_ns(), 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> FakeAgent:
        self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()

    def connect(self) -> None:
        """Connects, and again whenever the stream breaks."""
        self._task = asyncio.ensure_future(self._run())

    async def disconnect(self) -> None:
        """Cuts the stream; replicas live on."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def restart(self) -> None:
        """The agent process is a new one and its replicas are gone."""
        self._epoch, self._sequence = time.time_ns(), 0
        self.replicas, self.specs, self.target = {}, {}, None

    def crash(self, replica_id: str) -> None:
        """A replica's process dies; the agent will start it again."""
        self.replicas[replica_id].state = _S.REPLICA_STATE_FAILED
        self.replicas[replica_id].reason = "killed by signal 9"
        self._news.set()

    def states(self) -> dict[str, str]:
        """Replica states by id."""
        return {
            name: node_pb2.ReplicaState.Name(r.state).removeprefix("REPLICA_STATE_").lower()
            for name, r in sorted(self.replicas.items())
        }

    async def _run(self) -> None:
        orchestrators = Orchestrators(self.address)
        try:
            while True:
                stub: Any = await orchestrators.stub()
                self.connections += 1
                try:
                    with translated("orchestrator"):
                        async for response in stub.Connect(self._reports()):
                            self._obey(response.target)
                    orchestrators.ended()
                except TradewindError as error:
                    orchestrators.failed(error)
                await asyncio.sleep(PERIOD_S / 2)
        finally:
            await orchestrators.close()

    async def _reports(self) -> Any:
        while True:
            if not self.silent:
                yield node_pb2.ConnectRequest(report=self._report())
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), PERIOD_S)
            self._live()

    def _obey(self, target: node_pb2.NodeTarget) -> None:
        assert target.node_id == self.node_id
        order = (target.fencing, target.generation, target.step)
        if self.target and order < (self.target.fencing, self.target.generation, self.target.step):
            self.stale.append(target)
            return
        self.target = target
        self.targets.append(target)
        self._live()
        self._news.set()

    def _live(self) -> None:
        """One step of each replica towards the target."""
        if self.target is None:
            return
        wanted = {spec.replica_id: spec for spec in self.target.replicas}
        for name in [name for name in self.replicas if name not in wanted]:
            del self.replicas[name], self.specs[name]
        for name, spec in wanted.items():
            self.specs[name] = spec
            if name not in self.replicas:
                self.starts.append(name)
                self.replicas[name] = node_pb2.ReplicaStatus(
                    replica_id=name,
                    deployment_id=spec.deployment_id,
                    variant_id=spec.variant_id,
                    partition_id=spec.partition.partition_id,
                    state=_S.REPLICA_STATE_STARTING,
                    starts=1,
                )
            else:
                self._advance(self.replicas[name], spec)

    def _advance(self, status: node_pb2.ReplicaStatus, spec: node_pb2.ReplicaSpec) -> None:
        drain = spec.intent == _S.REPLICA_INTENT_DRAIN
        if status.state == _S.REPLICA_STATE_FAILED:
            if not drain:
                status.starts += 1
                status.state = _S.REPLICA_STATE_STARTING
        elif status.state == _S.REPLICA_STATE_STARTING:
            broken = self.broken.get(spec.variant_id, "")
            status.state = _S.REPLICA_STATE_FAILED if broken else _S.REPLICA_STATE_READY
            status.reason = broken
        elif drain and status.state == _S.REPLICA_STATE_READY:
            status.state = _S.REPLICA_STATE_DRAINING
        elif drain and status.state == _S.REPLICA_STATE_DRAINING and not self.hold_drains:
            status.state = _S.REPLICA_STATE_DRAINED
        elif not drain and status.state in (_S.REPLICA_STATE_DRAINING, _S.REPLICA_STATE_DRAINED):
            status.state = _S.REPLICA_STATE_READY

    def _report(self) -> node_pb2.NodeReport:
        self._sequence += 1
        report = node_pb2.NodeReport(
            node_id=self.node_id,
            boot_id="boot",
            agent_epoch=self._epoch,
            sequence=self._sequence,
            address=f"{self.node_id}:7410",
            labels=self.labels,
            devices=[
                node_pb2.Device(
                    device_id="cpu0",
                    kind=node_pb2.DEVICE_KIND_CPU,
                    device_class=CPU,
                    memory_bytes=8 << 30,
                    cpu_ids=range(self.cores),
                    partition_kinds=[f"cpu/{n + 1}" for n in range(self.cores)],
                    idle_power_mw=10_000,
                )
            ],
            replicas=self.replicas.values(),
            observed_generation=self.target.generation if self.target else 0,
            observed_fencing=self.target.fencing if self.target else 0,
        )
        copied = node_pb2.NodeReport()
        copied.CopyFrom(report)
        return copied
