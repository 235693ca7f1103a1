"""The recipe book: named sets of choices that turn a model into a variant. Pure.

Figures behind the choices stand in docs/compiler.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.compiler.passes.form import PACKED_LINEARS, SIBLING_LINEARS, SLOT_ATTENTION
from tradewind.domain.errors import InvalidField
from tradewind.domain.manifest import RecipeFacts

# Passes that every recipe of the book applies, in order; see services/compiler/export.
PASSES: Final = ("grouped-attention", "flat-linear", "repeat-layer")
# Linears and attention as kernels written for AVX2; see services/compiler/kernels.
KERNEL_PASSES: Final = (SLOT_ATTENTION, PACKED_LINEARS, SIBLING_LINEARS, "repeat-layer")
# Added where the CPU cannot compute in the recipe's precision: weights are kept in it, arithmetic is f32.
NARROW_WEIGHTS: Final = "narrow-weights"
# What a CPU must have to compute in a precision; without it bf16 took seconds for each token on Zen 3.
_COMPUTES: Final = {"bf16": "avx512_bf16", "f16": "f16c"}
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
    """

    facts: RecipeFacts
    targets: tuple[str, ...]
    needs: tuple[str, ...] | None
    unless: tuple[str, ...]
    note: str

    @property
    def name(self) -> str:
        """Its name in the book."""
        return self.facts.name


def _cpu(
    name: str,
    precision: str,
    flags: tuple[str, ...],
    note: str,
    needs: tuple[str, ...] | None = None,
    unless: tuple[str, ...] = (),
    passes: tuple[str, ...] = PASSES,
) -> Recipe:
    facts = RecipeFacts(
        name=name,
        precision=precision,
        passes=passes,
        compiler_flags=flags,
        prefill_chunks=(64,),
        decode_batches=(1, 4),
        context_buckets=(1024,),
        slots=4,
    )
    return Recipe(facts, ("cpu:",), needs, unless, note)


BOOK: Final[tuple[Recipe, ...]] = (
    _cpu("f32-grouped", "f32", (), "as exact as the source", needs=(), unless=("avx512f",)),
    _cpu("f32-grouped-gdt", "f32", (DATA_TILING,), "as exact as the source", needs=("avx512f",)),
    _cpu("bf16-grouped", "bf16", (), "half the memory of f32", needs=(), unless=("avx512_bf16",)),
    _cpu("bf16-grouped-gdt", "bf16", (DATA_TILING,), "half the memory of f32", needs=("avx512_bf16",)),
    _cpu("w4-kernels", "w4", (), "4-bit weights in groups, 8-bit activations; needs AVX2", passes=KERNEL_PASSES),
    _cpu("w8-kernels", "w8", (), "8-bit weights in groups, 14-bit activations; needs AVX2", passes=KERNEL_PASSES),
    _cpu("f16-grouped-gdt", "f16", (DATA_TILING,), "quick decode and slow prefill where f16 is only converted"),
    _cpu(
        "bf16-early-data-tiling",
        "bf16",
        ("--iree-opt-data-tiling",),
        "fast and wrong on some models: here to prove that the quality gate sees it",
    ),
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
    buckets = (*(b for b in facts.context_buckets if b < context), context)
    chunks = tuple(c for c in facts.prefill_chunks if c <= context) or (context,)
    needed = _COMPUTES.get(facts.precision)
    passes = facts.passes if needed is None or needed in features else (*facts.passes, NARROW_WEIGHTS)
    return replace(facts, passes=passes, context_buckets=buckets, prefill_chunks=chunks)
