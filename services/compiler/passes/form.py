"""What the passes of a recipe make of a model: the list of names, read and checked once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tradewind.domain.errors import InvalidField
from tradewind.domain.passes import (
    CACHE_IN_PLACE,
    DEVICE_SAMPLING,
    FLAT_LINEAR,
    FUSED_ATTENTION,
    GROUPED_ATTENTION,
    LAST_TOKEN_LOGITS,
    NARROW_WEIGHTS,
    PACKED_LINEARS,
    PASSES,
    PRODUCT_EDGES,
    REPEAT_LAYER,
    ROTARY_CACHE,
    SIBLING_LINEARS,
    SLOT_ATTENTION,
)

ATTENTIONS: Final = (FUSED_ATTENTION, GROUPED_ATTENTION, SLOT_ATTENTION)
# Passes that change which bytes the weights archive has; others share one archive of a precision.
CHANGE_WEIGHTS: Final = frozenset({NARROW_WEIGHTS, PACKED_LINEARS, SIBLING_LINEARS})
# Passes that a graph which takes its past has no place for: its attention and layers are inside.
NOT_OF_GRAPHS: Final = frozenset({FUSED_ATTENTION, GROUPED_ATTENTION, FLAT_LINEAR, LAST_TOKEN_LOGITS, REPEAT_LAYER})
# Passes that mean something for a model that maps tensors to tensors.
OF_TENSORS: Final = frozenset({NARROW_WEIGHTS, FLAT_LINEAR})


@dataclass(frozen=True, slots=True)
class Form:
    """Choices that change how a decoder is traced; the defaults are those of recipes without kernels.

    Attributes:
        attention: which of `ATTENTIONS` is used; empty for a graph that has its own.
        flat: whether linear layers see flat rows.
        packed: precision that linear layers are packed to; empty for layers as they are.
        siblings: whether packed layers that read the same rows become one.
        edges: whether norms, gates and sums around packed layers become part of them.
        rotary_cache: whether one kernel turns queries and keys and writes the cache.
        last_token: whether a prefill computes the logits of its last token only.
        sampling: whether functions give the likeliest tokens beside the logits.
        repeated: whether one layer is traced for all that are alike.
    """

    attention: str = GROUPED_ATTENTION
    flat: bool = True
    packed: str = ""
    siblings: bool = False
    edges: bool = False
    rotary_cache: bool = False
    last_token: bool = True
    sampling: bool = False
    repeated: bool = True

    @property
    def kernels(self) -> bool:
        """Whether torch operators stand for kernels in what is traced."""
        return bool(self.packed) or self.attention == SLOT_ATTENTION


PLAIN: Final = Form()


def form_of(passes: Sequence[str], precision: str) -> Form:
    """The form that a recipe's passes stand for.

    Args:
        passes: names out of `tradewind.domain.passes`.
        precision: of the recipe.

    Raises:
        InvalidField: an unknown name, two kinds of attention, a pass without the one it needs.
    """
    if unknown := [name for name in passes if name not in PASSES]:
        raise InvalidField("passes", f"no pass named {unknown[0]!r}; there are {', '.join(PASSES)}")
    attentions = [name for name in passes if name in ATTENTIONS]
    if len(attentions) > 1:
        raise InvalidField("passes", f"a recipe has one attention; this one has {' and '.join(attentions)}")
    if CACHE_IN_PLACE not in passes:
        raise InvalidField("passes", f"functions that generate share a cache; {CACHE_IN_PLACE} belongs to every recipe")
    if SIBLING_LINEARS in passes and PACKED_LINEARS not in passes:
        raise InvalidField("passes", f"{SIBLING_LINEARS} joins packed layers; it needs {PACKED_LINEARS}")
    return Form(
        attention=attentions[0] if attentions else "",
        flat=FLAT_LINEAR in passes,
        packed=precision if PACKED_LINEARS in passes else "",
        siblings=SIBLING_LINEARS in passes,
        last_token=LAST_TOKEN_LOGITS in passes,
        edges=PRODUCT_EDGES in passes,
        rotary_cache=ROTARY_CACHE in passes,
        sampling=DEVICE_SAMPLING in passes,
        repeated=REPEAT_LAYER in passes,
    )
