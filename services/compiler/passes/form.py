"""What the passes of a recipe make of a model's linear layers and attention. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PACKED_LINEARS: Final = "packed-linears"
SLOT_ATTENTION: Final = "slot-attention"
SIBLING_LINEARS: Final = "sibling-linears"
PRODUCT_EDGES: Final = "product-edges"
ROTARY_CACHE: Final = "rotary-cache"


@dataclass(frozen=True, slots=True)
class Form:
    """Choices that change how a decoder is traced.

    Attributes:
        packed: precision that linear layers are packed to; empty for layers as they are.
        slot_attention: whether attention reads the cache in place, row by row.
        siblings: whether packed layers that read the same rows become one.
        edges: whether norms, gates and sums around packed layers become part of them.
        rotary_cache: whether one kernel turns queries and keys and writes the cache.
    """

    packed: str = ""
    slot_attention: bool = False
    siblings: bool = False
    edges: bool = False
    rotary_cache: bool = False


PLAIN: Final = Form()


def form_of(passes: Sequence[str], precision: str) -> Form:
    """The form that a recipe's passes stand for."""
    return Form(
        packed=precision if PACKED_LINEARS in passes else "",
        slot_attention=SLOT_ATTENTION in passes,
        siblings=SIBLING_LINEARS in passes,
        edges=PRODUCT_EDGES in passes,
        rotary_cache=ROTARY_CACHE in passes,
    )
