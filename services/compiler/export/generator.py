"""The functions of ABI "tradewind.generate/1" over any causal LM that takes its attention and cache from outside.

Exports to MLIR; neither compiles nor runs. See `tradewind.domain.manifest` for the contract of the functions.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from iree.turbine.aot.compiled_module import ExportTargetDef

from services.compiler.export.cached_graph import CachedGraph
from services.compiler.export.decoder import cache_rows_of, find_layers
from services.compiler.export.shapes import WEIGHTS_SCOPE, Shapes
from services.compiler.kernels.lowering import lower_kernels
from services.compiler.passes import last_token
from services.compiler.passes import slot_attention as slots_of_call
from services.compiler.passes.cache_in_place import (
    FirstSlotsCache,
    KvCache,
    OneSlotCache,
    SlotCache,
    by_rows,
    start_caches,
)
from services.compiler.passes.device_sampling import with_picks
from services.compiler.passes.flat_linear import flatten_linears
from services.compiler.passes.form import ATTENTIONS, PLAIN, Form
from services.compiler.passes.fused_attention import fused_attention
from services.compiler.passes.grouped_attention import grouped_attention
from services.compiler.passes.int8_weights import int8_linears
from services.compiler.passes.packed_linears import pack_linears
from services.compiler.passes.product_edges import join_edges
from services.compiler.passes.repeat_layer import only_first_layer, repeat_layer
from services.compiler.passes.rotary_cache import join_rotary_cache
from services.compiler.passes.rounded_rows import round_where_made
from services.compiler.passes.sibling_linears import find_siblings, join_siblings
from services.compiler.passes.turned_weights import turn_linears
from tradewind.domain.errors import InvalidField, UnsupportedModel
from tradewind.domain.manifest import Function
from tradewind.domain.passes import FUSED_ATTENTION, GROUPED_ATTENTION, SLOT_ATTENTION

# Attention functions that are the same for all calls; slot-attention is made for each.
_ATTENTIONS: Final = {GROUPED_ATTENTION: grouped_attention, FUSED_ATTENTION: fused_attention}
# Under this name they are known to transformers, which takes no other name than one that is registered.
_REGISTERED: Final = "tradewind_"


class Generator(torch.nn.Module):
    """A causal LM with its KV cache as buffers, which become mutable globals of the compiled module."""

    def __init__(self, model: Any, shapes: Shapes, dtype: torch.dtype = torch.float32, form: Form = PLAIN) -> None:
        """Wraps a model, whose linears and attention take the form that IREE compiles well.

        Args:
            model: a causal LM; changed in place.
            shapes: sizes of the functions and the cache.
            dtype: what it computes in, and keeps its cache in unless the form says otherwise.
            form: what the passes make of it.
        """
        super().__init__()
        self.form = form
        _attend_with(model, form.attention, _ATTENTIONS.get(form.attention, grouped_attention))
        if form.flat:
            flatten_linears(model)
        self.model = model
        self.shapes = shapes
        # Rows past the context hold padding only; learned position tables end with the context.
        self._last_position = int(model.config.max_position_embeddings) - 1
        places = (shapes.slots, shapes.cache_tokens)
        make = slots_of_call.by_heads(*places) if form.attention == SLOT_ATTENTION else by_rows(*places, dtype)
        self.cache = KvCache(cache_rows_of(model), make)
        if form.packed:
            siblings = find_siblings(model, lambda: cache_rows_of(model)) if form.siblings else []
            pack_linears(model, form.packed)
            join_siblings(siblings)
        if form.turned:
            turn_linears(model)
        if form.int8:
            computed = torch.float16 if form.f16 else torch.float32
            int8_linears(model, rounds_rows=form.int8_rows, computed=computed)
        if form.f16:
            _keep_in(model, torch.float16)

    def prefill(
        self, tokens: torch.Tensor, slot: torch.Tensor, start: torch.Tensor, length: torch.Tensor, context: int
    ) -> torch.Tensor:
        """A chunk of one prompt: tokens [1, T]; logits [1, V] of token length-1."""
        rows = start[:, None] + torch.arange(tokens.shape[1])[None]
        cache = self._cache_of(OneSlotCache, slot[:, None], rows, context)
        return self._logits(tokens, rows, cache, context, length - 1)

    def decode(self, tokens: torch.Tensor, positions: torch.Tensor, context: int) -> torch.Tensor:
        """One token for each of the first B slots: tokens and positions [B]; logits [B, V]."""
        rows = positions[:, None]
        slots = torch.arange(tokens.shape[0])[:, None]
        cache = self._cache_of(FirstSlotsCache, slots, rows, context)
        return self._logits(tokens[:, None], rows, cache, context, 1)

    def _cache_of(self, kind: type[SlotCache], slots: torch.Tensor, rows: torch.Tensor, context: int) -> SlotCache:
        """The cache for one call; attention over slots is made for the call, too."""
        if self.form.attention != SLOT_ATTENTION:
            return kind(self._buffers_by_layer(), slots, rows, context)
        _attend_with(self.model, SLOT_ATTENTION, slots_of_call.slot_attention(slots, rows))
        return slots_of_call.WholeCache(self._buffers_by_layer(), slots, rows, context)

    def _logits(
        self, tokens: torch.Tensor, rows: torch.Tensor, cache: Any, context: int, kept: torch.Tensor | int
    ) -> torch.Tensor:
        """Logits [B, V] of the one token kept: the last, or the one at an index [1]."""
        # In 32 bits: what IREE's SPIR-V makes of 64 does not compile for every device.
        mask = torch.arange(context, dtype=torch.int32)[None, None, None, :] <= rows.int()[:, None, :, None]
        output = self.model(
            input_ids=tokens,
            position_ids=rows.clamp(max=self._last_position),
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **last_token.ask(kept, self.form.last_token),
        )
        return last_token.logits_of(output.logits, kept, self.form.last_token)

    def _buffers_by_layer(self) -> list[tuple[Any, Any]]:
        return [(layer.k, layer.v) for layer in self.cache.layers]


def _attend_with(model: Any, name: str, function: Any) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(_REGISTERED + name, function)
    model.set_attn_implementation(_REGISTERED + name)


def _keep_in(model: Any, dtype: torch.dtype) -> None:
    """Keeps what is in f32 in another type, but for buffers: tables of rotation stay in f32 in every framework."""
    for weight in model.parameters():
        if weight.dtype == torch.float32:
            weight.data = weight.data.to(dtype)


def wrap(model: Any, shapes: Shapes, dtype: torch.dtype, form: Form = PLAIN) -> Any:
    """The model with its cache: a causal LM of transformers, or a graph that takes its past.

    Raises:
        UnsupportedModel: a graph cannot take the form.
        InvalidField: no attention for a model of layers.
    """
    if hasattr(model, "cache_rows"):
        if form.kernels:
            raise UnsupportedModel(
                "a graph with a past takes no weights of few bits yet; build it with a recipe such as f32-grouped"
            )
        cache = KvCache(model.cache_rows, by_rows(shapes.slots, shapes.cache_tokens, dtype))
        return CachedGraph(model, cache, shapes, form)
    if not form.attention:
        raise InvalidField("passes", f"a model of layers needs an attention: {', '.join(ATTENTIONS)}")
    return Generator(model, shapes, dtype, form)


def export_mlir(
    model: Any,
    shapes: Shapes,
    path: Path,
    report: Callable[[str, float], None],
    dtype: torch.dtype = torch.float32,
    form: Form = PLAIN,
) -> int:
    """Writes the module's MLIR (bytecode), weights by name in scope WEIGHTS_SCOPE.

    Args:
        model: a causal LM of transformers or a graph that takes its past, in the precision wanted.
        shapes: which functions.
        path: file to write.
        dtype: what the model computes in.
        form: what the passes make of it.
        report: hears the name of the function that is traced, and the share done.

    Returns:
        Bytes of the cache.
    """
    from iree.turbine import aot
    from iree.turbine.aot.fx_programs import FxPrograms

    generator = wrap(model, shapes, dtype, form).eval()
    aot.externalize_module_parameters(model, external_scope=WEIGHTS_SCOPE)
    # Named as parameters too, though no archive has them: turbine would write their zeros into the module, and cannot
    # for bf16. `start_caches` gives them their start.
    aot.externalize_module_parameters(generator.cache, external_scope=WEIGHTS_SCOPE, prefix="cache")
    programs: Any = FxPrograms()  # type: ignore[no-untyped-call]
    for index, function in enumerate(shapes.functions):
        report(function.name, (index + 1) / (len(shapes.functions) + 2))
        programs.programs[function.name] = ExportTargetDef(export_function(generator, function))
    exported = aot.export(programs)
    start_caches(exported.mlir_module)
    lower_kernels(exported.mlir_module)
    exported.save_mlir(str(path))
    return sum(buffer.numel() * buffer.element_size() for buffer in generator.cache.buffers())


def export_function(generator: Any, function: Function) -> Any:
    """One function of the module as an exported, decomposed program of the whole model."""
    from iree.turbine.aot.decompositions import current_aot_decompositions

    call, arguments = _call_of(generator, function)
    layers = find_layers(generator.model)
    repeated = generator.form.repeated and layers is not None and layers.alike
    with torch.no_grad(), only_first_layer(layers, generator.cache) if layers and repeated else nullcontext():
        program = torch.export.export(call, arguments, strict=False)
        program = program.run_decompositions(current_aot_decompositions() or {})
    if generator.form.edges:
        join_edges(program)
    if generator.form.rotary_cache:
        join_rotary_cache(program)
    if generator.form.edges:
        round_where_made(program)
    return repeat_layer(program, call, len(generator.cache.layers)) if repeated else program


class _Call(torch.nn.Module):
    """One function of the generator as the forward of a module, which is what export takes."""

    def __init__(self, root: Any, context: int) -> None:
        super().__init__()
        self.root = root
        self._context = context

    def _answer(self, logits: torch.Tensor) -> Any:
        """Logits [B, V], and with "device-sampling" the likeliest of them."""
        return with_picks(logits) if self.root.form.sampling else logits


class _PrefillCall(_Call):
    def forward(self, tokens: Any, slot: Any, start: Any, length: Any) -> Any:
        return self._answer(self.root.prefill(tokens, slot, start, length, self._context))


class _DecodeCall(_Call):
    def forward(self, tokens: Any, positions: Any) -> Any:
        return self._answer(self.root.decode(tokens, positions, self._context))


def _call_of(generator: Any, function: Function) -> tuple[_Call, tuple[torch.Tensor, ...]]:
    if function.phase == "prefill":
        zero, one = torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long)
        tokens = torch.zeros(1, function.tokens, dtype=torch.long)
        return _PrefillCall(generator, function.context), (tokens, zero, zero.clone(), one)
    tokens = torch.zeros(function.batch, dtype=torch.long)
    return _DecodeCall(generator, function.context), (tokens, tokens.clone())


def save_weights(model: Any, path: Path) -> None:
    """Writes the weights as an IREE parameter archive, tied weights once."""
    from iree.turbine.aot.params import ParameterArchiveBuilder
    from iree.turbine.aot.tensor_traits import ExternalTensorTrait

    builder: Any = ParameterArchiveBuilder()  # type: ignore[no-untyped-call]
    written: set[int] = set()
    for tensor in (*model.parameters(), *model.buffers()):
        trait = ExternalTensorTrait.get(tensor)
        if trait is not None and id(tensor) not in written:
            written.add(id(tensor))
            builder.add_tensor(trait.external_name, tensor.detach())
    builder.save(str(path))
