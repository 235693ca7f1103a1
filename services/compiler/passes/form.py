"""What the passes of a recipe make of a model: the list of names, read and checked once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tradewind.domain.errors import InvalidField
from tradewind.domain.passes import (
    CACHE_IN_PLACE,
    DEVICE_SAMPLING,
    F16_ARITHMETIC,
    FLAT_LINEAR,
    FUSED_ATTENTION,
    GROUPED_ATTENTION,
    INT8_ACTIVATIONS,
    INT8_WEIGHTS,
    LAST_TOKEN_LOGITS,
    NARROW_WEIGHTS,
    PACKED_LINEARS,
    PASSES,
    PRODUCT_EDGES,
    REPEAT_LAYER,
    ROTARY_CACHE,
    SIBLING_LINEARS,
    SLOT_ATTENTION,
    TURNED_WEIGHTS,
)

ATTENTIONS: Final = (FUSED_ATTENTION, GROUPED_ATTENTION, SLOT_ATTENTION)
# Passes that change which bytes the weights archive has; others share one archive of a precision.
CHANGE_WEIGHTS: Final = frozenset(
    {NARROW_WEIGHTS, TURNED_WEIGHTS, INT8_WEIGHTS, F16_ARITHMETIC, PACKED_LINEARS, SIBLING_LINEARS}
)
# Ways to keep the weights of linear layers: a recipe has one at most.
_KEEP_WEIGHTS: Final = (NARROW_WEIGHTS, TURNED_WEIGHTS, INT8_WEIGHTS, PACKED_LINEARS)
_OF_INT8: Final = (INT8_ACTIVATIONS, F16_ARITHMETIC)
# Passes that a graph which takes its past has no place for: its attention and layers are inside.
NOT_OF_GRAPHS: Final = frozenset(
    {FUSED_ATTENTION, GROUPED_ATTENTION, FLAT_LINEAR, TURNED_WEIGHTS, LAST_TOKEN_LOGITS, REPEAT_LAYER}
)
# Passes that mean something for a model that maps tensors to tensors.
OF_TENSORS: Final = frozenset({NARROW_WEIGHTS, FLAT_LINEAR})


@dataclass(frozen=True, slots=True)
class Form:
    """Choices that change how a decoder is traced; the defaults are those of recipes without kernels.

    Attributes:
        attention: which of `ATTENTIONS` is used; empty for a graph that has its own.
        flat: whether linear layers see flat rows.
        turned: whether weights of linear layers are kept [inputs, outputs].
        int8: whether linear layers keep their weights in 8 bits, without kernels.
        int8_rows: whether those layers round their rows to 8 bits, too.
        f16: whether what is not kept in fewer bits is kept and computed in f16.
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
    turned: bool = False
    int8: bool = False
    int8_rows: bool = False
    f16: bool = False
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
        return bool(self.packed) or self.int8 or self.attention == SLOT_ATTENTION

    @property
    def rounds(self) -> bool:
        """Whether weights are rounded from f32 as a function is made, so that the model is to be loaded in f32."""
        return bool(self.packed) or self.int8


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
    if len(kept := [name for name in _KEEP_WEIGHTS if name in passes]) > 1:
        raise InvalidField("passes", f"{' and '.join(kept)} each say how linear weights are kept; take one")
    if INT8_WEIGHTS not in passes and (alone := [name for name in _OF_INT8 if name in passes]):
        raise InvalidField("passes", f"{alone[0]} goes with weights in 8 bits; it needs {INT8_WEIGHTS}")
    return Form(
        attention=attentions[0] if attentions else "",
        flat=FLAT_LINEAR in passes,
        turned=TURNED_WEIGHTS in passes,
        int8=INT8_WEIGHTS in passes,
        int8_rows=INT8_ACTIVATIONS in passes,
        f16=F16_ARITHMETIC in passes,
        packed=precision if PACKED_LINEARS in passes else "",
        siblings=SIBLING_LINEARS in passes,
        last_token=LAST_TOKEN_LOGITS in passes,
        edges=PRODUCT_EDGES in passes,
        rotary_cache=ROTARY_CACHE in passes,
        sampling=DEVICE_SAMPLING in passes,
        repeated=REPEAT_LAYER in passes,
    )
