"""Pass "device-sampling": the likeliest tokens are found where the logits are.

Each function gives, beside its logits [B, V], the values and ids of the `PICKS` largest of each row, largest first and
equals by id: what the engine's own sampling would look for. Greedy and top-k sampling read these alone; whoever needs
the whole row still has it, and on a GPU it crosses to the host only then.

There is no sort and no top-k operator here: IREE's CPU code for both is a loop over single numbers. Rows are cut into
blocks of blocks; the largest block maxima name the blocks that can hold a pick, and inside a few hundred candidates a
number's rank is how many others are larger, which every target computes in vectors.
"""

from __future__ import annotations

import math

import torch

from tradewind.domain.manifest import PICKS

# Numbers under one maximum. Candidates at each level are PICKS times this, and ranking costs their square: of 8 rows of
# 49,152 logits 0.65 ms with 4 under each, 0.93 with 8, 1.7 with 16 (two threads, Zen 3, best call).
_FAN = 4


def with_picks(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits f32 [B, V], and the values f32 and ids i32 [B, K] of the largest; K is PICKS, or V where that is less."""
    return logits, *largest(logits, min(PICKS, logits.shape[1]))


def largest(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and ids i32 [B, count] of the largest of each row [B, V], largest first, equals by id."""
    levels = _pyramid(rows, count)
    top = levels[-1]
    ids = torch.arange(top.shape[1], dtype=torch.int32).expand(top.shape)
    ids = _best(top, ids, count)
    for level in reversed(levels[:-1]):
        # A number among the largest is in a block whose maximum is among the largest maxima.
        values = _of_blocks(level, ids)
        ids = (ids[:, :, None] * _FAN + torch.arange(_FAN, dtype=torch.int32)).reshape(values.shape)
        ids = _best(values, ids, count)
    ids = ids.clamp(0, rows.shape[1] - 1)
    return _at(rows.reshape(-1, 1), ids, rows.shape[1]).reshape(ids.shape), ids


def _of_blocks(level: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """The numbers [B, count · _FAN] under some maxima [B, count] of a level [B, N]."""
    per_row = level.shape[1] // _FAN
    # Ranks are all different unless a value is no number; a block must be one of the row's even then.
    return _at(level.reshape(-1, _FAN), blocks.clamp(0, per_row - 1), per_row).reshape(level.shape[0], -1)


def _at(table: torch.Tensor, places: torch.Tensor, per_row: int) -> torch.Tensor:
    """Rows of a table [B · per_row, W] at i32 places [B, N], counted in each row of the batch; [B · N, W].

    By numbers of 32 bits: those of `gather` have 64, which code for Vulkan's baseline cannot take.
    """
    starts = torch.arange(places.shape[0], dtype=torch.int32)[:, None] * per_row
    return table.index_select(0, (places + starts).reshape(-1))


def _pyramid(rows: torch.Tensor, count: int) -> list[torch.Tensor]:
    """The rows, the maxima of their blocks, the maxima of those and so on, while there are more than the candidates."""
    depth = max(0, math.ceil(math.log(rows.shape[1] / (count * _FAN), _FAN)))
    missing = -rows.shape[1] % _FAN**depth
    levels = [torch.nn.functional.pad(rows, (0, missing), value=-math.inf) if missing else rows]
    for _ in range(depth):
        levels.append(levels[-1].reshape(rows.shape[0], -1, _FAN).amax(-1))
    return levels


def _best(values: torch.Tensor, ids: torch.Tensor, count: int) -> torch.Tensor:
    """Ids [B, count] of the largest values [B, N], largest first, equals by id."""
    this, other = values[:, :, None], values[:, None, :]
    # Not with & and |: those do not legalise.
    equal = torch.logical_and(other == this, ids[:, None, :] < ids[:, :, None])
    before = torch.logical_or(other > this, equal)
    rank = before.to(torch.int32).sum(-1, dtype=torch.int32)
    place = torch.arange(count, dtype=torch.int32)
    return torch.where(rank[:, None, :] == place[None, :, None], ids[:, None, :], 0).sum(-1, dtype=torch.int32)
