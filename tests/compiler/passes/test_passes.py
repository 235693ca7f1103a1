"""Each pass by itself: nonsense is refused, and what it makes of a model answers as the model does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.compiler.export.generator import Generator, export_function
from services.compiler.export.shapes import Shapes
from services.compiler.passes.context_buckets import buckets_of
from services.compiler.passes.device_sampling import largest
from services.compiler.passes.form import PLAIN, Form, form_of
from services.compiler.passes.narrow_weights import narrow_weights
from services.compiler.recipes import BOOK, PASSES, cut_to_graph, find_recipe
from services.compiler.sources.loading import load_normalised
from tests.tiny_model import write_tiny_model
from tradewind.domain import passes
from tradewind.domain.errors import InvalidField, UnsupportedModel

SHAPES = Shapes(prefill_chunks=(16,), decode_batches=(2,), context_buckets=(64,), slots=3)
TOKENS = torch.tensor([[7, 200, 31, 8, 99, 123, 5, 64, 11, 250, 17, 3, 42, 77, 180, 6]])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("m") / "tiny")


def last_logits(model: Any, form: Form) -> torch.Tensor:
    one = torch.ones(1, dtype=torch.long)
    with torch.no_grad():
        return Generator(model, SHAPES, form=form).eval().prefill(TOKENS, one, 0 * one, 16 * one, 64)[0]


def test_recipes_name_known_passes_and_documented_ones() -> None:
    page = (Path(__file__).parents[3] / "docs/passes.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in passes.PASSES)
    for recipe in BOOK:
        form_of(recipe.facts.passes, recipe.facts.precision)
    assert form_of(PASSES, "f32") == PLAIN


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("grouped-atention", "cache-in-place"), "no pass named 'grouped-atention'; there are narrow-weights, "),
        (("cache-in-place", "grouped-attention", "fused-attention"), "has grouped-attention and fused-attention"),
        (("grouped-attention",), "cache-in-place belongs to every recipe"),
        (("cache-in-place", "slot-attention", "sibling-linears"), "it needs packed-linears"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidField, match=words):
        form_of(names, "f32")


@pytest.mark.parametrize(
    "off",
    [{"attention": passes.FUSED_ATTENTION}, {"flat": False}, {"last_token": False}, {"turned": True}],
    ids=lambda off: next(iter(off)),
)
def test_a_pass_changes_the_form_and_not_the_answer(tiny: Path, off: dict[str, Any]) -> None:
    with torch.no_grad():
        wanted = load_normalised(tiny, "f32")(TOKENS).logits[0, -1]
    plain = last_logits(load_normalised(tiny, "f32"), PLAIN)
    without = last_logits(load_normalised(tiny, "f32"), replace(PLAIN, **off))
    assert (plain - wanted).abs().max() < 1e-4
    assert (without - wanted).abs().max() < 1e-4


def test_narrow_weights_rounds_weights_once_and_computes_in_f32(tiny: Path) -> None:
    narrow, rounded = load_normalised(tiny, "f32"), load_normalised(tiny, "f32")
    narrow_weights(narrow, torch.bfloat16)
    for module in rounded.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.to(torch.bfloat16).float()
    got = last_logits(narrow, PLAIN)
    assert got.dtype == torch.float32
    assert (got - last_logits(rounded, PLAIN)).abs().max() < 1e-4


def test_fused_attention_leaves_one_operator_and_refuses_a_soft_cap(tiny: Path, tmp_path: Path) -> None:
    fused = replace(PLAIN, attention=passes.FUSED_ATTENTION)
    generator = Generator(load_normalised(tiny, "f32"), SHAPES, form=fused).eval()
    program = export_function(generator, SHAPES.functions[-1])
    found = [n for n in program.graph.nodes if n.target is torch.ops.aten.scaled_dot_product_attention.default]
    assert len(found) == 2, "one for each layer"
    gemma = write_tiny_model(tmp_path / "g", architecture="Gemma2ForCausalLM", head_dim=16, query_pre_attn_scalar=16)
    with pytest.raises(UnsupportedModel, match="no soft-cap"):
        Generator(load_normalised(gemma, "f32"), SHAPES, form=fused)


def test_buckets_are_below_the_context_and_only_with_the_pass() -> None:
    assert buckets_of(PASSES, (256, 1024), 4096) == (256, 1024, 4096)
    assert buckets_of(PASSES, (256, 1024), 256) == (256,)
    assert buckets_of((passes.SLOT_ATTENTION,), (256, 1024), 4096) == (4096,)


def test_a_graph_keeps_the_passes_that_reach_it() -> None:
    assert cut_to_graph(find_recipe("f32-grouped").facts).passes == (passes.CACHE_IN_PLACE, passes.CONTEXT_BUCKETS)
    assert passes.PACKED_LINEARS in cut_to_graph(find_recipe("w4-kernels").facts).passes, "refused later, not ignored"


@pytest.mark.parametrize("size", [64, 288, 1000, 49152])
def test_the_largest_come_first_and_equals_by_id(size: int) -> None:
    random = torch.Generator().manual_seed(size)
    rows = torch.randn(3, size, generator=random)
    rows[1] = rows[1].round()
    rows[2, 5:] = -torch.inf
    values, ids = largest(rows, 64)
    wanted = rows.sort(dim=1, descending=True, stable=True)
    assert torch.equal(ids.long(), wanted.indices[:, :64])
    assert torch.equal(values, wanted.values[:, :64])
    rows[0, 3] = torch.nan
    assert int(largest(rows, 64)[1].max()) < size, "whatever is found there, it is a place in the row"
