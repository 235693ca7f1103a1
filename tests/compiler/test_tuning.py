"""Tuning specs: nonsense is refused, IREE takes tiles for the rows they are for, and numbers stay what they were."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.compiler.recipes import BOOK, find_recipe
from services.compiler.targets import HOST, find_target, known_targets
from services.compiler.toolchain import find_iree_compile
from services.compiler.tuning.spec import Tile, spec_text, tiles_of
from tests.tiny_model import write_tiny_model
from tradewind.domain.errors import InvalidField

TUNING = ("1:1x16x4", "8:4x16x8", "64:6x16x8")
OUTPUTS, INPUTS = 96, 64
# What IREE 3.13 tiles products of so many rows into on a CPU, in registers.
VECTORS = {1: "[16, 0]", 8: "[4, 16, 0]", 64: "[6, 16, 0]"}


def product(rows: int) -> str:
    left, right, answer = (f"tensor<{a}x{b}xf32>" for a, b in ((rows, INPUTS), (INPUTS, OUTPUTS), (rows, OUTPUTS)))
    return f"""func.func @rows_{rows}(%x: {left}, %w: {right}) -> {answer} {{
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : {answer}
  %fill = linalg.fill ins(%zero : f32) outs(%empty : {answer}) -> {answer}
  %product = linalg.matmul
      indexing_maps = [
        affine_map<(m, n, k) -> (m, k)>, affine_map<(m, n, k) -> (k, n)>, affine_map<(m, n, k) -> (m, n)>]
      ins(%x, %w : {left}, {right}) outs(%fill : {answer}) -> {answer}
  return %product : {answer}
}}
"""


def test_tiles_are_taken_by_rows_and_numbers_stay(tmp_path: Path) -> None:
    import iree.runtime as rt

    source, spec, module, seen = (tmp_path / name for name in ("m.mlir", "tuning.mlir", "m.vmfb", "seen"))
    source.write_text("".join(map(product, (*VECTORS, 3))))
    spec.write_text(spec_text(TUNING))
    target = find_target(HOST, known_targets("test"))
    flags = (f"--iree-codegen-tuning-spec-path={spec}", f"--iree-hal-dump-executable-configurations-to={seen}")
    command = [find_iree_compile(), source, *target.flags, *target.optimisation, *flags, "-o", module]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    chosen = {path.name: path.read_text() for path in seen.iterdir()}
    for rows, vectors in VECTORS.items():
        (text,) = (text for name, text in chosen.items() if re.search(rf"configured.*rows_{rows}_dispatch", name))
        assert f"vector_common_parallel = {vectors}" in text
    config = rt.Config("local-task")
    loaded = rt.load_vm_modules(rt.VmModule.mmap(config.vm_instance, str(module)), config=config)[-1]
    draw = np.random.default_rng(1)
    weights = draw.standard_normal((INPUTS, OUTPUTS), dtype=np.float32)
    for rows in (*VECTORS, 3):
        given = draw.standard_normal((rows, INPUTS), dtype=np.float32)
        assert np.abs(loaded[f"rows_{rows}"](given, weights).to_host() - given @ weights).max() < 1e-4


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        (("64:12x8",), "no tile such as 64:12x8x8"),
        (("64:0x8x8",), "each size from 1 to 64"),
        (("64:99x8x8",), "each size from 1 to 64"),
        (("64:8x8x8", "64:4x8x8"), "one tile for each number of rows"),
    ],
)
def test_nonsense_is_refused(tuning: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidField, match=words):
        spec_text(tuning)


def test_tuning_is_part_of_a_variants_identity_and_its_absence_is_not() -> None:
    facts = find_recipe("f32-grouped").facts
    assert "tuning" not in facts.as_dict()
    assert replace(facts, tuning=TUNING).as_dict()["tuning"] == TUNING
    assert tiles_of(("64:12x8x8",)) == (Tile(64, 12, 8, 8),)
    for recipe in BOOK:
        tiles_of(recipe.facts.tuning)


def test_a_tuned_recipe_answers_as_pytorch_does(tmp_path: Path) -> None:
    import torch

    from services.compiler.export.generator import export_mlir, save_weights
    from services.compiler.export.shapes import Shapes
    from services.compiler.passes.form import form_of
    from services.compiler.quality.session import Session
    from services.compiler.sources.loading import load_normalised

    facts = find_recipe("f32-tuned").facts
    tokens, shapes = [7, 200, 31, 8, 99, 123, 5], Shapes((64,), (1, 4), (64,), 4)
    folder = write_tiny_model(tmp_path / "tiny", num_hidden_layers=1)
    mlir, weights, spec, module = (tmp_path / name for name in ("m.mlir", "w.irpa", "tuning.mlir", "m.vmfb"))
    model = load_normalised(folder, "f32")
    form = form_of(facts.passes, facts.precision)
    export_mlir(model, shapes, mlir, lambda _name, _share: None, torch.float32, form)
    save_weights(model, weights)
    spec.write_text(spec_text(facts.tuning))
    target = find_target(HOST, known_targets("test"))
    flags = (*target.flags, *target.optimisation, f"--iree-codegen-tuning-spec-path={spec}")
    subprocess.run([find_iree_compile(), mlir, *flags, "-o", module], check=True, capture_output=True, timeout=240)
    prefill, one, four = shapes.functions
    session = Session(module, [weights], shapes.functions, target.driver)
    with torch.no_grad():
        wanted = load_normalised(folder, "f32")(torch.tensor([tokens])).logits[0].numpy()
    assert np.abs(session.prefill(prefill, tokens[:-1], 0, 0) - wanted[-2]).max() < 1e-4
    for function in (one, four):
        step = session.decode(function, [tokens[-1]] * function.batch, [len(tokens) - 1] * function.batch)
        assert np.abs(step[0] - wanted[-1]).max() < 1e-4
