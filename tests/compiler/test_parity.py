"""What is exported computes what the source framework computes, for each supported architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.compiler.export.generator import Generator, export_function
from services.compiler.export.shapes import Shapes
from services.compiler.sources.architectures import SUPPORTED
from services.compiler.sources.loading import load_normalised
from tests.tiny_model import write_tiny_model
from tests.tiny_variant import TinyVariant
from tradewind.v1 import compiler_pb2

SHAPES = Shapes(prefill_chunks=(16,), decode_batches=(2,), context_buckets=(64,), slots=3)
# Order of additions only: about 1e-6 of logits of 10 to 30.
TOLERANCE = 1e-4


def numbers(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.long)


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_prefill_in_chunks_and_decode_give_the_models_logits(architecture: str, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", architecture=architecture, num_hidden_layers=3)
    tokens = np.random.default_rng(0).integers(3, 250, 30).tolist()
    with torch.no_grad():
        wanted = load_normalised(folder, "f32")(torch.tensor([tokens])).logits[0]
        generator = Generator(load_normalised(folder, "f32"), SHAPES).eval()
        for start, length in ((0, 9), (9, 16), (25, 1)):
            chunk = torch.zeros(1, 16, dtype=torch.long)
            chunk[0, :length] = torch.tensor(tokens[start : start + length])
            row = generator.prefill(chunk, numbers(1), numbers(start), numbers(length), 64)[0]
            assert (row - wanted[start + length - 1]).abs().max() < TOLERANCE
        for at in range(26, 30):
            rows = generator.decode(numbers(7, tokens[at]), numbers(0, at), 64)
            assert (rows[1] - wanted[at]).abs().max() < TOLERANCE


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_the_repeated_layer_is_the_whole_model(architecture: str, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", architecture=architecture, num_hidden_layers=3)
    tokens = np.random.default_rng(1).integers(3, 250, 16).tolist()
    with torch.no_grad():
        wanted = load_normalised(folder, "f32")(torch.tensor([tokens])).logits[0]
        generator = Generator(load_normalised(folder, "f32"), SHAPES).eval()
        prefill = export_function(generator, SHAPES.functions[0])
        row = prefill.module()(torch.tensor([tokens]), numbers(2), numbers(0), numbers(16))[0]
        assert (row - wanted[15]).abs().max() < TOLERANCE
    assert _layer_numbers(prefill) == {"0", "1", "2"}
    assert len(generator.model.model.layers) == 3, "the model is whole again after the export"


def test_the_compiled_module_agrees_on_every_function(tiny_variant: TinyVariant) -> None:
    """Would fail if two caches shared one buffer, see `generator._start_caches`."""
    quality = tiny_variant.variant.quality
    assert tiny_variant.variant.state == compiler_pb2.VARIANT_STATE_ADMITTED
    assert quality.top1_agreement == 1
    assert quality.max_logit_error < 1e-3
    assert quality.greedy_prefix_tokens == 24
    assert len(tiny_variant.manifest.functions) == 8
    assert len(tiny_variant.manifest.canary.continuation) == 16


def _layer_numbers(program: Any) -> set[str]:
    targets = [
        spec.target for spec in program.graph_signature.input_specs if spec.target and "model.layers." in spec.target
    ]
    return {target.partition("model.layers.")[2].partition(".")[0] for target in targets}
