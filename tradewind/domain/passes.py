"""The passes that a recipe may name, in the order in which they act, and what each does in a line. Pure.

Their code is `services/compiler/passes`, a file each; what each does to the code and what it bought stands in
docs/passes.md.
"""

from __future__ import annotations

from typing import Final

NARROW_WEIGHTS: Final = "narrow-weights"
CACHE_IN_PLACE: Final = "cache-in-place"
CONTEXT_BUCKETS: Final = "context-buckets"
FUSED_ATTENTION: Final = "fused-attention"
GROUPED_ATTENTION: Final = "grouped-attention"
SLOT_ATTENTION: Final = "slot-attention"
FLAT_LINEAR: Final = "flat-linear"
TURNED_WEIGHTS: Final = "turned-weights"
INT8_WEIGHTS: Final = "int8-weights"
INT8_ACTIVATIONS: Final = "int8-activations"
F16_ARITHMETIC: Final = "f16-arithmetic"
PACKED_LINEARS: Final = "packed-linears"
SIBLING_LINEARS: Final = "sibling-linears"
PRODUCT_EDGES: Final = "product-edges"
ROTARY_CACHE: Final = "rotary-cache"
LAST_TOKEN_LOGITS: Final = "last-token-logits"  # noqa: S105  no password
DEVICE_SAMPLING: Final = "device-sampling"
REPEAT_LAYER: Final = "repeat-layer"

PASSES: Final[dict[str, str]] = {
    NARROW_WEIGHTS: "weights kept in bf16 or f16, arithmetic in f32",
    CACHE_IN_PLACE: "the KV cache [slots, rows, heads, width] lives in the module and is updated without copies",
    CONTEXT_BUCKETS: "a function for each of some context lengths, so that short sequences do not pay for long ones",
    FUSED_ATTENTION: "attention as the one operator that IREE has for it",
    GROUPED_ATTENTION: "attention as two matmuls and a softmax, query heads grouped on their KV head",
    SLOT_ATTENTION: "attention straight over a cache in f16, up to the rows that are written",
    FLAT_LINEAR: "[B, T, D] as [B·T, D] before each linear layer",
    TURNED_WEIGHTS: "linear weights kept [inputs, outputs], so that products read them as they lie",
    INT8_WEIGHTS: "linear weights in 8 bits, a scale for each output, widened inside the product",
    INT8_ACTIVATIONS: "rows in 8 bits, a scale for each, multiplied by 8-bit weights as whole numbers",
    F16_ARITHMETIC: "whatever is not kept in fewer bits is kept and computed in f16",
    PACKED_LINEARS: "linear weights in 4 or 8 bits, read packed by kernels",
    SIBLING_LINEARS: "packed layers that read the same rows (Q, K, V; gate, up) as one product",
    PRODUCT_EDGES: "norms, gates and residual sums inside the packed products",
    ROTARY_CACHE: "split, rotation and cache writes as one kernel",
    LAST_TOKEN_LOGITS: "a prompt chunk's logits of its last token only",
    DEVICE_SAMPLING: "the likeliest tokens are found on the device, so that the host reads tens of numbers",
    REPEAT_LAYER: "one layer is traced and repeated, which shortens the export",
}
