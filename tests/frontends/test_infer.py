"""An encoder from its folder to a client: compiled, run by a node agent, batched, asked through the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.node_agent.core.batching import Batching, Waiting
from tests.gateway.conftest import World
from tests.node_agent.agent_process import NODE_ID, Agent
from tests.node_agent.neighbours import FileCompiler, Orchestrator, serve_compiler, serve_orchestrator, spec, target
from tests.tiny_variant import TinyVariant
from tradewind.domain.errors import RemoteError
from tradewind.domain.infer_manifest import InferFunction, InferManifest, read_manifest
from tradewind.domain.padding import Extent
from tradewind.open_inference import open_inference_pb2 as oip
from tradewind.open_inference import open_inference_pb2_grpc
from tradewind.rpc.client import open_channel
from tradewind.rpc.errors import translated
from tradewind.v1 import inference_pb2, node_pb2

# Order of additions in f32.
TOLERANCE = 1e-4


@pytest.fixture
async def agent(tensor_variant: TinyVariant, tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent whose replica "r-embed" serves the encoder."""
    files, orchestrator = FileCompiler(), Orchestrator()
    files.offer(tensor_variant)
    compiler, link = await serve_compiler(files), await serve_orchestrator(orchestrator)
    keys = tensor_variant.public_key_file.parent
    agent = await Agent(tmp_path / "state", compiler.address, link.address, keys).start()
    orchestrator.push(target(NODE_ID, 1, spec(tensor_variant, "r-embed")))
    await orchestrator.state("r-embed", node_pb2.REPLICA_STATE_READY)
    yield agent
    await agent.close()
    await compiler.stop(0)
    await link.stop(0)


def wanted(folder: Path, tokens: list[list[int]]) -> np.ndarray:
    """PyTorch's last hidden state of sequences of one length."""
    import torch
    from transformers import BertModel

    ids = torch.tensor(tokens)
    with torch.no_grad():
        answer = BertModel.from_pretrained(folder)(input_ids=ids, attention_mask=torch.ones_like(ids))
    return np.asarray(answer.last_hidden_state)


def request_of(tokens: list[list[int]], **changes: Any) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="embed", id="7")
    for name, rows in {"input_ids": tokens, "attention_mask": [[1] * len(row) for row in tokens], **changes}.items():
        tensor = request.inputs.add(name=name, datatype="INT64", shape=[len(rows), len(rows[0])])
        tensor.contents.int64_contents.extend(value for row in rows for value in row)
    return request


async def test_a_client_gets_what_pytorch_gives(world: World, agent: Agent, tensor_variant: TinyVariant) -> None:
    model_id = tensor_variant.model.model_id
    world.compiler.models[model_id] = tensor_variant.model
    route = replace(world.replica("r-embed"), address=agent.address)
    await world.deploy("embed", route, model_id=model_id)
    async with open_channel(world.gateway.grpc) as channel:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        about = await stub.ModelMetadata(oip.ModelMetadataRequest(name="embed"))
        assert [(t.name, t.datatype, list(t.shape)) for t in about.inputs] == [
            ("input_ids", "INT64", [-1, -1]),
            ("attention_mask", "INT64", [-1, -1]),
        ]
        # Unequal lengths at once: each is padded to 32 and cut again, several go into one call.
        texts = [[[5 + at, 9, 44, 7 * at % 200][: 2 + at % 3] for at in [n]] for n in range(9)]
        answers = await asyncio.gather(*(stub.ModelInfer(request_of(text)) for text in texts))
        for text, answer in zip(texts, answers, strict=True):
            assert answer.id == "7" and answer.parameters["energy_source"].string_param
            output = next(o for o in answer.outputs if o.name == "last_hidden_state")
            got = np.asarray(output.contents.fp32_contents).reshape(output.shape)
            assert np.abs(got - wanted(tensor_variant.model_folder, text)).max() < TOLERANCE
        pair = request_of([[3, 4, 5], [6, 7, 8]])
        pair.outputs.add(name="pooler_output")
        two = await stub.ModelInfer(pair)
        assert [(o.name, list(o.shape)) for o in two.outputs] == [("pooler_output", [2, 64])]
        for bad, says in (
            (request_of([[1] * 33]), "33 long; this variant takes at most 32"),
            (request_of([[1]] * 5), "5 samples; a request takes at most 4"),
            (request_of([[1, 2]], attention_mask=[[1]]), r"attention_mask has shape \[1, 1\]; it must have \[1, 2\]"),
            (request_of([[1, 2]], extra=[[1]]), "'extra' is not among input_ids, attention_mask"),
            (oip.ModelInferRequest(model_name="embed"), "input_ids, attention_mask missing"),
        ):
            with pytest.raises(RemoteError, match=says), translated("gateway"):
                await stub.ModelInfer(bad, timeout=20)


async def test_the_agents_own_infer_counts_energy_and_refuses_generation(
    agent: Agent, tensor_variant: TinyVariant
) -> None:
    tensor = inference_pb2.Tensor(name="input_ids", dtype="i64", shape=[1, 3], data=np.array([[4, 5, 6]]).tobytes())
    mask = inference_pb2.Tensor(name="attention_mask", dtype="i64", shape=[1, 3], data=np.ones((1, 3), int).tobytes())
    request = inference_pb2.InferRequest(replica_id="r-embed", inputs=[tensor, mask])
    answer = await agent.inference.Infer(request, timeout=20)
    assert {o.name: list(o.shape) for o in answer.outputs} == {
        "last_hidden_state": [1, 3, 64],
        "pooler_output": [1, 64],
    }
    assert answer.usage.ttft_ms > 0 and answer.usage.energy.method
    tensor.data = tensor.data[:-1]
    with pytest.raises(RemoteError, match="has 23 bytes; it must have 24"), translated("agent"):
        await agent.inference.Infer(inference_pb2.InferRequest(replica_id="r-embed", inputs=[tensor, mask]), timeout=20)
    ids = inference_pb2.TokenIds(ids=[1])
    with pytest.raises(RemoteError, match="ask it by Infer"), translated("agent"):
        async for _ in agent.inference.Generate(
            inference_pb2.GenerateRequest(replica_id="r-embed", token_ids=ids), timeout=20
        ):
            pass


def test_manifests_of_both_kinds_are_told_apart(tensor_variant: TinyVariant) -> None:
    again = read_manifest(tensor_variant.manifest.to_bytes())
    assert isinstance(again, InferManifest)
    assert again == tensor_variant.manifest and again.variant_id == tensor_variant.variant.variant_id
    with pytest.raises(ValueError, match="ABI 'other/1'"):
        read_manifest(b'{"abi": "other/1"}')


FUNCTIONS = tuple(InferFunction(f"b{b}_l{n}", b, n) for b in (1, 4) for n in (8, 32))


@pytest.mark.parametrize(
    ("waiting", "function", "members"),
    [
        ([(1, 5)], "b1_l8", (0,)),
        ([(1, 9)], "b1_l32", (0,)),
        ([(1, 5), (1, 30), (1, 8), (2, 2)], "b4_l8", (0, 2, 3)),
        ([(3, 5), (2, 5), (1, 5)], "b4_l8", (0, 2)),
        ([(4, 20), (1, 5)], "b4_l32", (0,)),
    ],
)
def test_what_waits_goes_together(waiting: list[tuple[int, int]], function: str, members: tuple[int, ...]) -> None:
    queue = [Waiting(at, Extent(rows, length)) for at, (rows, length) in enumerate(waiting)]
    call = Batching(FUNCTIONS, padded=True).next_call(queue)
    assert (call.function.name, call.members) == (function, members)


def test_without_a_mask_lengths_are_exact_and_limits_hold() -> None:
    exact = Batching(FUNCTIONS, padded=False, batch_limit=2)
    assert [exact.length_for(n) for n in (8, 9, 32)] == [8, None, 32]
    queue = [Waiting(at, Extent(1, 8)) for at in range(3)]
    assert exact.next_call(queue).members == (0, 1)
