"""Measures a variant on a partition of its own: a process that is there for this only, and gone when the call ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

import grpc
import structlog

from services.node_agent.core.board_energy import MEASURED_WINDOW_S
from services.node_agent.core.measurement import (
    DEFAULT_REPEATS,
    LoadFigures,
    LoadSpec,
    Sample,
    check_loads,
    figures_of,
    prompt,
)
from services.node_agent.core.meter_window import BY_STEP_TIME, MeterPoint, charge
from services.node_agent.core.shapes import shapes_of
from services.node_agent.core.target import ReplicaSpec
from services.node_agent.devices.port import Device, Partition
from services.node_agent.replica.latencies import stats_of
from services.node_agent.replica.servicer import PHASES_KEY
from services.node_agent.serving.clock_watch import ClockWatch
from services.node_agent.serving.infer_load import ANY_LENGTH, infer_once, most_together
from services.node_agent.serving.workbench import Workbench
from services.node_agent.supervision.process import ReplicaProcess
from services.node_agent.wire import energy_message, file_of, setting_message, setting_of, stats_message
from tradewind.domain.errors import InvalidField, ReplicaLost
from tradewind.domain.figures import FigureSource
from tradewind.domain.infer_manifest import AnyManifest, InferManifest
from tradewind.domain.manifest import FileRef
from tradewind.rpc.errors import translated
from tradewind.v1 import common_pb2, inference_pb2, node_pb2, profiler_pb2

# One round of a load.
ROUND_LIMIT_S: Final = 600.0
# A caller that waits for its turn hears this often that it does.
WAIT_NEWS_S: Final = 5.0
# A board is looked at this often between rounds, whether it still has the setting it is measured at.
CHECK_S: Final = 1.0
# Rounds number their sequences apart by this much, so that no two prompts of a measurement are the same.
MAX_SEQUENCES: Final = 10_000
# Shares of the progress that are over once files are here and once the process serves.
_FETCHED, _LOADED = 0.05, 0.15


class Measurer:
    """Runs measurements, one at a time: two would measure each other.

    Args:
        bench: of the agent.
        turn: held by whoever measures.
    """

    def __init__(self, bench: Workbench, turn: asyncio.Lock) -> None:
        self._bench, self._turn = bench, turn
        self._numbers = itertools.count(1)
        self._log = structlog.get_logger("measure")

    async def measure(self, request: node_pb2.MeasureRequest) -> AsyncIterator[node_pb2.MeasureResponse]:
        """See the contract."""
        if not request.variant_id or not request.manifest.digest:
            raise InvalidField("variant_id", "variant_id and manifest say what to measure; both are needed")
        loads = [
            LoadSpec(load.prompt_tokens, load.output_tokens, load.concurrency, load.repeats or DEFAULT_REPEATS)
            for load in request.loads
        ]
        async for response in self._wait_for_turn():
            yield response
        async with AsyncExitStack() as stack:
            stack.callback(self._turn.release)
            yield _progress("fetching files", 0.0)
            envelope = file_of(request.manifest)
            manifest = await self._bench.fetcher.variant(request.variant_id, envelope)
            check_loads(loads, *_room(manifest, request.batch_limit))
            device = self._bench.inventory.for_target(manifest.target, request.device_id)
            request.partition_kind = request.partition_kind or _usual_kind(device)
            partition = device.cut(request.partition_kind, self._bench.busy())
            setting = setting_of(request.power)
            still = await stack.enter_async_context(self._bench.at_setting(device, setting))
            yield _progress("loading and warming up", _FETCHED)
            process = await self._start(request, envelope, partition, stack)
            run = _Run(manifest, device, partition.uuid, process)
            yield _progress("first round, not counted", _LOADED)
            await run.round(loads[0], 0)
            points = []
            watch = ClockWatch(device, setting)
            if await run.meter() is not None:
                watch.start()
                stack.push_async_callback(watch.stop)
            due_s = 0.0
            async for response in run.all(loads):
                if response.HasField("load") or time.monotonic() >= due_s:
                    await still()
                    watch.check()
                    due_s = time.monotonic() + CHECK_S
                if response.HasField("load"):
                    points.append(response.load)
                yield response
            profile = self._profile(request, manifest, device, process, points)
            if watch.ran_mhz is not None:
                profile.ran_sm_clock_mhz = watch.ran_mhz
            if (meter := await run.meter()) is not None:
                # A simulated board does not know what the process has, which is in the machine's own memory.
                profile.memory_bytes = meter.memory_used_bytes or profile.memory_bytes
            yield node_pb2.MeasureResponse(stage="done", progress=1.0, profile=profile)

    async def _wait_for_turn(self) -> AsyncIterator[node_pb2.MeasureResponse]:
        """Ends when it is this call's turn; the lock is held then. Says now and then that it still waits."""
        while True:
            try:
                async with asyncio.timeout(WAIT_NEWS_S):
                    await self._turn.acquire()
            except TimeoutError:
                yield _progress("waiting for another measurement to end", 0.0)
            else:
                return

    async def _start(
        self, request: node_pb2.MeasureRequest, envelope: FileRef, partition: Partition, stack: AsyncExitStack
    ) -> ReplicaProcess:
        number = next(self._numbers)
        spec = ReplicaSpec(
            replica_id=f"measure-{number}",
            deployment_id="",
            variant_id=request.variant_id,
            manifest=envelope,
            partition_id=partition.partition_id,
            device_id=partition.device_id,
            partition_kind=partition.kind,
            cpu_ids=partition.cpu_ids,
            batch_limit=request.batch_limit,
            partition_uuid=partition.uuid,
        )
        told = self._bench.process_spec(spec, self._bench.envelope_path(envelope.digest), number)
        if partition.uuid:
            told = replace(told, rate=BY_STEP_TIME)
        process = await ReplicaProcess.start(told)
        stack.push_async_callback(process.stop)
        # A call that is cancelled has no time for a friendly end.
        stack.callback(process.kill)
        await process.ready(self._bench.load_limit_s)
        return process

    def _profile(
        self,
        request: node_pb2.MeasureRequest,
        manifest: AnyManifest,
        device: Device,
        process: ReplicaProcess,
        points: list[profiler_pb2.LoadPoint],
    ) -> profiler_pb2.Profile:
        facts = device.facts
        point = common_pb2.OperatingPoint(
            variant_id=request.variant_id,
            device_class=facts.device_class,
            partition_kind=request.partition_kind or facts.partition_kinds[-1],
            batch_limit=_room(manifest, request.batch_limit)[0],
            power=setting_message(setting_of(request.power)) if request.HasField("power") else None,
        )
        profile = profiler_pb2.Profile(
            point=point,
            model_id=manifest.model_id,
            loads=points,
            memory_bytes=process.peak_memory_bytes,
            load_s=process.load_s,
            idle_power_mw=facts.idle_power_mw,
            idle_power_source=common_pb2.FigureSource.ValueType(facts.idle_power_source),
            node_id=self._bench.node_id,
        )
        profile.create_time.GetCurrentTime()
        return profile


class _Run:
    """Loads on one process.

    Args:
        manifest: of the variant.
        device: that it runs on.
        uuid: of the board or slice that it has; "" on CPUs.
        process: that runs it.
    """

    def __init__(self, manifest: AnyManifest, device: Device, uuid: str, process: ReplicaProcess) -> None:
        self._manifest, self._device, self._uuid, self._process = manifest, device, uuid, process
        self._sequences = itertools.count(1)

    async def all(self, loads: Sequence[LoadSpec]) -> AsyncIterator[node_pb2.MeasureResponse]:
        """Every round of every load in order; news after each that was asked for.

        Where a meter counts, rounds go on until its window is long enough for a measurement.
        """
        rounds, asked = sum(load.repeats for load in loads), 0
        for load in loads:
            words = f"{load.prompt_tokens} + {load.output_tokens} tokens × {load.concurrency}"
            samples: list[Sample] = []
            wall_s, done = 0.0, 0
            before = await self.meter()
            window_s = MEASURED_WINDOW_S if before is not None else 0.0
            while done < load.repeats or wall_s < window_s:
                began_s = time.monotonic()
                samples += await self.round(load, next(self._sequences) * MAX_SEQUENCES)
                wall_s += time.monotonic() - began_s
                done += 1
                if done < load.repeats:
                    yield _progress(words, _LOADED + (1 - _LOADED) * (asked + done) / rounds)
            asked += load.repeats
            share = _LOADED + (1 - _LOADED) * asked / rounds
            after = await self.meter()
            if before is not None and after is not None:
                samples = charge(samples, before, after)
            figures = figures_of(samples, wall_s, self._device.facts.idle_power_mw)
            yield node_pb2.MeasureResponse(stage=words, progress=share, load=_point(load, samples, figures))

    async def meter(self) -> MeterPoint | None:
        """The meter of a board or slice, read now; None on a CPU."""
        return await asyncio.to_thread(self._device.meter, self._uuid) if self._uuid else None

    async def round(self, load: LoadSpec, first_sequence: int) -> list[Sample]:
        """All sequences of a load together, once."""
        return await asyncio.gather(*(self._one(load, first_sequence + i) for i in range(load.concurrency)))

    async def _one(self, load: LoadSpec, sequence: int) -> Sample:
        manifest = self._manifest
        if isinstance(manifest, InferManifest):
            with translated("replica under measurement"):
                return await infer_once(self._process, manifest, load, ROUND_LIMIT_S)
        ids = prompt(load, sequence, manifest.vocabulary_size, manifest.eos_token_ids)
        request = inference_pb2.GenerateRequest(
            token_ids=inference_pb2.TokenIds(ids=ids),
            # A salt of its own: what is measured is a prompt that is worked out whole.
            sampling=inference_pb2.Sampling(
                max_tokens=load.output_tokens, ignore_eos=True, cache_salt=secrets.token_hex(8)
            ),
        )
        call = self._process.generate(request, ROUND_LIMIT_S)
        usage: inference_pb2.Usage | None = None
        with translated("replica under measurement"):
            async for piece in call:
                response = inference_pb2.GenerateResponse.FromString(piece)
                usage = response.usage if response.finish_reason else usage
            phases = _phases(await call.trailing_metadata())
        if usage is None:
            raise ReplicaLost("the replica under measurement ended its stream early")
        return Sample(
            ttft_ms=usage.ttft_ms,
            tpot_ms=usage.tpot_ms,
            output_tokens=usage.output_tokens,
            prefill_mj=phases["prefill_mj"],
            decode_mj=phases["decode_mj"],
            source=FigureSource(usage.energy.source),
            method=usage.energy.method,
        )


def _room(manifest: AnyManifest, batch_limit: int) -> tuple[int, int]:
    """Sequences or samples that a variant takes together, and the longest it takes."""
    if isinstance(manifest, InferManifest):
        return most_together(manifest, batch_limit), ANY_LENGTH
    return shapes_of(manifest, batch_limit).slots, manifest.context_tokens


def _usual_kind(device: Device) -> str:
    """The largest there is: the whole of a CPU, the slice of a board that has most memory."""
    standing = sorted(device.partitions(), key=lambda one: one.memory_bytes)
    return standing[-1].kind if standing else device.facts.partition_kinds[-1]


def _phases(metadata: grpc.aio.Metadata | Any) -> dict[str, float]:
    raw = dict(metadata)[PHASES_KEY]
    return dict(json.loads(raw))


def _point(load: LoadSpec, samples: list[Sample], figures: LoadFigures) -> profiler_pb2.LoadPoint:
    return profiler_pb2.LoadPoint(
        prompt_tokens=load.prompt_tokens,
        output_tokens=load.output_tokens,
        concurrency=load.concurrency,
        ttft=stats_message(stats_of([s.ttft_ms for s in samples])),
        tpot=stats_message(stats_of([s.tpot_ms for s in samples if s.output_tokens > 1])),
        tokens_per_s=figures.tokens_per_s,
        energy_per_token=energy_message(figures.energy_per_token),
        power_mw=figures.power_mw,
        energy_per_prefill=energy_message(figures.energy_per_prefill),
    )


def _progress(stage: str, share: float) -> node_pb2.MeasureResponse:
    return node_pb2.MeasureResponse(stage=stage, progress=share)
