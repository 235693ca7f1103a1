"""Kernels compiled and run against NumPy, and a whole variant made of them through the quality gate."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import iree.runtime as rt
import numpy as np
import pytest
import torch

from services.compiler.host_cpu import cpu_flags
from services.compiler.jobs.limits import JobLimits
from services.compiler.kernels.attention import Attention, attention_kernel
from services.compiler.kernels.formats import W4, W8, Format
from services.compiler.kernels.linear import Linear, linear_kernels
from services.compiler.kernels.packing import pack, unpack_rows
from services.compiler.kernels.prompt_attention import tokens_together
from services.compiler.kernels.rotary_cache import RotaryCache, rotary_cache_kernel
from services.compiler.kernels.rows import GATED, NORMED, Rows
from services.compiler.order import Order
from services.compiler.recipes import find_recipe
from services.compiler.targets import find_target
from services.compiler.toolchain import find_iree_compile
from services.compiler.workshop import Workshop
from tests.tiny_model import write_tiny_model
from tradewind.v1 import compiler_pb2

pytestmark = pytest.mark.skipif("avx2" not in cpu_flags(), reason="the kernels are written for AVX2")

FLAGS = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
)
# A row rounded inside the dispatch, rows rounded in one of their own, few and odd rows, inputs taken in chunks; then
# what is made of rows before they are multiplied, and sums.
LINEARS = (
    Linear(W4, Rows(1, 64), 80),
    Linear(W8, Rows(6, 64), 48),
    Linear(W8, Rows(132, 96), 24),
    Linear(W4, Rows(3, 1536), 16),
    Linear(W4, Rows(64, 3072), 16),
    Linear(W4, Rows(1, 576, NORMED, 1e-5), 24, added=True),
    Linear(W8, Rows(8, 576, NORMED, 1e-6), 16),
    Linear(W4, Rows(1, 96, GATED), 16),
    Linear(W4, Rows(8, 1536, GATED), 16, added=True),
    Linear(W4, Rows(4, 96), 96),
    Linear(W4, Rows(12, 96, GATED), 16, added=True),
)
# Results gated and rounded for the product behind: a row and rows made before, tiles of one block and of two.
GATES = (
    Linear(W4, Rows(1, 64, NORMED, 1e-5), 192, gated=W4),
    Linear(W4, Rows(8, 96, NORMED, 1e-5), 192, gated=W4),
    Linear(W8, Rows(4, 64), 128, gated=W8),
)
ROTARY = RotaryCache(tokens=5, heads=6, width=48, slots=3, kv_heads=2, rows=71)
ATTENTION = Attention(tokens=5, heads=6, width=40, slots=3, rows=71, kv_heads=2, scale=0.2)
WIDE = replace(ATTENTION, width=64)
ROUNDED_ATTENTIONS = (replace(WIDE, rounded=W4), replace(WIDE, rounded=W8))
# More tokens than workgroups, so that each takes some.
MANY = replace(ATTENTION, tokens=24, heads=3, kv_heads=1)
# Sixteen tokens together; one head of eight; and tokens that no workgroup takes together.
PROMPTS = (
    replace(ATTENTION, tokens=16, follows=True),
    replace(ATTENTION, tokens=8, heads=2, width=64, follows=True),
    replace(ATTENTION, tokens=64, heads=9, width=64, kv_heads=3, rows=128, follows=True),
    replace(ATTENTION, follows=True),
)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All kernels of this file in one module, under their names."""
    folder = tmp_path_factory.mktemp("kernels")
    texts = [linear_kernels(shape) for shape in LINEARS] + [rotary_cache_kernel(ROTARY)]
    texts += [linear_kernels(shape) for gate in GATES for shape in (gate, replace(gate, gated=None))]
    texts += [attention_kernel(shape) for shape in (ATTENTION, MANY, WIDE, *ROUNDED_ATTENTIONS, *PROMPTS)]
    source = "module {\n" + "\n".join(texts).replace("util.func private", "util.func public") + "\n}"
    (folder / "k.mlir").write_text(_called_from_outside(source))
    subprocess.run([find_iree_compile(), *FLAGS, "k.mlir", "-o", "k.vmfb"], cwd=folder, check=True)
    config = rt.Config("local-task")
    return rt.load_vm_module(rt.VmModule.mmap(config.vm_instance, str(folder / "k.vmfb")), config)


def _called_from_outside(source: str) -> str:
    """Functions that callers outside may call are func.func: the compiler gives them its calling convention."""
    return (
        source.replace("util.func public", "func.func")
        .replace("util.return", "return")
        .replace("util.call", "func.call")
    )


@pytest.mark.parametrize("shape", LINEARS, ids=lambda shape: shape.name)
def test_linear_is_the_product_with_the_rounded_weights(kernels: Any, shape: Linear) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = _exact(torch.randn(shape.outputs, shape.read.inputs, generator=generator), shape.form)
    rows = torch.randn(shape.rows, shape.read.columns, generator=generator)
    gain, added = (torch.rand(size, generator=generator) for size in (shape.read.inputs, (shape.rows, shape.outputs)))
    wanted = (_made(shape.read, rows, gain) @ weight.T + (added if shape.added else 0)).numpy()
    gains = [gain] if shape.read.made == NORMED else []
    arguments = [rows, *pack(weight, shape.form), *gains, *([added] if shape.added else [])]
    got = np.asarray(kernels[shape.name](*(argument.numpy() for argument in arguments)))
    # What is left is the rounding of activations: 1 part in 254 and in 16,382 of the largest of 32.
    limit = 0.02 if shape.form is W4 else 0.001
    assert np.sqrt(((got - wanted) ** 2).mean()) < limit * wanted.std()


@pytest.mark.parametrize("shape", GATES, ids=lambda shape: shape.name)
def test_a_product_gates_and_rounds_its_result(kernels: Any, shape: Linear) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = pack(torch.randn(shape.outputs, shape.read.inputs, generator=generator), shape.form)
    gains = [torch.rand(shape.read.inputs, generator=generator)] if shape.read.made == NORMED else []
    rows = torch.randn(shape.rows, shape.read.inputs, generator=generator)
    arguments = [argument.numpy() for argument in (rows, *weights, *gains)]
    whole = torch.from_numpy(np.array(kernels[replace(shape, gated=None).name](*arguments)))
    gate, up = whole.split(shape.outputs // 2, -1)
    assert shape.gated is not None
    _check_rounded(kernels[shape.name](*arguments), (torch.nn.functional.silu(gate) * up).numpy(), shape.gated)


@pytest.mark.parametrize("shape", ROUNDED_ATTENTIONS, ids=lambda shape: shape.name)
def test_attention_rounds_its_result(kernels: Any, shape: Attention) -> None:
    arguments = *_attended(shape), np.array([0, 2, 1, 1, 2]), np.array([0, 70, 31, 32, 5])
    assert shape.rounded is not None
    _check_rounded(kernels[shape.name](*arguments), np.asarray(kernels[WIDE.name](*arguments)), shape.rounded)


def _check_rounded(got: Any, wanted: Any, form: Format) -> None:
    """Numbers, scales and sums against what was rounded, [..., columns]."""
    numbers, scales, sums = (np.asarray(part) for part in got)
    groups = wanted.reshape(*scales.shape, 32)
    counted = numbers.reshape(groups.shape).astype(np.float32)
    np.testing.assert_allclose(scales, np.abs(groups).max(-1) / form.levels, rtol=1e-6)
    assert np.abs(counted - groups / scales[..., None]).max() < 0.51
    np.testing.assert_allclose(sums, counted.sum(-1) * scales, rtol=1e-5, atol=1e-6)


def _made(rows: Rows, read: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """What is multiplied, in PyTorch's words."""
    if rows.made == NORMED:
        return torch.nn.functional.rms_norm(read, (rows.inputs,), gain, rows.epsilon)
    if rows.made == GATED:
        gate, up = read.split(rows.inputs, -1)
        return torch.nn.functional.silu(gate) * up
    return read


def test_attention_sees_written_rows_of_its_slot_only(kernels: Any) -> None:
    _check_attention(kernels, ATTENTION, np.array([0, 2, 1, 1, 2]), np.array([0, 70, 31, 32, 5]))
    _check_attention(kernels, MANY, np.arange(24) % 3, np.arange(24) * 17 % 71)


@pytest.mark.parametrize("start", [0, 29, 55])
@pytest.mark.parametrize("shape", PROMPTS, ids=lambda shape: shape.name)
def test_tokens_of_a_prompt_see_the_rows_up_to_their_own(kernels: Any, shape: Attention, start: int) -> None:
    _check_attention(kernels, shape, np.full(shape.tokens, 2), np.arange(start, start + shape.tokens))


def test_tokens_are_taken_together_when_their_queries_fill_vectors() -> None:
    assert [tokens_together(shape) for shape in PROMPTS] == [16, 8, 16, 0]
    assert tokens_together(replace(PROMPTS[0], follows=False)) == 0
    assert tokens_together(replace(PROMPTS[0], width=8)) == 0


def test_blocks_of_a_prompt_that_hardly_count_are_as_exact(kernels: Any) -> None:
    """One row takes nearly all of the weight, and only rows of other blocks have values that are not 0."""
    shape, last = PROMPTS[2], 100
    query, keys, values = (np.zeros_like(part) for part in _attended(shape))
    query[..., 0], keys[:, :, 0, 0], values[:, :, 32:] = 16, 4, 1
    positions = np.arange(last + 1 - shape.tokens, last + 1)
    got = np.asarray(kernels[shape.name](query, keys, values, np.full(shape.tokens, 2), positions))
    for token, position in enumerate(positions):
        others = position * np.exp(-64 * shape.scale)
        wanted = others / position * max(position - 31, 0) / (1 + others)
        np.testing.assert_allclose(got[token], wanted, rtol=1e-3)


def _check_attention(kernels: Any, shape: Attention, slots: Any, positions: Any) -> None:
    query, keys, values = _attended(shape)
    got = np.asarray(kernels[shape.name](query, keys, values, slots, positions))
    for token, (slot, last) in enumerate(zip(slots, positions, strict=True)):
        for head in range(shape.heads):
            key, value = (part[slot, head // shape.group, : last + 1].astype(np.float32) for part in (keys, values))
            scores = key @ query[token, head] * shape.scale
            weights = np.exp(scores - scores.max())
            np.testing.assert_allclose(got[token, head], weights / weights.sum() @ value, atol=_loss(shape))


def _loss(shape: Attention) -> float:
    """Largest that is lost: whole numbers of 13 bits have what f16 has, powers are exact to 3e-6."""
    return 2e-3 if tokens_together(shape) else 5e-6


def _attended(shape: Attention) -> tuple[Any, Any, Any]:
    """Random queries, keys and values."""
    random = np.random.default_rng(0)
    query = random.standard_normal((shape.tokens, shape.heads, shape.width), np.float32)
    cache = (shape.slots, shape.kv_heads, shape.rows, shape.width)
    keys, values = (random.standard_normal(cache, np.float32).astype(np.float16) for _ in range(2))
    return query, keys, values


def test_queries_and_keys_are_turned_and_the_cache_keeps_its_other_rows(kernels: Any) -> None:
    shape, random = ROTARY, np.random.default_rng(0)
    rows = random.standard_normal((shape.tokens, shape.columns), np.float32)
    cos, sin = (random.standard_normal((shape.tokens, shape.width), np.float32) for _ in range(2))
    cache = np.ones((shape.slots, shape.kv_heads, shape.rows, shape.width), np.float16)
    slots, positions = np.array([0, 2, 1, 1, 2]), np.array([0, 70, 31, 32, 5])
    results = kernels[shape.name](rows, cos, sin, slots, positions, cache, cache.copy())
    query, keys, values = (np.asarray(result) for result in results)
    heads = rows.reshape(shape.tokens, -1, shape.width)
    first, second = np.split(heads, 2, -1)
    turned = heads * cos[:, None] + np.concatenate([-second, first], -1) * sin[:, None]
    np.testing.assert_allclose(query, turned[:, : shape.heads], atol=1e-5)
    kept = {"keys": turned[:, shape.heads : -shape.kv_heads], "values": heads[:, -shape.kv_heads :]}
    for got, wanted in zip((keys, values), kept.values(), strict=True):
        np.testing.assert_allclose(got[slots, :, positions], wanted, rtol=1e-3, atol=1e-4)
        assert (got == 1).sum() >= cache.size - wanted.size


def test_eight_bits_lose_less_of_weights_that_lie_on_a_grid() -> None:
    weight = _exact(torch.randn(64, 96, generator=torch.Generator().manual_seed(0)), W4)
    kept = unpack_rows(torch.arange(64), *pack(weight, W8))
    assert (kept - weight).square().mean() < 0.5 * (_exact(weight, W8) - weight).square().mean()


def test_rows_of_packed_weights_come_back() -> None:
    weight = _exact(torch.randn(24, 64), W8)
    tokens = torch.tensor([[3, 23], [0, 8]])
    torch.testing.assert_close(unpack_rows(tokens, *pack(weight, W8)), weight[tokens])


def test_a_variant_of_kernels_passes_the_gate(tmp_path: Path) -> None:
    variant = _build(tmp_path)
    assert variant.state == compiler_pb2.VARIANT_STATE_ADMITTED, variant.state_reason
    assert variant.quality.top1_agreement >= 0.96
    assert len(list((tmp_path / "state" / "index" / "windows").iterdir())) == 1, "the source was asked about more text"


def test_a_model_that_the_kernels_do_not_take_fails_alone_with_the_reason(tmp_path: Path) -> None:
    variant = _build(tmp_path, architecture="MistralForCausalLM", sliding_window=8)
    assert variant.state == compiler_pb2.VARIANT_STATE_FAILED
    assert "no sliding window" in variant.state_reason and "f32-grouped" in variant.state_reason


def _build(folder: Path, **model_of: Any) -> compiler_pb2.Variant:
    """A tiny model in w8, through a workshop of its own."""
    workshop = Workshop(folder / "state", JobLimits(time_s=240, memory_bytes=6 << 30))
    recipe = replace(
        find_recipe("w8-kernels").facts, prefill_chunks=(16,), decode_batches=(2,), context_buckets=(256,), slots=2
    )

    async def build() -> compiler_pb2.Variant:
        source = write_tiny_model(folder / "tiny", **model_of)
        model = await workshop.importer.import_model(source, lambda _stage, _share: None)
        order = Order(model, recipe, find_target("cpu:host", workshop.targets))
        return await workshop.builder.build(order, lambda _stage, _share: None)

    try:
        return asyncio.run(build())
    finally:
        workshop.close()


def _exact(weight: torch.Tensor, form: Format) -> torch.Tensor:
    """The nearest weights that the format holds exactly."""
    groups = weight.reshape(weight.shape[0], -1, 32)
    if form is W8:
        scale = (groups.abs().amax(-1, keepdim=True) / 127).half().float()
        return ((groups / scale).round().clamp(-127, 127) * scale).reshape(weight.shape)
    low = groups.amin(-1, keepdim=True).half().float()
    scale = ((groups.amax(-1, keepdim=True) - low) / 15).half().float()
    numbers = ((groups - low) / scale).round().clamp(0, 15)
    # The ends are there in every group, so that packing finds the same scale again.
    numbers[..., 0], numbers[..., 1] = 0, 15
    return (numbers * scale + low).reshape(weight.shape)
