"""The recipe book: named sets of choices that turn a model into a variant. Pure.

Figures behind the choices stand in docs/compiler.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.compiler.passes.context_buckets import buckets_of
from services.compiler.passes.form import NOT_OF_GRAPHS
from services.compiler.targets import GPU_BF16, GPU_F16, GPU_INT8
from tradewind.domain.errors import InvalidField
from tradewind.domain.manifest import RecipeFacts
from tradewind.domain.passes import (
    CACHE_IN_PLACE,
    CONTEXT_BUCKETS,
    DEVICE_SAMPLING,
    F16_ARITHMETIC,
    FLAT_LINEAR,
    GROUPED_ATTENTION,
    INT8_ACTIVATIONS,
    INT8_WEIGHTS,
    LAST_TOKEN_LOGITS,
    NARROW_WEIGHTS,
    PACKED_LINEARS,
    PRODUCT_EDGES,
    REPEAT_LAYER,
    ROTARY_CACHE,
    SIBLING_LINEARS,
    SLOT_ATTENTION,
    TURNED_WEIGHTS,
)

# Passes of recipes without kernels, in order; see services/compiler/passes.
PASSES: Final = (
    CACHE_IN_PLACE,
    CONTEXT_BUCKETS,
    GROUPED_ATTENTION,
    FLAT_LINEAR,
    LAST_TOKEN_LOGITS,
    REPEAT_LAYER,
)
# Linears and attention as kernels written for AVX2; see services/compiler/kernels. The attention's cost goes by the
# rows that are written, so that one bucket serves all contexts.
KERNEL_PASSES: Final = (
    CACHE_IN_PLACE,
    SLOT_ATTENTION,
    FLAT_LINEAR,
    PACKED_LINEARS,
    SIBLING_LINEARS,
    PRODUCT_EDGES,
    ROTARY_CACHE,
    LAST_TOKEN_LOGITS,
    REPEAT_LAYER,
)
# Tiles for 16 registers of 8 numbers, by rows: of those tried on Zen 3 the fastest over weights [inputs, outputs] that
# lie in caches. Streamed from memory, one row's product is slower than over [outputs, inputs]; see docs/passes.md.
AVX2_TILES: Final = ("1:1x16x2", "4:4x16x4", "8:4x16x4", "64:4x16x4", "128:4x16x4")
# Linears over 8-bit weights in operators that every target has; see services/compiler/passes/int8_weights.py.
W8_PASSES: Final = (*PASSES, INT8_WEIGHTS)
W8A8_PASSES: Final = (*W8_PASSES, INT8_ACTIVATIONS)
# Without these the kernels' instructions are illegal.
KERNEL_FEATURES: Final = frozenset({"avx2", "fma", "f16c"})
# What a target must have one of to compute in a precision; without it bf16 took seconds for each token on Zen 3.
_COMPUTES: Final = {"bf16": frozenset({"avx512_bf16", GPU_BF16}), "f16": frozenset({"f16c", GPU_F16})}
# Packs weights once, at load, into the tiles that the kernels read. A win with AVX-512; with AVX2 alone timings
# disagreed between models and phases, and it keeps a packed copy of weights for each function (1.7 against 0.75 GiB).
DATA_TILING: Final = "--iree-global-opt-data-tiling"

# A context shorter than this holds no prompt worth asking.
LEAST_CONTEXT_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a recipe fixes; sizes are cut to what the model can take.

    Attributes:
        facts: as the contract names them.
        targets: prefixes of the targets it is for.
        needs: features of the target without which it is not built when nobody names recipes; None for never.
        unless: a feature with which it is not built when nobody names recipes: another recipe is better there.
        note: what to know about it.
        requires: features without which its code does not run at all.
        searched: whether a search tries it.
    """

    facts: RecipeFacts
    targets: tuple[str, ...]
    needs: tuple[str, ...] | None
    unless: tuple[str, ...]
    note: str
    requires: frozenset[str] = frozenset()
    searched: bool = True

    @property
    def name(self) -> str:
        """Its name in the book."""
        return self.facts.name


def _facts(name: str, precision: str, flags: tuple[str, ...], passes: tuple[str, ...]) -> RecipeFacts:
    return RecipeFacts(
        name=name,
        precision=precision,
        passes=passes,
        compiler_flags=flags,
        prefill_chunks=(64,),
        decode_batches=(1, 4),
        context_buckets=(1024,),
        slots=4,
    )


def _cpu(
    name: str,
    precision: str,
    flags: tuple[str, ...],
    note: str,
    needs: tuple[str, ...] | None = None,
    unless: tuple[str, ...] = (),
    searched: bool = True,
) -> Recipe:
    return Recipe(_facts(name, precision, flags, PASSES), ("cpu:",), needs, unless, note, searched=searched)


def _kernels(name: str, precision: str, note: str) -> Recipe:
    facts = _facts(name, precision, (), KERNEL_PASSES)
    return Recipe(facts, ("cpu:",), None, (), note, requires=KERNEL_FEATURES)


def _anywhere_else(name: str, precision: str, targets: tuple[str, ...], note: str) -> Recipe:
    return Recipe(_facts(name, precision, (), PASSES), targets, (), (), note)


def _int8(name: str, targets: tuple[str, ...], passes: tuple[str, ...], note: str, *flags: str) -> Recipe:
    """Found by searches on GPUs, which nothing here could time; on CPUs kernels of few bits decode twice as fast."""
    precision = "w8a8" if INT8_ACTIVATIONS in passes else "w8"
    on_gpus = "cpu:" not in targets
    requires = frozenset({GPU_INT8}) if on_gpus else frozenset[str]()
    return Recipe(_facts(name, precision, flags, passes), targets, None, (), note, requires, searched=on_gpus)


BOOK: Final[tuple[Recipe, ...]] = (
    _cpu("f32-grouped", "f32", (), "as exact as the source", needs=(), unless=("avx512f",)),
    Recipe(
        replace(_facts("f32-tuned", "f32", (), (*PASSES, TURNED_WEIGHTS)), tuning=AVX2_TILES),
        ("cpu:",),
        None,
        (),
        "weights as products read them, tiled for AVX2: prompts a little faster, single sequences slower",
        requires=frozenset({"avx2", "fma"}),
        searched=False,
    ),
    _cpu("f32-grouped-gdt", "f32", (DATA_TILING,), "as exact as the source", needs=("avx512f",)),
    _cpu("bf16-grouped", "bf16", (), "half the memory of f32", needs=(), unless=("avx512_bf16",)),
    _cpu("bf16-grouped-gdt", "bf16", (DATA_TILING,), "half the memory of f32", needs=("avx512_bf16",)),
    _kernels("w4-kernels", "w4", "4-bit weights in groups, 8-bit activations; needs AVX2"),
    _kernels("w8-kernels", "w8", "8-bit weights in groups, 14-bit activations; needs AVX2"),
    _cpu("f16-grouped-gdt", "f16", (DATA_TILING,), "quick decode and slow prefill where f16 is only converted"),
    Recipe(
        _facts("f32-picks", "f32", (), (*PASSES, DEVICE_SAMPLING)),
        ("cpu:", "vulkan:"),
        None,
        (),
        "as f32-grouped, with the likeliest tokens found on the device",
        searched=False,
    ),
    _cpu(
        "bf16-early-data-tiling",
        "bf16",
        ("--iree-opt-data-tiling",),
        "fast and wrong on some models: here to prove that the quality gate sees it",
        searched=False,
    ),
    _anywhere_else("f16-gpu", "f16", ("cuda:", "rocm:"), "half the memory of f32, matrix units where there are any"),
    Recipe(
        _facts("f16-gpu-picks", "f16", (), (*PASSES, DEVICE_SAMPLING)),
        ("cuda:", "rocm:"),
        None,
        (),
        "as f16-gpu, and of the logits only the likeliest cross the bus",
    ),
    _anywhere_else("bf16-gpu", "bf16", ("cuda:", "rocm:"), "as f16, for models whose values f16 cannot hold"),
    _anywhere_else("f32-gpu", "f32", ("cuda:", "rocm:", "vulkan:", "metal:"), "as exact as the source"),
    _int8("w8-grouped", ("cpu:", "vmvx:"), W8_PASSES, "a quarter of the memory of f32, arithmetic in f32"),
    _int8("w8a8-grouped-gdt", ("cpu:",), W8A8_PASSES, "8-bit weights and activations, whole numbers", DATA_TILING),
    _int8("w8-gpu", ("cuda:", "rocm:"), (*W8_PASSES, F16_ARITHMETIC), "half the memory of f16, arithmetic in f16"),
    _int8("w8a8-gpu", ("cuda:", "rocm:"), (*W8A8_PASSES, F16_ARITHMETIC), "8-bit weights and activations, rest in f16"),
    _int8("w8-f32-gpu", ("vulkan:", "metal:"), W8_PASSES, "a quarter of the memory of f32, arithmetic in f32"),
    _int8("w8a8-f32-gpu", ("vulkan:", "metal:"), W8A8_PASSES, "8-bit weights and activations, rest in f32"),
    _anywhere_else("f32-portable", "f32", ("vmvx:",), "runs anywhere, slowly: a fallback, and a second opinion"),
)


def find_recipe(name: str, book: tuple[Recipe, ...] = BOOK) -> Recipe:
    """The recipe of that name.

    Raises:
        InvalidField: there is none; the message lists the book.
    """
    for recipe in book:
        if recipe.name == name:
            return recipe
    raise InvalidField("recipes", f"no recipe named {name!r}; the book has {', '.join(r.name for r in book)}")


def default_recipes(target: str, features: frozenset[str], book: tuple[Recipe, ...] = BOOK) -> tuple[Recipe, ...]:
    """The book's choice for a target with the features it has."""
    return tuple(
        r
        for r in book
        if target.startswith(r.targets)
        and r.needs is not None
        and features.issuperset(r.needs)
        and features.isdisjoint(r.unless)
    )


def offered_recipes(target: str, features: frozenset[str], book: tuple[Recipe, ...] = BOOK) -> tuple[Recipe, ...]:
    """What a search may try on a target: the book's recipes for it whose code it can run."""
    return tuple(r for r in book if r.searched and target.startswith(r.targets) and r.requires <= features)


def check_runs(recipe: Recipe, target: str, features: frozenset[str]) -> None:
    """Refuses a recipe that was named for a target which cannot run it.

    Raises:
        InvalidField: it is for other targets, or needs features that this one lacks.
    """
    if not target.startswith(recipe.targets):
        fitting = ", ".join(recipe.targets)
        raise InvalidField("recipes", f"{recipe.name!r} is for targets {fitting}…, not for {target}")
    if missing := sorted(recipe.requires - features):
        raise InvalidField("recipes", f"{recipe.name!r} needs {', '.join(missing)}, which {target} does not have")


def fit(recipe: Recipe, features: frozenset[str], model_context_tokens: int, wanted_context_tokens: int) -> RecipeFacts:
    """The recipe, cut to a target, to a model and to a wish.

    Args:
        recipe: from the book.
        features: what the target can do.
        model_context_tokens: longest context of the model.
        wanted_context_tokens: longest context asked for; 0 for the recipe's choice.

    Raises:
        InvalidField: longer than the model's context, or too short to be of use.
    """
    facts = recipe.facts
    if wanted_context_tokens > model_context_tokens:
        raise InvalidField(
            "context_tokens", f"{wanted_context_tokens} is longer than the model's context of {model_context_tokens}"
        )
    if 0 < wanted_context_tokens < LEAST_CONTEXT_TOKENS:
        raise InvalidField("context_tokens", f"{wanted_context_tokens} is below the least, {LEAST_CONTEXT_TOKENS}")
    context = wanted_context_tokens or min(facts.context_buckets[-1], model_context_tokens)
    buckets = buckets_of(facts.passes, facts.context_buckets, context)
    chunks = tuple(c for c in facts.prefill_chunks if c <= context) or (context,)
    needed = _COMPUTES.get(facts.precision)
    # Where the CPU cannot compute in the recipe's precision, weights are kept in it and arithmetic is f32.
    passes = facts.passes if needed is None or needed & features else (NARROW_WEIGHTS, *facts.passes)
    return replace(facts, passes=passes, context_buckets=buckets, prefill_chunks=chunks)


def cut_to_graph(facts: RecipeFacts) -> RecipeFacts:
    """A fitted recipe for a graph that takes its past: without the passes that would find nothing to change.

    Nor is there tuning, which is for weights that are turned.
    """
    return replace(facts, passes=tuple(name for name in facts.passes if name not in NOT_OF_GRAPHS), tuning=())
