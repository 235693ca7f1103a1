"""A search through the service: real export, compilation and timing, PostgreSQL, and what is kept of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from tests.compiler.conftest import Service
from tests.node_agent.wait import until
from tradewind.domain.errors import RemoteError
from tradewind.rpc.errors import translated
from tradewind.v1 import compiler_pb2, operation_pb2

DONE = operation_pb2.OPERATION_STATE_DONE
KEPT = compiler_pb2.CANDIDATE_FATE_KEPT
pytestmark = pytest.mark.timeout(600)


async def found_of(service: Service) -> compiler_pb2.Search:
    with translated("compiler"):
        response = await service.compiler.GetSearch(compiler_pb2.GetSearchRequest(model="tiny"), timeout=10)
    found: compiler_pb2.Search = response.search
    return found


async def stages_of(service: Service, operation: operation_pb2.Operation) -> list[str]:
    """Everything that an operation says of itself to its end."""
    request = operation_pb2.WatchOperationRequest(operation_id=operation.operation_id)
    return [m.operation.stage async for m in service.operations.WatchOperation(request, timeout=240)]


async def test_a_search_measures_what_runs_here_and_compiles_the_rest(
    service: Service,
    tiny_folder: Path,
) -> None:
    await service.end_of(await service.begin_import(tiny_folder))
    wanted = {
        "targets": ["metal", "vmvx"],
        "search": True,
        "chain": True,
        "context_tokens": 64,
        "min_quality": compiler_pb2.MinQuality(top1_agreement=0.9),
    }
    first, twin = await service.begin_build(**wanted), await service.begin_build(**wanted)
    stages = asyncio.create_task(stages_of(service, twin))
    built = await service.end_of(first)
    assert built.state == DONE, built.error
    assert set(await stages) <= {"", "waiting for the same search to end", "searched before", "done"}
    assert (await service.end_of(twin)).result_ids == built.result_ids
    search = await found_of(service)
    metal, *others, portable = search.candidates
    assert {(c.target, c.precision, c.fate) for c in others} == {
        ("metal:default", precision, compiler_pb2.CANDIDATE_FATE_UNMEASURED) for precision in ("w8", "w8a8")
    }
    assert (metal.target, metal.fate, portable.target, portable.fate) == ("metal:default", KEPT, "vmvx:portable", KEPT)
    assert "compiled only" in metal.reason
    (trial,) = portable.trials
    assert {cost.function for cost in trial.costs} == {"prefill_t64_c64", "decode_b1_c64", "decode_b4_c64"}
    assert all(cost.time_ms > 0 for cost in trial.costs)
    assert trial.kl_divergence_nats < 1e-4
    assert list(search.chain.targets) == ["metal:default", "vmvx:portable"]
    assert list(search.chain.variant_ids) == [metal.variant_id, portable.variant_id]
    states = {v.target: v.state for v in await service.variants(model="tiny")}
    assert states == {
        "metal:default": compiler_pb2.VARIANT_STATE_UNCHECKED,
        "vmvx:portable": compiler_pb2.VARIANT_STATE_ADMITTED,
    }
    assert all(v.build_peak_bytes > 0 for v in await service.variants(model="tiny"))
    assert list((service.state_dir / "work").iterdir()) == []

    again = await service.end_of(await service.begin_build(**wanted))
    assert set(again.result_ids) == set(built.result_ids)
    assert (again.update_time.ToDatetime() - again.create_time.ToDatetime()).total_seconds() < 2
    assert (await found_of(service)).search_id == search.search_id


async def test_a_cancelled_search_ends_its_child_and_leaves_nothing(
    service: Service,
    tiny_folder: Path,
) -> None:
    await service.end_of(await service.begin_import(tiny_folder))
    blobs = sorted(path.name for path in (service.state_dir / "blobs").rglob("*"))
    operation = await service.begin_build(targets=["vmvx"], search=True)
    await until(lambda: bool(workers()), 60)
    request = operation_pb2.CancelOperationRequest(operation_id=operation.operation_id)
    await service.operations.CancelOperation(request, timeout=10)
    assert (await service.end_of(operation)).state == operation_pb2.OPERATION_STATE_CANCELLED
    await until(lambda: not workers(), 20)
    assert list((service.state_dir / "work").iterdir()) == []
    assert sorted(path.name for path in (service.state_dir / "blobs").rglob("*")) == blobs
    assert await service.variants(model="tiny") == []


def workers() -> list[psutil.Process]:
    """Child processes of this compiler's jobs."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "services.compiler.worker" in " ".join(command_of(child))]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def test_nonsense_is_refused_before_anything_is_done(
    service: Service,
    tiny_folder: Path,
) -> None:
    await service.end_of(await service.begin_import(tiny_folder))
    refused = [
        ({"search": True, "recipes": ["f32-grouped"]}, "not both"),
        ({"search": True, "chain": True, "targets": ["vmvx"]}, "two or more targets"),
        ({"min_quality": compiler_pb2.MinQuality(top1_agreement=1.5)}, "no share between 0 and 1"),
        ({"min_quality": compiler_pb2.MinQuality(kl_divergence_nats=-1)}, "0 or more"),
        ({"recipes": ["w4-kernels"], "targets": ["cpu:x86-64-v2"]}, "needs avx2"),
        ({"search": True, "decode_batches": [1, 4], "slots": 8}, "8 slots where the widest batch is 4"),
        ({"prefill_chunks": [1024]}, "more than the context of 512"),
    ]
    for wanted, words in refused:
        with pytest.raises(RemoteError, match=words) as caught:
            await service.begin_build(**wanted)
        assert caught.value.remote_reason == "INVALID_FIELD"
    with pytest.raises(RemoteError, match="tradewind variant build tiny"):
        await found_of(service)
