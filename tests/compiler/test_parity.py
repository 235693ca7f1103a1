"""What is exported computes what the source framework computes, for each supported architecture."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.compiler.export.decoder import find_layers
from services.compiler.export.generator import Generator, export_function
from services.compiler.export.parity import check_wrapped
from services.compiler.export.shapes import Shapes
from services.compiler.sources.architectures import TESTED
from services.compiler.sources.detection import detect
from services.compiler.sources.loading import load_normalised, load_source
from tests.tiny_model import write_tiny_model
from tests.tiny_variant import TinyVariant
from tradewind.domain.errors import UnsupportedModel
from tradewind.v1 import compiler_pb2

SHAPES = Shapes(prefill_chunks=(16,), decode_batches=(2,), context_buckets=(64,), slots=3)
# Order of additions only: about 1e-6 of logits of 10 to 30.
TOLERANCE = 1e-4


# Windows far shorter than the text, few wide heads, one KV head: what each architecture has of its own.
CONFIGS: dict[str, dict[str, Any]] = {
    "FalconForCausalLM": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "GPT2LMHeadModel": {"n_inner": 128},
    "Gemma2ForCausalLM": {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16},
    "Gemma3ForCausalLM": {"head_dim": 16, "sliding_window": 8},
    "GemmaForCausalLM": {"head_dim": 16, "num_key_value_heads": 1},
    "MistralForCausalLM": {"sliding_window": 8},
    "OPTForCausalLM": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "Phi3ForCausalLM": {
        "original_max_position_embeddings": 128,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.1] * 8,
            "long_factor": [4.0] * 8,
            "original_max_position_embeddings": 128,
        },
    },
    "Qwen2ForCausalLM": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "Qwen3ForCausalLM": {"head_dim": 32},
    "Starcoder2ForCausalLM": {"sliding_window": 8},
}


def numbers(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.long)


@pytest.mark.parametrize("architecture", TESTED)
def test_prefill_in_chunks_and_decode_give_the_models_logits(architecture: str, tmp_path: Path) -> None:
    folder = write_tiny_model(
        tmp_path / "m", architecture=architecture, num_hidden_layers=3, **CONFIGS.get(architecture, {})
    )
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


# Factors far from one, so that a kind left out or taken for another shows.
ROTARY: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "yarn": {"factor": 8.0, "original_max_position_embeddings": 64},
}


@pytest.mark.parametrize("kind", ROTARY)
def test_scaled_rotary_positions_and_weights_in_shards(kind: str, tmp_path: Path) -> None:
    scaled = {"rope_type": kind, "rope_theta": 1e4, **ROTARY[kind]}
    folder = write_tiny_model(tmp_path / "m", rope_parameters=scaled)
    plain = load_normalised(write_tiny_model(tmp_path / "plain"), "f32")
    model = load_normalised(folder, "f32")
    model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    form, source = detect(tmp_path / "shards")
    loaded, _ = load_source(form, source)
    tokens = torch.tensor([np.random.default_rng(2).integers(3, 250, 16).tolist()])
    with torch.no_grad():
        wanted = model(tokens).logits[0, 15]
        assert (plain(tokens).logits[0, 15] - wanted).abs().max() > 0.1
        row = Generator(loaded, SHAPES).eval().prefill(tokens, numbers(1), numbers(0), numbers(16), 64)[0]
    assert (row - wanted).abs().max() < TOLERANCE


# Layers that are alike, layers under other names, layers with constants in them, layers that are not alike.
@pytest.mark.parametrize(
    "architecture", ["MistralForCausalLM", "GPT2LMHeadModel", "FalconForCausalLM", "Gemma2ForCausalLM"]
)
def test_the_repeated_layer_is_the_whole_model(architecture: str, tmp_path: Path) -> None:
    folder = write_tiny_model(
        tmp_path / "m", architecture=architecture, num_hidden_layers=3, **CONFIGS.get(architecture, {})
    )
    tokens = np.random.default_rng(1).integers(3, 250, 16).tolist()
    with torch.no_grad():
        wanted = load_normalised(folder, "f32")(torch.tensor([tokens])).logits[0]
        generator = Generator(load_normalised(folder, "f32"), SHAPES).eval()
        prefill = export_function(generator, SHAPES.functions[0])
        row = prefill.module()(torch.tensor([tokens]), numbers(2), numbers(0), numbers(16))[0]
        assert (row - wanted[15]).abs().max() < TOLERANCE
    assert _layer_numbers(prefill) == {"0", "1", "2"}
    layers = find_layers(generator.model)
    assert layers is not None, "the model is whole again after the export"
    assert layers.alike == (architecture != "Gemma2ForCausalLM")


def test_a_model_that_cannot_be_wrapped_is_refused_with_figures(tmp_path: Path) -> None:
    """ALiBi adds to attention's scores by itself, which the wrapping would silently leave out."""
    shape = {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 512}
    folder = write_tiny_model(tmp_path / "m", architecture="MptForCausalLM", **shape)
    with pytest.raises(
        UnsupportedModel, match=r"MptForCausalLM: wrapped for export it answers differently \(logits by"
    ):
        check_wrapped(load_normalised(folder, "f32"))


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
    """Numbers of the layers whose weights the program takes."""
    targets = [spec.target or "" for spec in program.graph_signature.input_specs]
    return {match[1] for target in targets if (match := re.search(r"\.(?:layers|h)\.(\d+)\.\w+\.\w+", target))}
