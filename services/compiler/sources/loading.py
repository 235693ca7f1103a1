"""Loads a source into a plain PyTorch model in f32, whatever its form. No pickles, no network, no foreign code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from services.compiler.sources.architectures import check_supported
from services.compiler.sources.detection import Form, check_folder, read_json
from tradewind.domain.errors import BadModelSource, TradewindError


def load_source(form: Form, path: Path) -> tuple[Any, Any]:
    """The model and its tokenizer.

    Args:
        form: what `detect` found.
        path: the folder, or the .gguf file.

    Raises:
        BadModelSource: files missing, damaged, or weights that are not numbers.
        UnsupportedModel: an architecture or feature that is not supported.
    """
    try:
        model, tokenizer = _load_gguf(path) if form is Form.GGUF else _load_folder(path)
    except TradewindError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        # The libraries that read these files raise whatever they trip over; the child's log has the traceback.
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadModelSource(f"{path} cannot be read as a model: {first_line}; fetch it again") from error
    _check_numbers(model, path)
    return model, tokenizer


def _load_folder(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    check_folder(folder)
    read_json(folder / "config.json")
    check_supported(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    if not (folder / "tokenizer.json").is_file():
        raise BadModelSource(f"{folder} has no tokenizer.json; save the tokenizer in its fast form beside the weights")
    read_json(folder / "tokenizer.json")
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, report = loaded
    if missing := sorted(report.get("missing_keys", [])):
        raise BadModelSource(f"{folder} lacks {len(missing)} weights, the first is {missing[0]}; fetch the model again")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return model.eval(), tokenizer


def _load_gguf(path: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    where: dict[str, Any] = {
        "pretrained_model_name_or_path": path.parent,
        "gguf_file": path.name,
        "local_files_only": True,
    }
    config = AutoConfig.from_pretrained(**where)
    check_supported(config)
    # Without `dequantize` the weights may stay in their blocks, inside layers that cannot be exported.
    model: Any = AutoModelForCausalLM.from_pretrained(
        **where, config=config, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    return model.eval(), AutoTokenizer.from_pretrained(**where)


def _check_numbers(model: Any, path: Path) -> None:
    import torch

    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise BadModelSource(f"{path}: {name} holds values that are not finite numbers; the model is damaged")


def save_normalised(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes config.json, model.safetensors (f32), tokenizer.json and, where there is one, chat_template.jinja."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state, seen = {}, set()
    for name, tensor in model.named_parameters():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            state[name] = tensor.detach().to(torch.float32).contiguous()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        key: value
        for key, value in model.config.to_dict().items()
        if key not in ("_name_or_path", "_model_name_or_path", "transformers_version", "quantization_config")
    }
    text = json.dumps(config, sort_keys=True, indent=1, ensure_ascii=False)
    (folder / "config.json").write_text(text, encoding="utf-8")
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def torch_type(precision: str) -> Any:
    """PyTorch's type of a precision."""
    import torch

    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]


def load_normalised(folder: Path, precision: str) -> Any:
    """The model of a normalised folder in a precision: "f32", "bf16" or "f16"."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch_type(precision)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    # Parameters only: `model.to` would round the rotary embedding's table too, which stays in f32 in every framework.
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model.eval()
