"""Nothing unsigned, changed or wrong is ever served; the report says why."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.node_agent.replica.verified_files import loader_path, open_checked, seal_checked
from tests.node_agent.agent_process import NODE_ID, generate, tokens_of
from tests.node_agent.conftest import StartAgent
from tests.node_agent.neighbours import FileCompiler, Orchestrator, spec, target
from tests.node_agent.wait import until
from tests.tiny_variant import TinyVariant
from tradewind.domain.envelope import seal
from tradewind.domain.errors import ArtifactRejected
from tradewind.domain.manifest import Canary, FileRef, VariantManifest, digest_of
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import node_pb2

READY, FAILED = node_pb2.REPLICA_STATE_READY, node_pb2.REPLICA_STATE_FAILED
Compiler = tuple[FileCompiler, GrpcServer]
Neighbour = tuple[Orchestrator, GrpcServer]


class Signer:
    """A compiler's key and a folder that trusts it."""

    def __init__(self, folder: Path) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.folder = folder
        folder.mkdir()
        public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / "mine.pub").write_bytes(public)

    def offer(self, compiler: FileCompiler, tiny: TinyVariant, manifest: VariantManifest) -> TinyVariant:
        """The variant with another manifest, signed."""
        envelope = seal(manifest.to_bytes(), self.key)
        variant = type(tiny.variant)()
        variant.CopyFrom(tiny.variant)
        variant.variant_id = manifest.variant_id
        variant.manifest.digest, variant.manifest.size_bytes = digest_of(envelope), len(envelope)
        compiler.files[variant.manifest.digest] = envelope
        return dataclasses.replace(tiny, manifest=manifest, envelope=envelope, variant=variant)


async def failure(start_agent: StartAgent, link: Orchestrator, bad: TinyVariant, **settings: str) -> str:
    """What the report says about a variant that cannot be served."""
    link.push(target(NODE_ID, 1, spec(bad, "bad")))
    await start_agent(**settings)
    failed = await link.state("bad", FAILED)
    assert not any(r.state == READY for report in link.reports for r in report.replicas)
    return failed.reason


async def test_bytes_changed_on_the_way_are_refused(
    start_agent: StartAgent, orchestrator: Neighbour, compiler: Compiler, tiny: TinyVariant
) -> None:
    data = bytearray(tiny.path_of(tiny.manifest.module.digest).read_bytes())
    data[len(data) // 2] ^= 1
    compiler[0].files[tiny.manifest.module.digest] = bytes(data)
    reason = await failure(start_agent, orchestrator[0], tiny)
    assert reason.startswith("ARTIFACT_REJECTED") and "thrown away" in reason
    # Once the compiler has the right bytes again the replica heals by itself.
    compiler[0].offer(tiny)
    await orchestrator[0].state("bad", READY)


async def test_bytes_changed_on_the_disk_are_refused_and_fetched_again(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    link = orchestrator[0]
    link.push(target(NODE_ID, 1, spec(tiny, "r1")))
    agent = await start_agent()
    await link.state("r1", READY)
    expected = tokens_of(await generate(agent.inference, "r1", [7, 8], max_tokens=6, ignore_eos=True))
    artifacts = agent.log_file.with_name("state") / "artifacts"
    weights = artifacts / tiny.manifest.weights[0].digest.removeprefix("sha256:")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 0x40
    evil = weights.with_name("evil.part")
    evil.write_bytes(bytes(data))
    evil.replace(weights)
    agent.children()[0].kill()
    await until(lambda: any("ARTIFACT_REJECTED" in r.reason for report in link.reports for r in report.replicas))
    await until(lambda: (r := link.replica("r1")) is not None and r.state == READY and r.starts == 3)
    assert tokens_of(await generate(agent.inference, "r1", [7, 8], max_tokens=6, ignore_eos=True)) == expected


async def test_a_stranger_s_signature_is_refused(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant, tmp_path: Path
) -> None:
    stranger = Signer(tmp_path / "keys")
    reason = await failure(start_agent, orchestrator[0], tiny, keys=str(stranger.folder))
    assert "not signed by a trusted compiler" in reason


async def test_another_variant_s_manifest_is_refused(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    variant = type(tiny.variant)()
    variant.CopyFrom(tiny.variant)
    variant.variant_id = "sha256:" + "0" * 64
    reason = await failure(start_agent, orchestrator[0], dataclasses.replace(tiny, variant=variant))
    assert reason.startswith("ARTIFACT_REJECTED") and "was asked for" in reason


async def test_a_wrong_canary_answer_is_refused(
    start_agent: StartAgent, orchestrator: Neighbour, compiler: Compiler, tiny: TinyVariant, tmp_path: Path
) -> None:
    signer = Signer(tmp_path / "keys")
    right = tiny.manifest.canary
    wrong = Canary(right.prompt, (*right.continuation[:-1], (right.continuation[-1] + 1) % 288))
    bad = signer.offer(compiler[0], tiny, dataclasses.replace(tiny.manifest, canary=wrong))
    reason = await failure(start_agent, orchestrator[0], bad, keys=str(signer.folder))
    assert reason.startswith("WRONG_ANSWER") and "canary" in reason


async def test_code_that_cannot_be_loaded_fails_with_a_reason(
    start_agent: StartAgent, orchestrator: Neighbour, compiler: Compiler, tiny: TinyVariant, tmp_path: Path
) -> None:
    signer = Signer(tmp_path / "keys")
    code = b"this is no module" * 100
    compiler[0].files[digest_of(code)] = code
    module = FileRef("generate.vmfb", digest_of(code), len(code))
    bad = signer.offer(compiler[0], tiny, dataclasses.replace(tiny.manifest, module=module))
    reason = await failure(start_agent, orchestrator[0], bad, keys=str(signer.folder))
    assert reason.startswith("INTERNAL: the variant could not be loaded")


async def test_a_load_that_takes_too_long_is_ended(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    link = orchestrator[0]
    link.push(target(NODE_ID, 1, spec(tiny, "r1")))
    agent = await start_agent(load_limit_s="0.05")
    failed = await link.state("r1", FAILED)
    assert failed.reason.startswith("JOB_TIMEOUT")
    link.push(target(NODE_ID, 2))
    await link.gone("r1")
    await until(lambda: not agent.children())


async def test_a_partition_the_node_does_not_have_fails_with_a_reason(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    link = orchestrator[0]
    link.push(target(NODE_ID, 1, spec(tiny, "r1", cpu_ids=(1,))))
    await start_agent(cpu_ids="0")
    failed = await link.state("r1", FAILED)
    assert "this node offers [0]" in failed.reason


async def test_a_fetch_that_broke_off_goes_on_where_it_stopped(
    start_agent: StartAgent, orchestrator: Neighbour, compiler: Compiler, tiny: TinyVariant
) -> None:
    digest = tiny.manifest.weights[0].digest
    compiler[0].break_after_pieces[digest] = 3
    orchestrator[0].push(target(NODE_ID, 1, spec(tiny, "r1")))
    await start_agent()
    await orchestrator[0].state("r1", READY)
    offsets = [offset for called, offset in compiler[0].calls if called == digest]
    assert offsets == [0, 3 << 16]


@pytest.mark.parametrize("opener", [open_checked, seal_checked])
def test_every_flipped_bit_is_seen(tmp_path: Path, opener: object) -> None:
    data = os.urandom(20_000)
    path, file = tmp_path / "f", FileRef("f", digest_of(data), len(data))
    path.write_bytes(data)
    os.close(opener(path, file))  # type: ignore[operator]
    for place in (*range(0, len(data), 1024), len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        with pytest.raises(ArtifactRejected, match="digest"):
            opener(path, file)  # type: ignore[operator]
    for wrong in (data[:-1], data + b"x", b""):
        path.write_bytes(wrong)
        with pytest.raises(ArtifactRejected):
            opener(path, file)  # type: ignore[operator]
    path.unlink()
    with pytest.raises(ArtifactRejected, match="cannot be opened"):
        opener(path, file)  # type: ignore[operator]


@pytest.mark.parametrize("opener", [open_checked, seal_checked])
def test_a_file_swapped_after_the_check_is_not_what_is_loaded(tmp_path: Path, opener: object) -> None:
    path, file = tmp_path / "f", FileRef("f", digest_of(b"good"), 4)
    path.write_bytes(b"good")
    descriptor = opener(path, file)  # type: ignore[operator]
    (tmp_path / "g").write_bytes(b"evil")
    (tmp_path / "g").replace(path)
    assert Path(loader_path(descriptor)).read_bytes() == b"good"
    os.close(descriptor)


def test_code_cannot_be_written_after_its_check(tmp_path: Path) -> None:
    path, file = tmp_path / "f", FileRef("f", digest_of(b"good"), 4)
    path.write_bytes(b"good")
    descriptor = seal_checked(path, file)
    with pytest.raises(OSError, match="not permitted"):
        os.pwrite(descriptor, b"evil", 0)
    path.write_bytes(b"evil")
    assert os.pread(descriptor, 4, 0) == b"good"
    os.close(descriptor)
