"""What an ONNX graph takes and gives, and whether it is a decoder with a cache (the convention of Optimum)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tradewind.domain.errors import UnsupportedModel
from tradewind.domain.tensors import BATCH, LENGTH, TensorSpec

_DTYPES: Final = {
    1: "f32", 2: "u8", 3: "i8", 4: "u16", 5: "i16", 6: "i32", 7: "i64", 9: "bool", 10: "f16", 11: "f64", 12: "u32",
    13: "u64",
}  # fmt: skip
# Optimum's names; arguments of TensorFlow's functions cannot have dots and have underscores there.
_PAST: Final = re.compile(r"past_key_values[._](\d+)[._](key|value)")
_PRESENT: Final = "present.{layer}.{part}"
IDS, MASK, POSITIONS, LOGITS = "input_ids", "attention_mask", "position_ids", "logits"


@dataclass(frozen=True, slots=True)
class CachedLayer:
    """One layer's cache: names of its inputs and outputs, and (KV heads, width) of key and value."""

    past: tuple[str, str]
    present: tuple[str, str]
    key: tuple[int, int]
    value: tuple[int, int]


@dataclass(frozen=True, slots=True)
class DecoderSignature:
    """A decoder that takes its past and gives its present.

    Attributes:
        inputs: names in the graph's order.
        outputs: names in the graph's order.
        layers: in order.
        ids, mask, positions, logits: the graph's names of these; mask and positions are "" when it takes none.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[CachedLayer, ...]
    ids: str
    mask: str
    positions: str
    logits: str


def inputs_of(graph: Any) -> tuple[TensorSpec, ...]:
    """What a graph takes, weights excepted. The first size may be open as the batch, others as the samples' length.

    Raises:
        UnsupportedModel: an input is no tensor, or of a type that does not travel.
    """
    weights = {tensor.name for tensor in graph.initializer}
    return tuple(_spec(value) for value in graph.input if value.name not in weights)


def decoder_of(graph: Any) -> DecoderSignature | None:
    """The signature of a decoder with a cache; None for any other graph.

    Raises:
        UnsupportedModel: it takes a past and lacks what goes with one.
    """
    inputs = inputs_of(graph)
    specs = {spec.name: spec for spec in inputs}
    outputs = tuple(output.name for output in graph.output)
    pasts = {(int(m[1]), m[2]): spec for spec in inputs if (m := _PAST.fullmatch(spec.name))}
    if not pasts:
        return None
    count = 1 + max(layer for layer, _ in pasts)
    layers = tuple(_layer(layer, pasts, outputs) for layer in range(count))
    found = {name: _named(name, (*specs, *outputs)) for name in (IDS, MASK, POSITIONS, LOGITS)}
    known = {found[IDS], found[MASK], found[POSITIONS], *(spec.name for spec in pasts.values())}
    if strange := sorted(set(specs) - known):
        raise UnsupportedModel(f"a decoder with inputs {', '.join(strange)} is not supported; export it without them")
    for name, why in (
        (IDS, "no tokens"),
        (LOGITS, "no logits"),
        (MASK, "no mask of its past"),
        (POSITIONS, "no positions"),
    ):
        if not found[name]:
            raise UnsupportedModel(
                f"this decoder has {why} ({name}), so that its cache cannot have slots; export it with Optimum's "
                "text-generation-with-past"
            )
    return DecoderSignature(tuple(specs), outputs, layers, found[IDS], found[MASK], found[POSITIONS], found[LOGITS])


def _layer(layer: int, pasts: dict[tuple[int, str], TensorSpec], outputs: Sequence[str]) -> CachedLayer:
    keys = []
    for part in ("key", "value"):
        if (layer, part) not in pasts:
            raise UnsupportedModel(
                f"past_key_values.{layer}.{part} is missing among the inputs; export the model again"
            )
        keys.append(pasts[layer, part])
    present = tuple(_named(_PRESENT.format(layer=layer, part=part), outputs) for part in ("key", "value"))
    if "" in present:
        raise UnsupportedModel(f"present.{layer}.key or .value is missing among the outputs; export the model again")
    rows = []
    for spec in keys:
        if len(spec.shape) != 4 or isinstance(spec.shape[1], str) or isinstance(spec.shape[3], str):
            raise UnsupportedModel(f"{spec.name} is {spec.shape}, not [batch, KV heads, past, width] with both fixed")
        rows.append((spec.shape[1], spec.shape[3]))
    return CachedLayer((keys[0].name, keys[1].name), (present[0], present[1]), rows[0], rows[1])


def _named(name: str, among: Sequence[str]) -> str:
    """The name, with dots or with underscores; "" when it is not there."""
    return next((found for found in among if found in (name, name.replace(".", "_"))), "")


def _spec(value: Any) -> TensorSpec:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in _DTYPES:
        raise UnsupportedModel(f"input {value.name!r} is no tensor of numbers; export the model with tensors only")
    if not kind.HasField("shape"):
        raise UnsupportedModel(f"input {value.name!r} has no shape; export the model with one")
    sizes: list[int | str] = []
    for index, size in enumerate(kind.shape.dim):
        fixed = size.HasField("dim_value") and size.dim_value > 0
        sizes.append(int(size.dim_value) if fixed else BATCH if index == 0 else LENGTH)
    return TensorSpec(value.name, _DTYPES[kind.elem_type], tuple(sizes))
