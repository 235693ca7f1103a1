"""A variant that finds its largest logits itself, and a second real device of a node: llvmpipe through Vulkan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.compiler.recipes import PASSES
from services.node_agent.devices.vulkan import VulkanDevice, discover_vulkan
from tests.node_agent.agent_process import NODE_ID, generate, tokens_of
from tests.node_agent.conftest import StartAgent
from tests.node_agent.neighbours import FileCompiler, Orchestrator, spec, target
from tests.node_agent.reference import torch_greedy
from tests.tiny_variant import TINY_RECIPE, TinyVariant, build_tiny_variant
from tradewind.domain.errors import InUse, InvalidField
from tradewind.domain.passes import DEVICE_SAMPLING
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import common_pb2, node_pb2

# llvmpipe compiles every dispatch when a variant is loaded.
LOAD_LIMIT_S = 110
RECIPE = replace(
    TINY_RECIPE,
    name="tiny-largest",
    passes=(*TINY_RECIPE.passes, DEVICE_SAMPLING),
    prefill_chunks=(16,),
    decode_batches=(2,),
    context_buckets=(128,),
    slots=2,
)


@pytest.fixture(scope="module")
def picks() -> TinyVariant:
    """On the CPU, where the gate compares every pick with the logits it came with."""
    return build_tiny_variant(RECIPE)


@pytest.fixture(scope="module")
def llvmpipe() -> VulkanDevice:
    found = discover_vulkan()
    if not found:
        pytest.skip("no Vulkan device here; apt-get install mesa-vulkan-drivers for llvmpipe")
    return found[0]


async def test_a_variant_with_picks_answers_as_one_without(
    start_agent: StartAgent,
    compiler: tuple[FileCompiler, GrpcServer],
    orchestrator: tuple[Orchestrator, GrpcServer],
    tiny: TinyVariant,
    picks: TinyVariant,
) -> None:
    assert (picks.manifest.picks, tiny.manifest.picks) == (64, 0)
    compiler[0].offer(picks)
    orchestrator[0].push(target(NODE_ID, 1, spec(tiny, "plain"), spec(picks, "picks")))
    agent = await start_agent()
    for name in ("plain", "picks"):
        await orchestrator[0].state(name, node_pb2.REPLICA_STATE_READY)
    wishes = (
        {},
        {"temperature": 1.1, "top_k": 40, "top_p": 0.9, "seed": 5},
        {"temperature": 1.0, "seed": 6},
        {"temperature": 1.0, "top_k": 200, "seed": 7},
    )
    for wish in wishes:
        asked = {"max_tokens": 20, "ignore_eos": True, **wish}
        one, other = [await generate(agent.inference, name, [9, 8, 7], **asked) for name in ("plain", "picks")]
        assert tokens_of(one) == tokens_of(other), wish


async def test_llvmpipe_is_a_device_that_serves(
    start_agent: StartAgent,
    compiler: tuple[FileCompiler, GrpcServer],
    orchestrator: tuple[Orchestrator, GrpcServer],
    llvmpipe: VulkanDevice,
    vulkan_variant: TinyVariant,
) -> None:
    compiler[0].offer(vulkan_variant)
    (whole,) = llvmpipe.partitions()
    wanted = spec(vulkan_variant, "on-vulkan")
    wanted.partition.CopyFrom(
        common_pb2.Partition(
            partition_id=whole.partition_id, device_id=whole.device_id, kind=whole.kind, uuid=whole.uuid
        )
    )
    orchestrator[0].push(target(NODE_ID, 1, wanted))
    agent = await start_agent(vulkan="on")
    await orchestrator[0].state("on-vulkan", node_pb2.REPLICA_STATE_READY, limit_s=LOAD_LIMIT_S)
    device = (await agent.describe()).devices[1]
    assert (device.kind, device.device_class) == (node_pb2.DEVICE_KIND_VULKAN, "vulkan:llvmpipe")
    # Within a chunk, and across chunks and the rows where code compiled at O3 went wrong.
    prompts = [[5, 77, 200, 31, 8], list(range(3, 33))]
    answers = [await generate(agent.inference, "on-vulkan", p, max_tokens=12, ignore_eos=True) for p in prompts]
    assert [tokens_of(a) for a in answers] == torch_greedy(vulkan_variant.model_folder, prompts, 12)


@pytest.fixture(scope="module")
def vulkan_variant(llvmpipe: VulkanDevice) -> TinyVariant:
    # Without picks: half as much code for llvmpipe to compile at each start.
    return build_tiny_variant(replace(RECIPE, name="tiny-vulkan", passes=PASSES), target="vulkan:baseline")


def test_the_whole_device_is_all_there_is() -> None:
    device = VulkanDevice("GPU-12", "llvmpipe (LLVM 15.0.6, 256 bits)", 1 << 30)
    assert device.facts.device_class == "vulkan:llvmpipe"
    assert device.cut("gpu/whole").uuid == "GPU-12"
    with pytest.raises(InUse, match="has a replica"):
        device.cut("gpu/whole", {"GPU-12"})
    with pytest.raises(InvalidField, match="only gpu/whole"):
        device.cut("mig/1g")
    with pytest.raises(InvalidField, match="all that stands here"):
        device.check("vulkan-GPU-12", "gpu/whole", (), "GPU-34")
    device.check("vulkan-GPU-12", "gpu/whole", (), "GPU-12")
