"""The recipe book and targets: sizes fit the model, unknown names list the known ones."""

from __future__ import annotations

import pytest

from services.compiler.export.shapes import Shapes
from services.compiler.host_cpu import read_host_cpu
from services.compiler.quality.thresholds import TABLE
from services.compiler.recipes import BOOK, default_recipes, find_recipe, fit
from services.compiler.targets import choose_targets, known_targets
from tradewind.domain.errors import InvalidField
from tradewind.domain.passes import NARROW_WEIGHTS

TARGETS = known_targets("test")


def test_the_book_has_no_name_twice_and_thresholds_for_each_precision() -> None:
    assert len({recipe.name for recipe in BOOK}) == len(BOOK)
    assert {recipe.facts.precision for recipe in BOOK} <= set(TABLE)


def test_the_default_for_cpus_is_exact_and_half_and_never_the_wrong_one() -> None:
    zen3, zen5 = frozenset({"f16c"}), frozenset({"f16c", "avx512f", "avx512_bf16"})
    assert {r.name for r in default_recipes("cpu:host", zen3)} == {"f32-grouped", "bf16-grouped"}
    assert {r.name for r in default_recipes("cpu:host", zen5)} == {"f32-grouped-gdt", "bf16-grouped-gdt"}
    assert {r.name for r in default_recipes("cpu:host", frozenset({"avx512f"}))} == {"f32-grouped-gdt", "bf16-grouped"}
    assert {r.name for r in default_recipes("vulkan:ampere", frozenset())} == {"f32-gpu"}


def test_a_precision_the_cpu_cannot_compute_in_is_kept_for_weights_only() -> None:
    recipe = find_recipe("bf16-grouped-gdt")
    assert NARROW_WEIGHTS in fit(recipe, frozenset({"f16c"}), 512, 0).passes
    assert NARROW_WEIGHTS not in fit(recipe, frozenset({"avx512_bf16"}), 512, 0).passes
    assert NARROW_WEIGHTS not in fit(find_recipe("f32-grouped-gdt"), frozenset(), 512, 0).passes


@pytest.mark.parametrize(("model", "wanted", "context"), [(8192, 0, 1024), (512, 0, 512), (8192, 4096, 4096)])
def test_sizes_are_cut_to_the_model_and_the_wish(model: int, wanted: int, context: int) -> None:
    facts = fit(find_recipe("f32-grouped-gdt"), frozenset(), model, wanted)
    assert facts.context_buckets[-1] == context
    assert all(chunk <= context for chunk in facts.prefill_chunks)
    assert list(facts.context_buckets) == sorted(set(facts.context_buckets))


def test_impossible_contexts_and_unknown_names_are_refused() -> None:
    recipe = find_recipe("bf16-grouped-gdt")
    with pytest.raises(InvalidField, match="longer than the model's context of 512"):
        fit(recipe, frozenset(), 512, 513)
    with pytest.raises(InvalidField, match="below the least"):
        fit(recipe, frozenset(), 512, 1)
    with pytest.raises(InvalidField, match="the book has f32-grouped, "):
        find_recipe("nope")
    with pytest.raises(InvalidField, match="known are cpu:host"):
        choose_targets(("tpu:v9",), TARGETS)


def test_auto_means_what_runs_here_once() -> None:
    assert [t.name for t in choose_targets((), TARGETS)] == ["cpu:host"]
    assert [t.name for t in choose_targets(("auto",), TARGETS)] == ["cpu:host"]
    assert [t.name for t in choose_targets(("cpu:host", "cpu:host"), TARGETS)] == ["cpu:host"]


def test_the_host_has_a_name() -> None:
    assert read_host_cpu()
    assert " " not in read_host_cpu()


def test_functions_cover_chunks_batches_and_buckets() -> None:
    shapes = Shapes((16, 128), (1, 4), (64, 256), 4)
    names = {function.name for function in shapes.functions}
    assert "prefill_t128_c64" not in names, "a chunk longer than its bucket cannot be called"
    assert {"prefill_t16_c64", "prefill_t128_c256", "decode_b4_c64", "decode_b1_c256"} <= names
    assert shapes.cache_tokens == 256 + 128
