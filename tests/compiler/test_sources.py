"""Sources that cannot be imported: each refused with what is wrong and what to do, before or inside the child."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from services.compiler.sources.architectures import Task, context_tokens_of, task_of
from services.compiler.sources.detection import Form, check_folder, detect
from services.compiler.sources.loading import load_source
from tests.tiny_model import write_tiny_model
from tradewind.domain.errors import BadModelSource, UnsupportedModel


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


def test_forms_are_told_apart(folder: Path, tmp_path: Path) -> None:
    assert detect(folder) == (Form.HUGGING_FACE, folder)
    (tmp_path / "g").mkdir()
    gguf = tmp_path / "g" / "model.gguf"
    gguf.write_bytes(b"GGUF\x03\x00\x00\x00")
    assert detect(gguf) == (Form.GGUF, gguf)
    assert detect(gguf.parent) == (Form.GGUF, gguf)
    shutil.copy(gguf, tmp_path / "g" / "second.gguf")
    with pytest.raises(BadModelSource, match=r"several \.gguf files \(model\.gguf, second\.gguf\); name one"):
        detect(gguf.parent)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelSource, match="does not exist"):
        detect(tmp_path / "gone")
    with pytest.raises(BadModelSource, match=r"neither config\.json nor"):
        detect(tmp_path)
    for name, error, says in (
        ("model.gguf", BadModelSource, "does not start with GGUF"),
        ("model.pt", UnsupportedModel, "pickle"),
        ("notes.txt", BadModelSource, "no model file that is known"),
    ):
        (tmp_path / name).write_bytes(b"hello")
        with pytest.raises(error, match=says):
            detect(tmp_path / name)


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff"))
    with pytest.raises(BadModelSource, match="is not UTF-8; rename it"):
        detect(path)


def test_a_truncated_file_is_named_with_its_lengths(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.stat().st_size
    os.truncate(weights, whole - 100)
    with pytest.raises(BadModelSource, match=f"is {whole - 100} bytes long and should be {whole}: it is truncated"):
        check_folder(folder)
    os.truncate(weights, 4)
    with pytest.raises(BadModelSource, match="no safetensors header"):
        check_folder(folder)
    weights.write_bytes((40).to_bytes(8, "little") + b"\xff" * 40)
    with pytest.raises(BadModelSource, match="damaged safetensors header"):
        check_folder(folder)


def test_missing_files_are_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadModelSource, match=r"model-00001-of-00002\.safetensors is missing"):
        check_folder(folder)
    index = {"weight_map": {"a": "../../etc/passwd"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadModelSource, match="not in the folder"):
        check_folder(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadModelSource, match=r"holds no model\.safetensors"):
        check_folder(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(BadModelSource, match="pickled weights only"):
        check_folder(folder)


def test_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    (folder / "extra.json").symlink_to(tmp_path / "secret")
    with pytest.raises(BadModelSource, match="link out of the folder"):
        check_folder(folder)


def test_a_folder_of_the_hubs_cache_may_link_to_its_blobs(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        shutil.copy(file, blobs / file.name)
        (snapshot / file.name).symlink_to(blobs / file.name)
    check_folder(snapshot)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architectures": ["NobodysModel"]}, "NobodysModel: transformers has no such model, and code that comes with"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "an encoder with a decoder"),
        ({"architectures": ["ViTModel"]}, "ViTModel: it takes pixel_values, not text; export it to ONNX"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "its weights are quantised"),
    ],
)
def test_unsupported_models_are_named_with_what_to_do(folder: Path, change: dict[str, Any], says: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UnsupportedModel, match=says) as caught:
        load_source(Form.HUGGING_FACE, folder)
    assert caught.value.metadata["architecture"] in str(caught.value)


def test_damaged_contents_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(BadModelSource, match=r"config\.json is not valid JSON"):
        load_source(Form.HUGGING_FACE, folder)


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    state["model.norm.weight"][0] = float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModelSource, match=r"model\.norm\.weight holds values that are not finite"):
        load_source(Form.HUGGING_FACE, folder)


def test_missing_weights_are_counted(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModelSource, match=r"lacks 1 weights, the first is model\.layers\.1\.mlp\.up_proj"):
        load_source(Form.HUGGING_FACE, folder)


def test_a_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadModelSource, match=r"no tokenizer\.json"):
        load_source(Form.HUGGING_FACE, folder)


def test_a_rotary_embedding_that_grows_bounds_the_context(tmp_path: Path) -> None:
    from transformers import AutoConfig

    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 128}
    folder = write_tiny_model(tmp_path / "m", rope_parameters=rope)
    config = AutoConfig.from_pretrained(folder)
    assert task_of(config) is Task.GENERATE
    assert context_tokens_of(config) == 128
