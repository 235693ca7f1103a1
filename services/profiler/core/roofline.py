"""What a dispatch computes and moves, read from the name that IREE gave it. Pure.

Names of matrix products end in their kind, the bounds of their loops and their element types:
"…_matvec_like_1536x576_f32" is [N, K], "…_matmul_like_64x1536x576_f32" [M, N, K], "…_matmul_like_3x192x1024x64_f32"
the same for 3 heads. Each point of the loops is one multiply-add. The right-hand matrix, weights or keys, is read once:
all loops but M. Of several types the narrowest is taken for its own.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

_PRODUCT: Final = re.compile(
    r"_(?:matmul_like|matvec_like|batch_matmul|matmul|matvec|vecmat)_(\d+(?:x\d+)+)_([a-z0-9]+)$"
)
_BYTES: Final = {"f64": 8.0, "i64": 8.0, "f32": 4.0, "i32": 4.0, "f16": 2.0, "bf16": 2.0, "i8": 1.0, "i4": 0.5}


@dataclass(frozen=True, slots=True)
class Work:
    """Of one run: arithmetic operations, and bytes of the right-hand matrix; 0 where the name does not tell."""

    operations: float = 0.0
    moved_bytes: float = 0.0


def work_of(name: str) -> Work:
    """The work of one run of a dispatch."""
    found = _PRODUCT.search(name)
    if found is None:
        return Work()
    sizes = [int(size) for size in found[1].split("x")]
    points = math.prod(sizes)
    matrix = points / sizes[-3] if len(sizes) > 2 else points
    widths = [_BYTES[part] for part in found[2].split("x") if part in _BYTES]
    return Work(2.0 * points, matrix * min(widths, default=0.0))
