"""Brings a request to a replica: admission, choice, waiting, retries until the first token, cancellation."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias, TypeVar

import grpc
import structlog

from services.gateway.core.choice import capacity, choose
from services.gateway.core.held import Chain, HeldPrompts, chain_of
from services.gateway.core.room import full
from services.gateway.limits import (
    MAX_ATTEMPTS,
    MAX_WAITING,
    QUEUED_PER_PLACE,
    RETRY_AFTER_S,
    RETRY_PAUSE_S,
    WAIT_ASLEEP_S,
)
from services.gateway.metrics import GatewayMetrics
from services.gateway.routing.channels import Channels
from services.gateway.routing.deadline import Deadline
from services.gateway.routing.table import RouteTable
from tradewind.domain.errors import JobTimeout, NoReadyReplica, Overloaded, ReplicaLost, TradewindError, reason_of
from tradewind.domain.routes import DeploymentRoute, ReplicaRoute
from tradewind.rpc.errors import from_rpc_error
from tradewind.v1 import inference_pb2

# Another replica may well do what this one could not. NOT_FOUND: the replica was stopped since the table was read.
RETRYABLE: Final = frozenset({"REPLICA_LOST", "SERVICE_UNAVAILABLE", "NO_READY_REPLICA", "OVERLOADED", "NOT_FOUND"})

R = TypeVar("R")
Call: TypeAlias = grpc.aio.UnaryStreamCall[inference_pb2.GenerateRequest, inference_pb2.GenerateResponse]


class ReplicaStream:
    """A generation at work on one replica; its first message is in.

    Iterate to the end or `close`: closing cancels the call, which frees the replica's slot at once.
    """

    def __init__(
        self,
        replica: ReplicaRoute,
        call: Call,
        first: inference_pb2.GenerateResponse,
        release: Outstanding,
    ) -> None:
        self.replica = replica
        self._call, self._first, self._release = call, first, release

    async def __aiter__(self) -> AsyncIterator[inference_pb2.GenerateResponse]:
        response = self._first
        while True:
            yield response
            if response.finish_reason:
                return
            response = await read(self._call, self.replica)

    def close(self) -> None:
        """Ends the call if it is still at work. Idempotent."""
        self._call.cancel()
        self._release.leave()


class Outstanding:
    """One request's place in the counts; left once, however often `leave` is called."""

    def __init__(
        self,
        by_replica: Counter[str],
        by_deployment: Counter[str],
        unanswered: Counter[str],
        replica_id: str,
        deployment: str,
        tokens: int,
    ) -> None:
        self._counts = [(by_replica, replica_id, 1), (by_deployment, deployment, 1), (unanswered, replica_id, tokens)]
        for counter, key, count in self._counts:
            counter[key] += count

    def answered(self) -> None:
        """The first token is there. Once."""
        _less(*self._counts.pop())

    def leave(self) -> None:
        """Gives the place back."""
        while self._counts:
            _less(*self._counts.pop())


def _less(counter: Counter[str], key: str, count: int) -> None:
    counter[key] -= count
    if counter[key] <= 0:
        del counter[key]


class Dispatcher:
    """Opens generations on replicas.

    Args:
        table: who there is.
        channels: how to reach them.
        metrics: where retries are counted.
        wait_ready_s: how long a request waits while its deployment has no replica that takes it.
    """

    def __init__(self, table: RouteTable, channels: Channels, metrics: GatewayMetrics, wait_ready_s: float) -> None:
        self._table, self._channels, self._metrics, self._wait_ready_s = table, channels, metrics, wait_ready_s
        self._by_replica: Counter[str] = Counter()
        self._by_deployment: Counter[str] = Counter()
        self._unanswered: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._held = HeldPrompts()
        self._turn = 0
        self._log = structlog.get_logger("dispatch")

    @property
    def outstanding(self) -> dict[str, int]:
        """Requests at work by replica id."""
        return dict(self._by_replica)

    @property
    def waiting(self) -> dict[str, int]:
        """Requests that wait for a replica by deployment."""
        return dict(self._waiting)

    @property
    def at_work(self) -> dict[str, int]:
        """Requests at work by deployment."""
        return dict(self._by_deployment)

    async def open(
        self, deployment: str, prompt: Sequence[int], sampling: inference_pb2.Sampling, deadline: Deadline
    ) -> ReplicaStream:
        """Starts a generation and returns when its first message is in.

        Raises:
            NotFound: no such deployment.
            NoReadyReplica: it has no ready replica, and got none in time.
            Overloaded: too much is at work or waiting already.
            JobTimeout: the deadline passed.
            RemoteError: the replica refused the request.
        """
        chain = chain_of(prompt, sampling.cache_salt)

        async def start(replica: ReplicaRoute) -> ReplicaStream:
            held = self._held.tokens([replica.replica_id], chain).get(replica.replica_id, 0)
            self._held.took(replica.replica_id, chain, replica.batch_limit)
            return await self._start(deployment, replica, prompt, sampling, deadline, held)

        return await self._attempt(deployment, deadline, start, len(prompt), chain)

    async def infer(
        self, deployment: str, inputs: Sequence[inference_pb2.Tensor], deadline: Deadline
    ) -> tuple[ReplicaRoute, inference_pb2.InferResponse]:
        """Asks a replica of a tensor model; which one it was, and its answer. Retried as long as none came.

        Raises:
            as `open`.
        """
        return await self._attempt(
            deployment, deadline, lambda replica: self._ask(deployment, replica, inputs, deadline)
        )

    async def _attempt(
        self,
        deployment: str,
        deadline: Deadline,
        start: Callable[[ReplicaRoute], Awaitable[R]],
        tokens: int = 0,
        chain: Chain = (),
    ) -> R:
        """What a replica gives, tried on several; `tokens` are those of the prompt, `chain` what it is."""
        self._admit(self._table.find(deployment))
        began_s = time.monotonic()
        give_up_s = began_s + self._wait_ready_s
        tried: set[str] = set()
        last: TradewindError | None = None
        attempts = 0
        while attempts < MAX_ATTEMPTS:
            route = self._table.find(deployment)
            if route.asleep:
                # Not a fault but a wish: the cold start was declared, and this request sets it off.
                give_up_s = max(give_up_s, began_s + WAIT_ASLEEP_S)
            unable = tried | full(route.replicas, self._by_replica)
            held = self._held.tokens((r.replica_id for r in route.replicas), chain) if chain else {}
            replica = choose(route.replicas, self._by_replica, self._turn, unable, self._unanswered, tokens, held)
            if replica is None:
                await self._wait(deployment, give_up_s, deadline, last)
                tried.clear()
                continue
            self._turn += 1
            attempts += 1
            try:
                return await start(replica)
            except TradewindError as error:
                if reason_of(error) not in RETRYABLE:
                    raise
                deadline.left_s()
                tried.add(replica.replica_id)
                last = error
                self._metrics.retried(deployment, reason_of(error))
                self._log.info("retry elsewhere", deployment=deployment, replica=replica.replica_id, error=str(error))
        raise last or NoReadyReplica(f"deployment {deployment!r} took no request in {MAX_ATTEMPTS} attempts")

    def _admit(self, route: DeploymentRoute) -> None:
        limit = capacity(route.replicas, QUEUED_PER_PLACE)
        at_work = self._by_deployment[route.name]
        if limit and at_work >= limit:
            raise Overloaded(
                f"deployment {route.name!r} has {at_work} requests at work and waiting, which is its limit; retry in "
                f"{RETRY_AFTER_S} s, or give it more replicas",
                {"limit": str(limit), "retry_after_s": str(RETRY_AFTER_S)},
            )

    async def _wait(self, deployment: str, give_up_s: float, deadline: Deadline, last: TradewindError | None) -> None:
        """Waits a little for the table to change; raises when there is no time or room to wait."""
        left_s = min(give_up_s - time.monotonic(), deadline.left_s())
        if left_s <= 0:
            raise last or NoReadyReplica(
                f"deployment {deployment!r} exists and has no ready replica; `tradewind explain {deployment}` says why",
                {"deployment": deployment, "retry_after_s": str(RETRY_AFTER_S)},
            )
        if self._waiting[deployment] >= MAX_WAITING:
            raise Overloaded(
                f"{MAX_WAITING} requests wait for a ready replica of {deployment!r} already; retry in {RETRY_AFTER_S} s"
            )
        self._waiting[deployment] += 1
        try:
            await self._table.changed(min(left_s, RETRY_PAUSE_S))
        finally:
            self._waiting[deployment] -= 1
            if not self._waiting[deployment]:
                del self._waiting[deployment]

    def _place(self, replica: ReplicaRoute, deployment: str, tokens: int = 0) -> Outstanding:
        return Outstanding(
            self._by_replica, self._by_deployment, self._unanswered, replica.replica_id, deployment, tokens
        )

    async def _ask(
        self, deployment: str, replica: ReplicaRoute, inputs: Sequence[inference_pb2.Tensor], deadline: Deadline
    ) -> tuple[ReplicaRoute, inference_pb2.InferResponse]:
        request = inference_pb2.InferRequest(deployment=deployment, replica_id=replica.replica_id, inputs=inputs)
        place = self._place(replica, deployment)
        try:
            stub = await self._channels.stub(replica.address)
            return replica, await _answer(stub.Infer(request, timeout=deadline.left_s()), replica)
        finally:
            place.leave()

    async def _start(
        self,
        deployment: str,
        replica: ReplicaRoute,
        prompt: Sequence[int],
        sampling: inference_pb2.Sampling,
        deadline: Deadline,
        held: int,
    ) -> ReplicaStream:
        request = inference_pb2.GenerateRequest(
            deployment=deployment,
            replica_id=replica.replica_id,
            token_ids=inference_pb2.TokenIds(ids=prompt),
            sampling=sampling,
        )
        place = self._place(replica, deployment, len(prompt) - held)
        call: Call | None = None
        try:
            stub = await self._channels.stub(replica.address)
            call = stub.Generate(request, timeout=deadline.left_s())
            first = await read(call, replica)
            place.answered()
            return ReplicaStream(replica, call, first, place)
        except BaseException:
            if call is not None:
                call.cancel()
            place.leave()
            raise


async def _answer(call: Awaitable[inference_pb2.InferResponse], replica: ReplicaRoute) -> inference_pb2.InferResponse:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise JobTimeout("the answer was not there in time; try again, or give it longer") from error
        raise from_rpc_error(error, f"node of replica {replica.replica_id}") from error


async def read(call: Call, replica: ReplicaRoute) -> inference_pb2.GenerateResponse:
    """The next message.

    Raises:
        ReplicaLost: the stream ended without saying why.
        JobTimeout: the deadline passed.
        TradewindError: the call failed.
    """
    try:
        response = await call.read()
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise JobTimeout("the generation was not done in time; ask for fewer tokens or try again") from error
        raise from_rpc_error(error, f"node of replica {replica.replica_id}") from error
    if response is grpc.aio.EOF:  # type: ignore[attr-defined]
        raise ReplicaLost(f"replica {replica.replica_id} ended the stream before the generation was done; try again")
    return response  # type: ignore[return-value]
