"""One replica process: start it, hear what it says, end it. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
import structlog

from services.node_agent.core.energy import Rate
from services.node_agent.core.governor import Limits, Work
from services.node_agent.replica.device import NO_IDLE_BOOST, VISIBLE_DEVICES
from services.node_agent.replica.latencies import Stats
from services.node_agent.replica.spec import ProcessSpec
from tradewind.domain.errors import JobTimeout, RemoteError, ReplicaLost, TradewindError
from tradewind.rpc.client import open_channel
from tradewind.v1 import inference_pb2

# Between asking a process to end and killing it.
STOP_LIMIT_S: Final = 5.0
# For calls in hand of a process that is gone to notice.
CLOSE_GRACE_S: Final = 1.0
# A step of a small model takes milliseconds; one that takes this long never ends.
STALL_LIMIT_S: Final = 60.0
# Statistics come twice a second; a process that says nothing for this long is stopped or swapped out.
SILENCE_LIMIT_S: Final = 60.0
_GENERATE: Final = "/tradewind.v1.InferenceService/Generate"
_INFER: Final = "/tradewind.v1.InferenceService/Infer"


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """How a replica does, as it last said."""

    active: int = 0
    queued: int = 0
    generated_tokens: int = 0
    stalled_s: float = 0.0
    ttft: Stats = field(default_factory=Stats)
    tpot: Stats = field(default_factory=Stats)
    totals: dict[str, float] = field(default_factory=dict)


class ReplicaProcess:
    """A running replica process. Make it with `start`; always `stop` it."""

    def __init__(self, spec: ProcessSpec, process: asyncio.subprocess.Process, silence_limit_s: float) -> None:
        self.spec, self.pid = spec, process.pid
        self._silence_limit_s = silence_limit_s
        self.stats = ReplicaStats()
        self.stage = "starting"
        self.load_s = 0.0
        self.error: TradewindError | None = None
        self._work: asyncio.Future[Work] | None = None
        self._process = process
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._channel: grpc.aio.Channel | None = None
        self._log = structlog.get_logger("replica")
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, spec: ProcessSpec, silence_limit_s: float = SILENCE_LIMIT_S) -> ReplicaProcess:
        """Starts the process; it is loading when this returns.

        Args:
            spec: what it is told.
            silence_limit_s: once it serves, it counts as hanging when it says nothing for this long.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.node_agent.replica",
            spec.to_json(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment_of(spec),
            # Ctrl-C in a terminal is for the agent, which stops its replicas in order.
            start_new_session=True,
        )
        return cls(spec, process, silence_limit_s)

    async def ready(self, limit_s: float) -> None:
        """Returns when it serves.

        Raises:
            JobTimeout: it did not within the limit.
            TradewindError: it said why it cannot, or ended.
        """
        waits = {asyncio.create_task(self._ready.wait()), asyncio.create_task(self._ended.wait())}
        try:
            await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.error is not None:
            raise self.error
        if self._ended.is_set():
            raise self._lost()
        if not self._ready.is_set():
            raise JobTimeout(
                f"the replica was not ready after {limit_s:.0f} s (it was {self.stage}); raise load_limit_s if the "
                "machine is that slow"
            )

    async def ended(self) -> TradewindError:
        """Returns, with the reason, when the process is gone, hangs or says nothing any more."""
        while True:
            heard = self.stats
            try:
                async with asyncio.timeout(self._silence_limit_s):
                    await self._ended.wait()
            except TimeoutError:
                if heard is self.stats or self.stats.stalled_s > STALL_LIMIT_S:
                    return ReplicaLost(f"the replica hangs: nothing came from it for {self._silence_limit_s:.0f} s")
                continue
            return self.error or self._lost()

    async def stop(self) -> None:
        """Ends the process: asked first, killed after a while. Idempotent; returns when it is gone."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(STOP_LIMIT_S):
                    await self._process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        if self._channel is not None:
            # Calls in hand hear by themselves that the far end is gone; closing at once would only cancel them.
            await self._channel.close(CLOSE_GRACE_S)
        await self._listener
        self.spec.socket.unlink(missing_ok=True)

    def kill(self) -> None:
        """Ends the process at once; `stop` still has to be awaited."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def generate(
        self, request: inference_pb2.GenerateRequest, timeout_s: float | None
    ) -> grpc.aio.UnaryStreamCall[inference_pb2.GenerateRequest, bytes]:
        """Begins a generation; its messages come as bytes, for whoever only passes them on."""
        if self._channel is None:
            self._channel = open_channel(f"unix:{self.spec.socket}")
        call: Any = self._channel.unary_stream(
            _GENERATE, request_serializer=inference_pb2.GenerateRequest.SerializeToString, response_deserializer=None
        )
        return call(request, timeout=timeout_s)  # type: ignore[no-any-return]

    async def infer(self, request: inference_pb2.InferRequest, timeout_s: float | None) -> bytes:
        """Asks a tensor model; the answer comes as bytes, for whoever only passes it on."""
        if self._channel is None:
            self._channel = open_channel(f"unix:{self.spec.socket}")
        call: Any = self._channel.unary_unary(
            _INFER, request_serializer=inference_pb2.InferRequest.SerializeToString, response_deserializer=None
        )
        return await call(request, timeout=timeout_s)  # type: ignore[no-any-return]

    def tell_rate(self, rate: Rate) -> None:
        """Says what CPU time costs from now on."""
        self._tell({"rate": asdict(rate)})

    def tell_limits(self, limits: Limits) -> None:
        """Says what requests may take from now on, and their pace."""
        self._tell({"limits": {name: limit for name, limit in asdict(limits).items() if math.isfinite(limit)}})

    def _tell(self, message: dict[str, Any]) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def work(self, limit_s: float) -> Work | None:
        """What it has in hand; None when it does not say so within the limit. Asked once at a time."""
        if self._work is None:
            self._work = asyncio.get_running_loop().create_future()
            self._tell({"ask": "work"})
        done, _ = await asyncio.wait({self._work}, timeout=limit_s)
        return done.pop().result() if done else None

    @property
    def memory_bytes(self) -> int:
        """Resident memory; 0 when it is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    @property
    def peak_memory_bytes(self) -> int:
        """Peak of resident memory so far; 0 when it is gone."""
        try:
            text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
            line = next(part for part in text.splitlines() if part.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
        except (OSError, StopIteration):
            return self.memory_bytes

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._hear(json.loads(line))
        await self._process.wait()
        self._ended.set()

    def _hear(self, message: dict[str, Any]) -> None:
        if (stats := message.get("stats")) is not None:
            self.stats = ReplicaStats(**{**stats, "ttft": Stats(**stats["ttft"]), "tpot": Stats(**stats["tpot"])})
        elif (work := message.get("work")) is not None:
            asked, self._work = self._work, None
            if asked is not None:
                asked.set_result(Work(**work))
        elif (stage := message.get("stage")) is not None:
            self.stage = stage
        elif (ready := message.get("ready")) is not None:
            self.load_s = float(ready["load_s"])
            self._ready.set()
        elif (failed := message.get("failed")) is not None:
            self.error = RemoteError(failed["reason"], "INTERNAL", failed["message"])

    def _lost(self) -> ReplicaLost:
        code = self._process.returncode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        return ReplicaLost(f"the replica process {how} (it was {self.stage}); its log says more")


def environment_of(spec: ProcessSpec) -> dict[str, str]:
    """The agent's own, the board or slice that the process may see (none for one on a CPU), and its clocks at rest."""
    calm = {} if spec.idle_boost or not spec.gpu_uuid else {NO_IDLE_BOOST: "1"}
    return {**os.environ, VISIBLE_DEVICES: spec.gpu_uuid, **calm}
