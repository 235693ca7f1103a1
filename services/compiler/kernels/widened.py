"""Products of rows by weights in fewer bits, widened where they are multiplied: IREE's own code for any target.

Written as a conversion and a matmul, IREE 3.13 makes two dispatches of it when there are several rows, with all
weights in f32 between them, on every call. As one operation it reads the narrow weights and nothing else.
"""

from __future__ import annotations

from typing import Final

import torch

# What widens a number of this type to f32.
_WIDEN: Final = {"i8": "arith.sitofp", "f16": "arith.extf", "bf16": "arith.extf"}


@torch.library.custom_op("tradewind::widened_product", mutates_args=())
def widened_product(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Rows [n, inputs] in f32, f16 or bf16 by weights [outputs, inputs] in i8, f16 or bf16 → f32 [n, outputs]."""
    return torch.nn.functional.linear(rows.float(), weights.float())


@widened_product.register_fake
def _shape(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return rows.new_empty((rows.shape[0], weights.shape[0]), dtype=torch.float32)


def widened_name(rows: list[int], weights: list[int], types: tuple[str, str]) -> str:
    """Of the function for these shapes and element types."""
    return f"tradewind_widened_{rows[0]}x{rows[1]}x{weights[0]}_{'_'.join(types)}"


def widened_text(rows: list[int], weights: list[int], types: tuple[str, str]) -> str:
    """The function, as MLIR."""
    (count, inputs), outputs = rows, weights[0]
    left, right = f"tensor<{count}x{inputs}x{types[0]}>", f"tensor<{outputs}x{inputs}x{types[1]}>"
    answer = f"tensor<{count}x{outputs}xf32>"
    (left_wide, first), (right_wide, second) = _wide("row", types[0]), _wide("weight", types[1])
    widening = "\n".join(filter(None, (first, second)))
    return f"""util.func private @{widened_name(rows, weights, types)}(%rows: {left}, %weights: {right}) -> {answer} {{
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : {answer}
  %start = linalg.fill ins(%zero : f32) outs(%empty : {answer}) -> {answer}
  %sums = linalg.generic {{
      indexing_maps = [
        affine_map<(m, n, k) -> (m, k)>, affine_map<(m, n, k) -> (n, k)>, affine_map<(m, n, k) -> (m, n)>],
      iterator_types = ["parallel", "parallel", "reduction"]}}
      ins(%rows, %weights : {left}, {right}) outs(%start : {answer}) {{
    ^bb0(%row: {types[0]}, %weight: {types[1]}, %sum: f32):
{widening}
      %product = arith.mulf {left_wide}, {right_wide} : f32
      %more = arith.addf %sum, %product : f32
      linalg.yield %more : f32
  }} -> {answer}
  util.return %sums : {answer}
}}"""


def _wide(name: str, kind: str) -> tuple[str, str]:
    """The value of a name as f32, and the line that makes it; "" where it is f32."""
    if kind == "f32":
        return f"%{name}", ""
    return f"%{name}_wide", f"      %{name}_wide = {_WIDEN[kind]} %{name} : {kind} to f32"
