"""One replica process by itself: what it says, how it ends, what it costs when idle."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from services.node_agent.core.energy import Rate
from services.node_agent.core.governor import Limits
from services.node_agent.replica.spec import ProcessSpec
from services.node_agent.supervision.process import ReplicaProcess, environment_of
from tests.node_agent.wait import until
from tests.tiny_variant import TinyVariant
from tradewind.domain.errors import RemoteError, ReplicaLost, reason_of
from tradewind.domain.figures import FigureSource
from tradewind.rpc.errors import translated
from tradewind.v1 import inference_pb2

LOAD_LIMIT_S = 60
Start = Callable[..., Awaitable[ReplicaProcess]]


@pytest.fixture
async def start(tiny: TinyVariant, tmp_path: Path) -> AsyncIterator[Start]:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    for file in tiny.manifest.files:
        (artifacts / file.digest.removeprefix("sha256:")).symlink_to(tiny.path_of(file.digest))
    envelope = tmp_path / "envelope"
    envelope.write_bytes(tiny.envelope)
    processes: list[ReplicaProcess] = []

    async def begin(silence_limit_s: float = 60, gpu_uuid: str = "") -> ReplicaProcess:
        spec = ProcessSpec(
            replica_id="r1",
            variant_id=tiny.variant.variant_id,
            envelope=envelope,
            artifacts=artifacts,
            trusted_keys=tiny.public_key_file.parent,
            socket=tmp_path / "s",
            cpu_ids=(0,),
            batch_limit=0,
            parent=os.getpid(),
            rate=Rate(1000.0, FigureSource.MODELLED, "test@1"),
            gpu_uuid=gpu_uuid,
        )
        assert ProcessSpec.from_json(spec.to_json()) == spec
        process = await ReplicaProcess.start(spec, silence_limit_s)
        processes.append(process)
        await process.ready(LOAD_LIMIT_S)
        return process

    yield begin
    for process in processes:
        process.kill()
        await process.stop()


async def energy_of(process: ReplicaProcess, tokens: int = 4) -> inference_pb2.Usage:
    request = inference_pb2.GenerateRequest(
        token_ids=inference_pb2.TokenIds(ids=[5, 6]),
        sampling=inference_pb2.Sampling(max_tokens=tokens, ignore_eos=True),
    )
    last = None
    with translated("replica"):
        async for piece in process.generate(request, 30):
            last = inference_pb2.GenerateResponse.FromString(piece)
    assert last is not None
    return last.usage


async def test_it_stays_on_its_cores_and_takes_new_rates_and_limits(start: Start) -> None:
    process = await start()
    assert psutil.Process(process.pid).cpu_affinity() == [0]
    assert psutil.Process(process.pid).environ()["CUDA_VISIBLE_DEVICES"] == "", "on a CPU no board is seen"
    assert (await energy_of(process)).energy.method == "test@1"
    process.tell_limits(Limits(ttft_s=0.5, pace_s=0.001))
    process.tell_limits(Limits())
    process.tell_rate(Rate(5.0, FigureSource.ATTRIBUTED, "other@2"))
    async with asyncio.timeout(10):
        while (usage := await energy_of(process)).energy.method != "other@2":
            pass
    assert usage.energy.source == FigureSource.ATTRIBUTED
    await until(lambda: process.stats.generated_tokens >= 8)
    assert process.stats.totals["decode_tokens"] >= 6
    assert process.peak_memory_bytes >= process.memory_bytes > 0


async def test_it_tells_what_it_has_in_hand_when_asked(start: Start) -> None:
    process = await start()
    idle = await process.work(10)
    assert idle is not None and (idle.prompt_tokens, idle.step_s, idle.crowded) == (0, 0.0, False)
    assert idle.prefill_token_s > 0 and idle.chunk_tokens > 1, "the canary has shown how long prompts take"
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        asked = [group.create_task(energy_of(process, tokens=40)) for _ in range(24)]
        seen = []
        while not all(one.done() for one in asked):
            work = await process.work(10)
            assert work is not None
            seen.append(work)
    assert any(work.prompt_tokens > 0 and work.oldest_wait_s > 0 for work in seen)
    assert any(work.crowded for work in seen)
    assert any(work.step_s > 0 for work in seen)


async def test_one_that_does_not_answer_is_not_waited_for(start: Start) -> None:
    process = await start()
    os.kill(process.pid, signal.SIGSTOP)
    assert await process.work(0.05) is None
    asked = asyncio.create_task(process.work(10))
    os.kill(process.pid, signal.SIGCONT)
    assert await asked is not None
    assert await process.work(10) is not None


@pytest.mark.parametrize(
    ("gpu_uuid", "idle_boost", "told"), [("GPU-1", False, "1"), ("GPU-1", True, None), ("", False, None)]
)
def test_a_board_is_told_to_let_clocks_fall_at_rest(
    gpu_uuid: str, idle_boost: bool, told: str | None, tmp_path: Path
) -> None:
    rate = Rate(1000.0, FigureSource.MODELLED, "test@1")
    spec = ProcessSpec(
        "r1", "v1", tmp_path, tmp_path, tmp_path, tmp_path, (0,), 0, 1, rate, gpu_uuid=gpu_uuid, idle_boost=idle_boost
    )
    assert environment_of(spec).get("CUDA_DISABLE_PERF_BOOST") == told
    assert environment_of(spec)["CUDA_VISIBLE_DEVICES"] == gpu_uuid


async def test_an_idle_replica_burns_no_core(start: Start) -> None:
    process = await start()
    watched = psutil.Process(process.pid)
    heard = process.stats
    await until(lambda: process.stats is not heard)
    before = sum(watched.cpu_times()[:2])
    for _ in range(4):
        heard = process.stats
        await until(lambda heard=heard: process.stats is not heard)  # type: ignore[misc]
    # Two seconds, in which it sent its statistics four times.
    assert sum(watched.cpu_times()[:2]) - before < 0.4


async def test_one_that_hangs_is_noticed_and_ended(start: Start) -> None:
    process = await start(silence_limit_s=2)
    os.kill(process.pid, signal.SIGSTOP)
    error = await asyncio.wait_for(process.ended(), 20)
    assert isinstance(error, ReplicaLost) and "hangs" in error.message
    process.kill()
    await process.stop()
    assert not psutil.pid_exists(process.pid)


async def test_one_that_lives_is_not_taken_for_hanging(start: Start) -> None:
    process = await start(silence_limit_s=1.5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.ended(), 4)


async def test_without_its_agent_s_pipe_it_leaves(start: Start) -> None:
    process = await start()
    assert process._process.stdin is not None
    process._process.stdin.close()
    await asyncio.wait_for(process.ended(), 10)


async def test_one_whose_parent_is_another_leaves_at_once(start: Start, tmp_path: Path) -> None:
    process = await start()
    spec = ProcessSpec.from_json(process.spec.to_json().replace(f'"parent": {os.getpid()}', '"parent": 1'))
    orphan = await ReplicaProcess.start(spec)
    with pytest.raises(ReplicaLost, match="code 3"):
        await orphan.ready(LOAD_LIMIT_S)
    await orphan.stop()


async def test_a_variant_placed_on_the_wrong_kind_of_device_says_so(start: Start) -> None:
    with pytest.raises(RemoteError, match=r"runs on the CPU .* placed on MIG-1") as raised:
        await start(gpu_uuid="MIG-1")
    assert reason_of(raised.value) == "DEVICE_FAULT"
