"""Rounds weights of linear layers to 4 or 8 bits and lays them out as kernels read them."""

from __future__ import annotations

from typing import Final

import torch

from services.compiler.kernels.formats import BLOCK, GROUP, W4, W8, Format

# Keeps a group whose weights are all equal from dividing by zero.
_LEAST_SCALE: Final = 1e-8
# The largest weight of a group becomes this number. 127 loses least where weights are spread evenly; those that were of
# 4 bits before lie on a grid, and some other number meets it: of SmolLM2's Q4_1 weights the squared error is a third.
_W8_LEVELS: Final = range(127, 103, -1)
# Of the largest weight's square: rounding in f32 explains it.
_EXACT: Final = 1e-10
# Weights that are rounded together: their copies stay in a core's L2.
_SLAB_NUMBERS: Final = 1 << 15


def packs(outputs: int, inputs: int) -> bool:
    """Whether a layer of this shape can be packed."""
    return outputs % BLOCK == 0 and inputs % GROUP == 0


def pack(weight: torch.Tensor, form: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights f32 [outputs, inputs] → bytes i8 [blocks, groups, group_bytes] and f16 [blocks, groups, scales].

    Weights that came from a file with the same groups (GGUF's Q4_1 and Q8_0) stay exactly what they were there.
    """
    outputs, inputs = weight.shape
    groups = weight.detach().float().reshape(outputs, inputs // GROUP, GROUP)
    return _pack_w4(groups) if form is W4 else _pack_w8(groups)


def _pack_w4(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = groups.amin(-1), groups.amax(-1)
    scale, offset = ((high - low) / 15).half(), low.half()
    numbers = (groups - offset.float()[..., None]) / scale.float()[..., None].clamp_min(_LEAST_SCALE)
    steps = _steps(numbers.round().clamp(0, 15).to(torch.uint8), W4.step_inputs)
    packed = steps[:, :, 0::2] | (steps[:, :, 1::2] << 4)
    return packed.flatten(2).view(torch.int8).contiguous(), torch.cat([_lanes(scale), _lanes(offset)], -1)


def _pack_w8(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    slabs = torch.split(groups, max(1, _SLAB_NUMBERS // (groups.shape[1] * GROUP)))
    numbers, scales = (torch.cat(parts) for parts in zip(*map(_round_w8, slabs), strict=True))
    return _steps(numbers, W8.step_inputs).flatten(2).contiguous(), _lanes(scales)


def _round_w8(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers i8 and f16 scales of groups [outputs, groups, 32]: of the scales tried, each group's nearest."""
    most = groups.abs().amax(-1)
    best = torch.full_like(most, torch.inf)
    numbers, scales = torch.zeros_like(groups, dtype=torch.int8), torch.zeros_like(most, dtype=torch.float16)
    for levels in _W8_LEVELS:
        scale = (most / levels).half()
        step = scale.float()[..., None]
        rounded = (groups / step.clamp_min(_LEAST_SCALE)).round_().clamp_(-127, 127)
        error = torch.addcmul(-groups, rounded, step).square_().sum(-1)
        nearer = error < best
        best, scales = torch.where(nearer, error, best), torch.where(nearer, scale, scales)
        numbers = torch.where(nearer[..., None], rounded.to(torch.int8), numbers)
        if bool((best <= _EXACT * most.square()).all()):
            break
    return numbers, scales


def _steps(numbers: torch.Tensor, step_inputs: int) -> torch.Tensor:
    """[outputs, groups, 32] → [blocks, groups, steps, 8 · step_inputs]: some inputs of each output in turn."""
    outputs, groups, _ = numbers.shape
    split = numbers.reshape(outputs // BLOCK, BLOCK, groups, GROUP // step_inputs, step_inputs)
    return split.permute(0, 2, 3, 1, 4).reshape(outputs // BLOCK, groups, GROUP // step_inputs, BLOCK * step_inputs)


def _lanes(scales: torch.Tensor) -> torch.Tensor:
    """[outputs, groups] → [blocks, groups, 8]."""
    outputs, groups = scales.shape
    return scales.reshape(outputs // BLOCK, BLOCK, groups).transpose(1, 2).contiguous()


def unpack_rows(rows: torch.Tensor, weights: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Rows of packed 8-bit weights as f32: indices i64 […] → […, inputs]. For embeddings tied to a linear layer."""
    blocks, groups, _ = weights.shape
    split = weights.reshape(blocks, groups, GROUP // W8.step_inputs, BLOCK, W8.step_inputs)
    # Whole blocks are fetched and the others' lanes zeroed: an index into a permuted tensor would permute all of it.
    wanted = (torch.arange(BLOCK) == (rows % BLOCK)[..., None]).float()
    numbers = (split[rows // BLOCK].float() * wanted[..., None, None, :, None]).sum(-2).flatten(-2)
    factors = (scales[rows // BLOCK].float() * wanted[..., None, :]).sum(-1)
    return (numbers * factors[..., None]).flatten(-2)
