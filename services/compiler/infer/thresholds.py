"""How far a tensor model's answers may be from the source's. The only such table. Pure."""

from __future__ import annotations

from typing import Final

# Largest relative error (L2 norm of the difference over that of the source's answer) of any output of any sample.
# f32 differs by the order of additions: some 1e-6 to 1e-5 over a dozen layers; f16 keeps 11 bits and bf16 8 bits of
# each number, whose errors grow with the square root of the depth. 8-bit source graphs round to other neighbours.
MOST_ERROR: Final[dict[str, float]] = {"f32": 1e-3, "f16": 1e-2, "bf16": 5e-2}
# A canary runs on another machine with the same code; what is beyond this is no rounding.
CANARY_ERROR: Final = 1e-2


def judge_infer(precision: str, error: float, worst: str, compared: int) -> tuple[bool, str]:
    """Whether a variant may serve, and why, in a person's words.

    Args:
        precision: of the recipe.
        error: the largest relative error.
        worst: where it was.
        compared: answers compared.

    Raises:
        KeyError: no threshold for the precision.
    """
    limit = MOST_ERROR[precision]
    admitted = error <= limit
    figure = f"relative error {error:.2g} ({worst})"
    said = figure if admitted else f"{figure} where {precision} needs ≤ {limit:g}"
    return admitted, f"{'admitted' if admitted else 'rejected'} on {compared} answers of the source: {said}"
