"""8-bit weights without kernels: what is rounded, how far answers move, that targets take it, and what it weighs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from services.compiler.export.generator import export_mlir, save_weights
from services.compiler.export.shapes import Shapes
from services.compiler.host_cpu import read_host_cpu
from services.compiler.passes.form import form_of
from services.compiler.passes.int8_weights import Int8Linear, int8_linears, rounded
from services.compiler.quality.session import Session
from services.compiler.recipes import W8_PASSES, W8A8_PASSES, check_runs, find_recipe
from services.compiler.sources.loading import load_normalised
from services.compiler.targets import find_target, known_targets
from services.compiler.toolchain import find_iree_compile
from tests.tiny_model import write_tiny_model
from tradewind.domain import passes
from tradewind.domain.errors import InvalidField, UnsupportedModel

SHAPES = Shapes(prefill_chunks=(16,), decode_batches=(2,), context_buckets=(64,), slots=3)
TOKENS = [7, 200, 31, 8, 99, 123, 5, 64, 11, 250, 17, 3, 42, 77, 180, 6]
TARGETS = known_targets(read_host_cpu())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("m") / "tiny")


def test_rows_are_rounded_to_127_steps_each() -> None:
    rows = torch.tensor([[0.5, -1.0, 0.25], [0.0, 0.0, 0.0], [254.0, 2.0, -3.0]])
    numbers, steps = rounded(rows)
    assert numbers.dtype == torch.int8 and numbers.tolist() == [[64, -127, 32], [0, 0, 0], [127, 1, -2]]
    assert (numbers * steps - rows).abs().max() <= 1.0 + 1e-6
    assert torch.isfinite(steps).all()


@pytest.mark.parametrize("rounds_rows", [False, True])
def test_a_layer_is_as_near_as_its_bits(rounds_rows: bool) -> None:
    draw = torch.Generator().manual_seed(3)
    layer = torch.nn.Linear(96, 40)
    layer.weight.data = torch.randn(40, 96, generator=draw)
    rows = torch.randn(2, 5, 96, generator=draw)
    with torch.no_grad():
        wanted, got = layer(rows), Int8Linear(layer, rounds_rows=rounds_rows)(rows)
        half = Int8Linear(layer, rounds_rows=rounds_rows).half()(rows.half())
    assert got.shape == wanted.shape and half.dtype == torch.float16
    for found in (got, half.float()):
        assert 1e-4 < (found - wanted).norm() / wanted.norm() < 0.02


@pytest.mark.parametrize("tied", [False, True])
def test_logits_and_embedding_stay_in_16_bits_and_shared(tmp_path: Path, tied: bool) -> None:
    model = load_normalised(write_tiny_model(tmp_path / "tiny", tie_word_embeddings=tied), "f32")
    int8_linears(model, rounds_rows=True)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert [module for module in model.modules() if isinstance(module, torch.nn.Linear)] == [head]
    assert head.weight.dtype == embedding.weight.dtype == torch.float16
    assert (embedding.weight is head.weight) is tied
    with pytest.raises(UnsupportedModel, match="no linear layer"):
        int8_linears(model, rounds_rows=False)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((passes.INT8_ACTIVATIONS,), "int8-activations goes with weights in 8 bits"),
        ((passes.F16_ARITHMETIC,), "f16-arithmetic goes with weights in 8 bits"),
        ((passes.INT8_WEIGHTS, passes.PACKED_LINEARS), "int8-weights and packed-linears each say"),
        ((passes.TURNED_WEIGHTS, passes.NARROW_WEIGHTS), "narrow-weights and turned-weights each say"),
    ],
)
def test_passes_that_do_not_go_together_are_refused(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidField, match=words):
        form_of((passes.CACHE_IN_PLACE, passes.GROUPED_ATTENTION, *names), "w8")


def exported(tiny: Path, folder: Path, recipe: str) -> tuple[Path, Path]:
    """MLIR and weights of the tiny model under a recipe of the book."""
    facts = find_recipe(recipe).facts
    form = form_of(facts.passes, facts.precision)
    model: Any = load_normalised(tiny, "f32")
    mlir, weights = folder / "m.mlir", folder / "w.irpa"
    export_mlir(model, SHAPES, mlir, lambda _n, _s: None, torch.float16 if form.f16 else torch.float32, form)
    save_weights(model, weights)
    return mlir, weights


def compiled(mlir: Path, target: str, *flags: str) -> Path:
    wanted, module = find_target(target, TARGETS), mlir.with_suffix(".vmfb")
    command = [find_iree_compile(), mlir, *wanted.flags, *wanted.optimisation, *flags, "-o", module]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return module


@pytest.mark.parametrize(("recipe", "form"), [("w8-grouped", W8_PASSES), ("w8a8-grouped-gdt", W8A8_PASSES)])
def test_the_module_answers_as_pytorch_does_with_the_same_weights(
    tiny: Path, tmp_path: Path, recipe: str, form: tuple[str, ...]
) -> None:
    mlir, weights = exported(tiny, tmp_path, recipe)
    module = compiled(mlir, "cpu:host", *find_recipe(recipe).facts.compiler_flags)
    session = Session(module, [weights], SHAPES.functions, "local-task")
    got = torch.from_numpy(session.prefill(SHAPES.functions[0], TOKENS, 1, 0))
    model, plain = load_normalised(tiny, "f32"), load_normalised(tiny, "f32")
    int8_linears(model, rounds_rows=passes.INT8_ACTIVATIONS in form)
    with torch.no_grad():
        wanted, exact = (m(torch.tensor([TOKENS])).logits[0, -1] for m in (model, plain))
    # A number that lies between two steps may round to either, by the order of additions before it.
    assert (got - wanted).norm() / wanted.norm() < (5e-3 if passes.INT8_ACTIVATIONS in form else 1e-5)
    assert (got - exact).norm() / exact.norm() < 0.05
    kept = sum(p.numel() * p.element_size() for p in model.parameters())
    assert kept < 0.5 * sum(4 * p.numel() for p in plain.parameters())
    # The archive's table and alignment are the rest.
    assert weights.stat().st_size < kept + 16_384


@pytest.mark.parametrize(
    ("target", "recipe"),
    [
        # One of each form; search and targets have tests of their own.
        ("cuda:sm_80", "w8a8-gpu"),
        ("metal:default", "w8-f32-gpu"),
    ],
)
def test_gpus_take_them(tmp_path: Path, target: str, recipe: str) -> None:
    check_runs(find_recipe(recipe), target, find_target(target, TARGETS).features)
    shallow = write_tiny_model(tmp_path / "shallow", num_hidden_layers=1)
    assert compiled(exported(shallow, tmp_path, recipe)[0], target).stat().st_size > 0


def test_vulkan_without_8_bit_storage_is_refused_them() -> None:
    with pytest.raises(InvalidField, match="needs gpu-int8, which vulkan:baseline does not have"):
        check_runs(find_recipe("w8-f32-gpu"), "vulkan:baseline", find_target("vulkan:baseline", TARGETS).features)
