"""The same small decoder from Hugging Face, ONNX and TensorFlow gives the same tokens, compiled."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.compiler.export.generator import export_mlir, save_weights
from services.compiler.export.shapes import Shapes
from services.compiler.quality.reference import Reference
from services.compiler.quality.session import Session
from services.compiler.sources.normal_form import load_generator
from services.compiler.sources.onnx.importing import import_onnx
from services.compiler.sources.tensorflow.importing import import_saved_model
from services.compiler.targets import known_targets
from services.compiler.toolchain import find_iree_compile
from tests.frontends.same_decoder import merge_branches, write_onnx, write_saved_model
from tests.tiny_variant import TinyVariant, build_tiny_variant

SHAPES = Shapes(prefill_chunks=(16,), decode_batches=(1,), context_buckets=(64,), slots=2)


@pytest.fixture(scope="module")
def llama() -> TinyVariant:
    """The tiny Llama from its Hugging Face folder, compiled and admitted."""
    return build_tiny_variant()


def quiet(_stage: str, _share: float) -> None:
    pass


def compiled_tokens(model: Any, prompt: tuple[int, ...], count: int, folder: Path) -> tuple[int, ...]:
    """The compiled model's most likely tokens after a prompt."""
    import torch

    export_mlir(model, SHAPES, folder / "m.mlir", quiet, torch.float32)
    save_weights(model, folder / "m.irpa")
    flags = known_targets("here")[0].flags
    command = [find_iree_compile(), str(folder / "m.mlir"), *flags, "-o", str(folder / "m.vmfb")]
    subprocess.run(command, check=True, capture_output=True)
    session = Session(folder / "m.vmfb", [folder / "m.irpa"], SHAPES.functions, "local-task")
    prefill, decode = SHAPES.functions
    row = session.prefill(prefill, prompt, 0, 0)
    taken = [int(row.argmax())]
    while len(taken) < count:
        row = session.decode(decode, [taken[-1]], [len(prompt) + len(taken) - 1])[0]
        taken.append(int(row.argmax()))
    return tuple(taken)


@pytest.mark.parametrize("source", ["onnx with branches", "tensorflow"])
def test_the_same_tokens_come_from_each_framework(source: str, llama: TinyVariant, tmp_path: Path) -> None:
    output, answers = tmp_path / "model", tmp_path / "reference.safetensors"
    if source == "onnx with branches":
        path = write_onnx(llama.model_folder, tmp_path / "source")
        merge_branches(path)
        assert (path.parent / "model.onnx_data").is_file()
        facts = import_onnx(path, output, answers, quiet)
    else:
        facts = import_saved_model(write_saved_model(llama.model_folder, tmp_path / "source"), output, answers, quiet)
    assert (facts["task"], facts["layer_count"], facts["vocabulary_size"]) == ("generate", 2, 288)
    wanted = llama.manifest.canary
    reference = Reference.load(answers)
    assert reference.prompt == wanted.prompt
    assert reference.continuation[: len(wanted.continuation)] == wanted.continuation, "the source framework itself"
    made = compiled_tokens(
        load_generator(output, "f32", narrow=False), wanted.prompt, len(wanted.continuation), tmp_path
    )
    assert made == wanted.continuation
    assert np.isfinite(reference.logits[0]).all()
