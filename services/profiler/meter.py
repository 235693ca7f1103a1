"""Measures on node agents over gRPC. The end of the call ends the process on the node: cancelling cleans up there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from services.profiler.core.campaign import Job
from services.profiler.core.settings import DEFAULT
from services.profiler.ports import OnProgress
from tradewind.domain.errors import Internal, JobTimeout
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.v1 import node_pb2, node_pb2_grpc, profiler_pb2

# One operating point: a dozen loads of a large model on a slow machine stay below this.
MEASURE_LIMIT_S: Final = 1_800.0
# Nothing heard for this long means that the agent hangs: fetching and loading a model reports progress in between.
SILENCE_LIMIT_S: Final = 180.0


class AgentMeter:
    """Asks the node agent at the job's address.

    Args:
        silence_limit_s: how long an agent may say nothing.
    """

    def __init__(self, silence_limit_s: float = SILENCE_LIMIT_S) -> None:
        self._silence_limit_s = silence_limit_s

    async def measure(self, job: Job, on_progress: OnProgress) -> profiler_pb2.Profile:
        """Runs a job to its end and returns what the agent sent, loads gathered.

        Raises:
            ServiceUnavailable: the agent went away.
            JobTimeout: it said nothing for `silence_limit_s`.
            Internal: it ended without a result.
            RemoteError: it refused.
        """
        channel = open_channel(job.address)
        stub: Any = node_pb2_grpc.NodeAgentServiceStub(channel)
        try:
            with translated(f"node agent of {job.node_id} at {job.address}"):
                return await self._gather(job, stub.Measure(_request(job), timeout=MEASURE_LIMIT_S), on_progress)
        finally:
            await channel.close(None)

    async def _gather(
        self, job: Job, stream: AsyncIterator[node_pb2.MeasureResponse], on_progress: OnProgress
    ) -> profiler_pb2.Profile:
        loads: list[profiler_pb2.LoadPoint] = []
        news = aiter(stream)
        while True:
            try:
                async with asyncio.timeout(self._silence_limit_s):
                    message = await anext(news)
            except StopAsyncIteration:
                raise Internal(f"node {job.node_id} ended the measurement of {job.title} without a result") from None
            except TimeoutError:
                raise JobTimeout(
                    f"node {job.node_id} said nothing for {self._silence_limit_s:.0f} s while it measured {job.title}; "
                    "see the agent's log"
                ) from None
            on_progress(message.stage, message.progress)
            if message.HasField("load"):
                loads.append(message.load)
            if message.HasField("profile"):
                return _whole(message.profile, loads)


def _whole(profile: profiler_pb2.Profile, loads: list[profiler_pb2.LoadPoint]) -> profiler_pb2.Profile:
    """The last message's profile holds all loads; one that holds none gets those sent on the way."""
    if not profile.loads:
        profile.loads.extend(loads)
    return profile


def _request(job: Job) -> node_pb2.MeasureRequest:
    return node_pb2.MeasureRequest(
        variant_id=job.variant.variant_id,
        manifest=job.variant.manifest,
        device_id=job.device.device_id,
        partition_kind=job.partition_kind,
        batch_limit=job.batch_limit,
        power=job.power if job.power != DEFAULT else None,
        loads=[
            node_pb2.MeasureLoad(
                prompt_tokens=load.prompt_tokens,
                output_tokens=load.output_tokens,
                concurrency=load.concurrency,
                repeats=load.repeats,
            )
            for load in job.loads
        ],
    )
