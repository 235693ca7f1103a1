"""Tuning specs as IREE reads them: a tile for each number of rows that products of a module have. Pure.

A recipe names tiles as text, "64:12x8x8": products of 64 rows keep the sums of 12 rows and 8 outputs in registers and
take 8 inputs at a time. Rows tell phases apart: a prefill's are its tokens, a decode call's its sequences. Products
without a tile are tiled as the compiler chooses. IREE reads specs on CPUs, CUDA and ROCm; these tiles are for CPUs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tradewind.domain.errors import InvalidField

# What a worker takes of a product at a time, along rows and outputs: IREE's own choice for f32, which leaves tiles of
# weights in L1 (docs/passes.md has what others cost).
_SHARE: Final = 64
# A tile beyond these holds more sums than any CPU has registers.
_MOST: Final = 64
_MOST_TILES: Final = 32
_PATTERN: Final = re.compile(r"(\d{1,5}):(\d{1,2})x(\d{1,2})x(\d{1,2})")
_MAPS: Final = "[affine_map<(m, n, k) -> (m, k)>, affine_map<(m, n, k) -> (k, n)>, affine_map<(m, n, k) -> (m, n)>]"
_OPERATION: Final = "!transform.any_op {transform.readonly}"
_ANSWER: Final = "(!transform.any_op, !transform.any_param)"


@dataclass(frozen=True, slots=True)
class Tile:
    """How products of some rows are tiled.

    Attributes:
        product_rows: of the products it is for.
        rows: whose sums are in registers together.
        outputs: whose sums are in registers together.
        inputs: taken at a time.
    """

    product_rows: int
    rows: int
    outputs: int
    inputs: int


def tiles_of(tuning: Sequence[str]) -> tuple[Tile, ...]:
    """The tiles that a recipe names.

    Raises:
        InvalidField: not of the form ROWS:RxOxI, too large, or two for the same rows.
    """
    tiles = tuple(_tile(text) for text in tuning)
    rows = [tile.product_rows for tile in tiles]
    if len(set(rows)) != len(rows) or len(rows) > _MOST_TILES:
        raise InvalidField("tuning", f"one tile for each number of rows, at most {_MOST_TILES}; these are {rows}")
    return tiles


def _tile(text: str) -> Tile:
    found = _PATTERN.fullmatch(text)
    if found is None or not all(0 < size <= _MOST for size in map(int, found.groups()[1:])):
        raise InvalidField("tuning", f"{text!r} is no tile such as 64:12x8x8, each size from 1 to {_MOST}")
    return Tile(*map(int, found.groups()))


def spec_text(tuning: Sequence[str]) -> str:
    """The spec of a recipe's tiles, as MLIR.

    Raises:
        InvalidField: see `tiles_of`.
    """
    tiles = tiles_of(tuning)
    matchers = "\n".join(_matcher(tile) for tile in tiles)
    cases = ", ".join(f"@rows_{tile.product_rows} -> @tile" for tile in tiles)
    return f"""module @tradewind
    attributes {{transform.with_named_sequence, iree_codegen.tuning_spec_with_default_entrypoint}} {{
transform.named_sequence @tile(%op: {_OPERATION}, %tiles: !transform.any_param {{transform.readonly}}) {{
  transform.annotate %op "compilation_info" = %tiles : !transform.any_op, !transform.any_param
  transform.yield
}}
{matchers}
transform.named_sequence @__kernel_config(%module: !transform.any_op {{transform.consumed}}) -> !transform.any_op
    attributes {{iree_codegen.tuning_spec_entrypoint}} {{
  %same = transform.foreach_match in %module {cases} : (!transform.any_op) -> !transform.any_op
  transform.yield %same : !transform.any_op
}}
}}
"""


def _matcher(tile: Tile) -> str:
    """Matches products of f32 rows by weights [inputs, outputs]; those of one row have no dimension for it.

    Weights [outputs, inputs] are left alone: of fifteen tiles none was better there than what IREE takes itself.
    """
    rows = [tile.product_rows] if tile.product_rows > 1 else []
    maps = f", indexing_maps = {_MAPS}" if rows else ""
    # Sizes for the loops over rows, where there are several, over outputs and over inputs; 0 leaves a loop as it is.
    share = [*(min(_SHARE, count) for count in rows), _SHARE, 0]
    vectors = [*(min(tile.rows, count) for count in rows), tile.outputs, 0]
    inputs = [*(0 for _ in rows), 0, tile.inputs]
    return f"""transform.named_sequence @rows_{tile.product_rows}(%op: {_OPERATION}) -> {_ANSWER} {{
  %batch, %m, %n, %k = transform.iree.match.contraction %op, lhs_type = f32, rhs_type = f32, output_type = f32{maps}
      : !transform.any_op -> !transform.param<i64>
  transform.iree.match.dims_equal %batch, [] : !transform.param<i64>
  transform.iree.match.dims_equal %m, {rows} : !transform.param<i64>
  %tiles = transform.param.constant #iree_codegen.compilation_info<
      lowering_config = #iree_cpu.lowering_config<cache_parallel = {share}, distribution = {share},
          vector_common_parallel = {vectors}, vector_reduction = {inputs}>,
      translation_info = #iree_codegen.translation_info<
          pipeline = #iree_cpu.pipeline<DoubleTilingExpert>, {{enable_loop_peeling}}>>
      -> !transform.any_param
  transform.yield %op, %tiles : !transform.any_op, !transform.any_param
}}"""
