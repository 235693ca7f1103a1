"""A real agent goes down a fallback chain by itself, says why, and does not try in vain again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.node_agent.agent_process import NODE_ID, generate, tokens_of
from tests.node_agent.conftest import StartAgent
from tests.node_agent.neighbours import FileCompiler, Orchestrator, spec, target
from tests.node_agent.test_bad_variants import Signer
from tests.tiny_variant import TinyVariant
from tradewind.domain.manifest import FileRef, digest_of
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import node_pb2


def chain(first: TinyVariant, *later: TinyVariant) -> node_pb2.ReplicaSpec:
    """A replica of the first that may fall back to the others."""
    wanted = spec(first, "r1")
    for one in later:
        wanted.fallbacks.add(variant_id=one.variant.variant_id, manifest=one.variant.manifest)
    return wanted


async def test_a_node_takes_the_first_link_that_its_device_loads(
    start_agent: StartAgent,
    orchestrator: tuple[Orchestrator, GrpcServer],
    compiler: tuple[FileCompiler, GrpcServer],
    tiny: TinyVariant,
    tmp_path: Path,
) -> None:
    signer, link = Signer(tmp_path / "keys"), orchestrator[0]
    far = FileRef("weights-f16.irpa", digest_of(b"never fetched"), 1 << 40)
    other = dataclasses.replace(
        tiny.manifest, target="cuda:sm_80", compiled_target="cuda:sm_80", driver="cuda", weights=(far,)
    )
    for_others = signer.offer(compiler[0], tiny, other)
    refused = signer.offer(compiler[0], tiny, dataclasses.replace(tiny.manifest, driver="cuda"))
    refused_too = signer.offer(compiler[0], tiny, dataclasses.replace(tiny.manifest, driver="vulkan"))
    loads = signer.offer(compiler[0], tiny, tiny.manifest)
    link.push(target(NODE_ID, 1, chain(for_others, refused, loads)))
    agent = await start_agent(keys=str(signer.folder))
    ready = await link.state("r1", node_pb2.REPLICA_STATE_READY, node_pb2.REPLICA_STATE_FAILED)

    assert (ready.state, ready.variant_id) == (node_pb2.REPLICA_STATE_READY, loads.variant.variant_id), ready.reason
    assert ready.starts == 2, "the other device's module was not even started, the driver was asked once"
    assert far.digest not in [digest for digest, _ in compiler[0].calls], "nor were its weights fetched"
    assert "link 3 of 3" in ready.reason and "it is for cuda:sm_80, this device runs cpu:host" in ready.reason
    assert "DEVICE_FAULT: the variant needs a cuda device" in ready.reason
    assert tokens_of(await generate(agent.inference, "r1", [7, 8], max_tokens=4, ignore_eos=True))

    link.push(target(NODE_ID, 2, chain(refused, refused_too)))
    failed = await link.state("r1", node_pb2.REPLICA_STATE_FAILED)
    assert failed.reason.startswith("DEVICE_FAULT: no link of its chain can be loaded here"), failed.reason
