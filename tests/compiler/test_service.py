"""The compiler over gRPC, with a real PostgreSQL and real child processes."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.compiler.conftest import LIMIT_S, Service
from tests.tiny_model import write_tiny_model
from tradewind.domain.envelope import open_envelope
from tradewind.domain.errors import RemoteError
from tradewind.domain.manifest import VariantManifest
from tradewind.rpc.errors import translated
from tradewind.v1 import common_pb2, compiler_pb2, operation_pb2

DONE = operation_pb2.OPERATION_STATE_DONE


async def fetch(service: Service, digest: str, offset: int = 0) -> bytes:
    request = compiler_pb2.FetchArtifactRequest(digest=digest, offset_bytes=offset)
    with translated("compiler"):
        return b"".join([piece.data async for piece in service.compiler.FetchArtifact(request, timeout=30)])


async def test_a_model_goes_from_folder_to_signed_variant(service: Service, tiny_folder: Path) -> None:
    imported = await service.end_of(await service.begin_import(tiny_folder))
    assert imported.state == DONE, imported.error
    model = (await service.compiler.GetModel(compiler_pb2.GetModelRequest(model="tiny"), timeout=10)).model
    assert (model.model_id,) == tuple(imported.result_ids)
    assert (model.architecture, model.context_tokens, model.vocabulary_size) == ("LlamaForCausalLM", 512, 288)
    assert {file.name for file in model.files} == {"tokenizer.json", "chat_template.jinja"}

    built = await service.end_of(await service.begin_build(recipes=["f32-grouped"], context_tokens=128))
    assert built.state == DONE, built.error
    (variant,) = await service.variants(model="tiny")
    assert variant.state == compiler_pb2.VARIANT_STATE_ADMITTED, variant.state_reason
    assert (variant.variant_id,) == tuple(built.result_ids)
    assert variant.quality.top1_agreement > 0.99
    assert "top-1" in variant.state_reason

    key = load_pem_public_key((service.state_dir / "keys" / "compiler.pub").read_bytes())
    manifest = VariantManifest.from_bytes(open_envelope(await fetch(service, variant.manifest.digest), [key]))  # type: ignore[list-item]
    assert manifest.variant_id == variant.variant_id
    for file in manifest.files:
        data = await fetch(service, file.digest)
        assert len(data) == file.size_bytes
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == file.digest
        half = file.size_bytes // 2
        assert await fetch(service, file.digest, half) == data[half:]
        assert await fetch(service, file.digest, file.size_bytes) == b""

    again = await service.end_of(await service.begin_build(recipes=["f32-grouped"], context_tokens=128))
    assert list(again.result_ids) == [variant.variant_id]
    assert (again.update_time.ToDatetime() - again.create_time.ToDatetime()).total_seconds() < 2


async def test_one_request_is_one_operation(service: Service, tiny_folder: Path) -> None:
    first = await service.begin_import(tiny_folder, request_id="once")
    second = await service.begin_import(tiny_folder, request_id="once")
    assert first.operation_id == second.operation_id
    with pytest.raises(RemoteError) as caught:
        await service.begin_import(tiny_folder, name="other", request_id="once")
    assert caught.value.remote_reason == "REQUEST_ID_REUSED"
    await service.end_of(first)


async def test_names_of_models_are_unique_both_ways(service: Service, tiny_folder: Path, tmp_path: Path) -> None:
    assert (await service.end_of(await service.begin_import(tiny_folder))).state == DONE
    assert (await service.end_of(await service.begin_import(tiny_folder))).state == DONE
    renamed = await service.end_of(await service.begin_import(tiny_folder, name="second"))
    assert renamed.error.reason == common_pb2.ERROR_REASON_ALREADY_EXISTS
    assert "'tiny'" in renamed.error.message
    other = await service.end_of(await service.begin_import(write_tiny_model(tmp_path / "other", seed=1)))
    assert other.error.reason == common_pb2.ERROR_REASON_ALREADY_EXISTS


async def test_cancelling_kills_the_child_and_leaves_nothing(service: Service, tiny_folder: Path) -> None:
    assert (await service.end_of(await service.begin_import(tiny_folder))).state == DONE
    before = {path for path in (service.state_dir / "blobs").rglob("*") if path.is_file()}
    operation = await service.begin_build(recipes=["f32-grouped"])
    watch = service.operations.WatchOperation(
        operation_pb2.WatchOperationRequest(operation_id=operation.operation_id), timeout=LIMIT_S
    )
    async for message in watch:
        if "tracing" in message.operation.stage:
            break
    assert _children(), "a child works"
    await service.operations.CancelOperation(
        operation_pb2.CancelOperationRequest(operation_id=operation.operation_id), timeout=10
    )
    ended = await service.end_of(operation)
    assert ended.state == operation_pb2.OPERATION_STATE_CANCELLED
    assert not _children()
    assert not list((service.state_dir / "work").iterdir())
    assert {path for path in (service.state_dir / "blobs").rglob("*") if path.is_file()} == before
    assert await service.variants() == []


@pytest.mark.parametrize(
    ("wanted", "field", "says"),
    [
        ({"name": "no/slash"}, "name", "letters"),
        ({"name": ""}, "name", "letters"),
        ({"name": "x" * 64}, "name", "63"),
        ({"source_path": "relative/path"}, "source_path", "relative"),
        ({"source_path": ""}, "source_path", "path"),
        ({"source_path": "/a\0b"}, "source_path", "path"),
        ({"request_id": ""}, "request_id", "characters"),
    ],
)
async def test_import_checks_each_field(service: Service, wanted: dict[str, str], field: str, says: str) -> None:
    request = compiler_pb2.ImportModelRequest(
        **{"request_id": "r", "name": "tiny", "source_path": "/nowhere", **wanted}  # type: ignore[arg-type]
    )
    with pytest.raises(RemoteError) as caught, translated("compiler"):
        await service.compiler.ImportModel(request, timeout=10)
    assert caught.value.metadata["field"] == field
    assert says in caught.value.message


async def test_build_names_what_it_knows(service: Service, tiny_folder: Path) -> None:
    with pytest.raises(RemoteError, match="tradewind model list") as missing:
        await service.begin_build(model="nobody")
    assert missing.value.remote_reason == "NOT_FOUND"
    assert (await service.end_of(await service.begin_import(tiny_folder))).state == DONE
    with pytest.raises(RemoteError, match="bf16-grouped-gdt"):
        await service.begin_build(recipes=["nonsense"])
    with pytest.raises(RemoteError, match="cpu:host"):
        await service.begin_build(targets=["gpu:dream"])
    with pytest.raises(RemoteError, match="longer than the model's context of 512"):
        await service.begin_build(context_tokens=100_000)
    with pytest.raises(RemoteError, match="below the least"):
        await service.begin_build(context_tokens=3)


async def test_a_bad_source_is_an_operation_error_that_says_what_to_do(service: Service, tmp_path: Path) -> None:
    ended = await service.end_of(await service.begin_import(tmp_path / "nowhere"))
    assert ended.error.reason == common_pb2.ERROR_REASON_BAD_MODEL_SOURCE
    assert "does not exist" in ended.error.message
    with pytest.raises(RemoteError, match="format 99 is not known; hugging_face, gguf, onnx") as caught:
        await service.begin_import(tmp_path, format=99)
    assert caught.value.remote_reason == "UNSUPPORTED_MODEL"


async def test_lost_files_are_told_and_importing_again_heals(service: Service, tiny_folder: Path) -> None:
    assert (await service.end_of(await service.begin_import(tiny_folder))).state == DONE
    shutil.rmtree(service.state_dir / "blobs" / "sha256")
    with pytest.raises(RemoteError, match="import it again"):
        await service.begin_build()
    assert (await service.end_of(await service.begin_import(tiny_folder))).state == DONE


async def test_fetching_what_is_not_there(service: Service) -> None:
    with pytest.raises(RemoteError) as missing:
        await fetch(service, "sha256:" + "0" * 64)
    assert missing.value.remote_reason == "NOT_FOUND"
    with pytest.raises(RemoteError) as malformed:
        await fetch(service, "../../etc/passwd")
    assert malformed.value.remote_reason == "INVALID_FIELD"


async def test_lists_page_through(service: Service, tiny_folder: Path, tmp_path: Path) -> None:
    sources = [tiny_folder, write_tiny_model(tmp_path / "a", seed=1)]
    for number, source in enumerate(sources):
        ended = await service.end_of(await service.begin_import(source, name=f"m{number}"))
        assert ended.state == DONE, ended.error
    first = await service.compiler.ListModels(compiler_pb2.ListModelsRequest(page_size=1), timeout=10)
    rest = await service.compiler.ListModels(
        compiler_pb2.ListModelsRequest(page_size=1, page_token=first.next_page_token), timeout=10
    )
    assert [m.name for m in (*first.models, *rest.models)] == ["m1", "m0"]
    assert rest.next_page_token == ""
    with pytest.raises(RemoteError, match="page_token"), translated("compiler"):
        await service.compiler.ListModels(compiler_pb2.ListModelsRequest(page_token="x"), timeout=10)


async def test_targets_are_listed(service: Service) -> None:
    listed = (await service.compiler.ListTargets(compiler_pb2.ListTargetsRequest(), timeout=10)).targets
    host = next(target for target in listed if target.name == "cpu:host")
    assert host.runnable_here
    assert host.resolved.startswith("cpu:")


def _children() -> list[int]:
    """Processes of jobs that this process runs."""
    found = psutil.Process(os.getpid()).children(recursive=True)
    return [p.pid for p in found if any("services.compiler.worker" in part for part in _command(p))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.NoSuchProcess:
        return []
