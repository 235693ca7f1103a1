"""Times a variant's dispatches on a partition of its own, in a process that ends with the call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import Any, Final

from services.node_agent.core.dispatch_times import DispatchTime, read_statistics
from services.node_agent.core.target import ReplicaSpec
from services.node_agent.serving.workbench import Workbench
from services.node_agent.wire import file_of
from tradewind.domain.errors import Internal, InvalidField, RemoteError
from tradewind.v1 import node_pb2, profiler_pb2

# A line holds the statistics of one function: some hundred bytes for each of its dispatches.
LINE_BYTES: Final = 16 << 20


class DispatchTimer:
    """Runs one at a time, in turn with measurements: two would time each other.

    Args:
        bench: of the agent.
        turn: held by whoever measures.
    """

    def __init__(self, bench: Workbench, turn: asyncio.Lock) -> None:
        self._bench, self._turn = bench, turn

    async def time(self, request: node_pb2.TimeDispatchesRequest) -> node_pb2.TimeDispatchesResponse:
        """See the contract."""
        if not request.variant_id or not request.manifest.digest:
            raise InvalidField("variant_id", "variant_id and manifest say what to time; both are needed")
        async with self._turn:
            envelope = file_of(request.manifest)
            manifest = await self._bench.fetcher.variant(request.variant_id, envelope)
            known = [f.name for f in manifest.functions]
            if request.function and request.function not in known:
                raise InvalidField("function", f"there is no {request.function!r}, only {', '.join(known)}")
            device = self._bench.inventory.for_target(manifest.target, request.device_id)
            kind = request.partition_kind or device.facts.partition_kinds[-1]
            partition = device.cut(kind, self._bench.busy())
            spec = ReplicaSpec(
                replica_id="dispatches",
                deployment_id="",
                variant_id=request.variant_id,
                manifest=envelope,
                partition_id=partition.partition_id,
                device_id=partition.device_id,
                partition_kind=kind,
                cpu_ids=partition.cpu_ids,
                batch_limit=0,
            )
            told = self._bench.process_spec(spec, self._bench.envelope_path(envelope.digest), 0)
            found = await _run(told.to_json(), request.function)
        return node_pb2.TimeDispatchesResponse(dispatches=[cost for times in found for cost in _costs(times)])


async def _run(spec: str, function: str) -> list[list[DispatchTime]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.node_agent.replica.dispatches", spec, function),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=LINE_BYTES,
    )
    assert process.stdout is not None
    times: list[list[DispatchTime]] = []
    try:
        while line := await process.stdout.readline():
            times.append(_heard(json.loads(line)))
        code = await process.wait()
    finally:
        # The tools it runs are in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if not times:
        raise Internal(f"the timing process ended with code {code}; its log says more")
    return times


def _heard(message: dict[str, Any]) -> list[DispatchTime]:
    if (failed := message.get("failed")) is not None:
        raise RemoteError(failed["reason"], "INTERNAL", failed["message"])
    try:
        return read_statistics(message["statistics"], message["function"], message["calls"])
    except ValueError as error:
        raise Internal(str(error)) from error


def _costs(times: list[DispatchTime]) -> list[profiler_pb2.DispatchCost]:
    whole_us = sum(t.total_us for t in times) or 1.0
    return [
        profiler_pb2.DispatchCost(
            name=t.name, count=round(t.count), total_us=t.total_us, share=t.total_us / whole_us, function=t.function
        )
        for t in times
    ]
