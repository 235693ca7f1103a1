"""Loads a source into a plain PyTorch model in f32, whatever its form. No pickles, no network, no foreign code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from services.compiler.sources.architectures import Task, architecture_of, task_of
from services.compiler.sources.detection import Form, check_folder, read_json
from services.compiler.sources.rotary import freeze_rotary
from services.compiler.sources.sidecar import copy_tokenizer
from tradewind.domain.errors import BadModelSource, TradewindError

_POOLER: Final = "pooler."


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
    freeze_rotary(model)
    return model, tokenizer


def _load_folder(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoTokenizer

    check_folder(folder)
    read_json(folder / "config.json")
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    loader = _class_of(config)
    if not (folder / "tokenizer.json").is_file():
        raise BadModelSource(f"{folder} has no tokenizer.json; save the tokenizer in its fast form beside the weights")
    read_json(folder / "tokenizer.json")
    loaded: Any = loader.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, report = loaded
    _check_complete(model, report, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return model.eval(), tokenizer


def _check_complete(model: Any, report: dict[str, Any], folder: Path) -> None:
    """Every weight must be there. An encoder's pooler may be left out: it then gives no output here either."""
    missing = sorted(report.get("missing_keys", []))
    if left := [key for key in missing if not key.startswith(_POOLER)]:
        raise BadModelSource(f"{folder} lacks {len(left)} weights, the first is {left[0]}; fetch the model again")
    if missing:
        model.pooler = None


def _class_of(config: Any) -> Any:
    """The class of transformers that reads a configuration's weights.

    Raises:
        UnsupportedModel: see `task_of`.
    """
    import transformers

    if task_of(config) is Task.GENERATE:
        return transformers.AutoModelForCausalLM
    return getattr(transformers, architecture_of(config))


def _load_gguf(path: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.quantization_config import GgufConfig

    where: dict[str, Any] = {
        "pretrained_model_name_or_path": path.parent,
        "gguf_file": path.name,
        "local_files_only": True,
    }
    config = AutoConfig.from_pretrained(**where)
    task_of(config)
    # Without `dequantize` the weights may stay in their blocks, inside layers that cannot be exported.
    model: Any = AutoModelForCausalLM.from_pretrained(
        **where, config=config, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # The tokenizer is what the file says, whatever its class. AutoTokenizer would read the whole file once more, for
    # 8 s, to choose one.
    loader: Any = PreTrainedTokenizerFast
    return model.eval(), loader.from_pretrained(**where)


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
    copy_tokenizer(tokenizer, folder)


def torch_type(precision: str) -> Any:
    """PyTorch's type of a precision."""
    import torch

    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]


def load_normalised(folder: Path, precision: str) -> Any:
    """The model of a normalised folder in a precision: "f32", "bf16" or "f16"."""
    import torch
    from transformers import AutoConfig

    dtype = torch_type(precision)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    loaded: Any = _class_of(config).from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, report = loaded
    _check_complete(model, report, folder)
    # Parameters only: `model.to` would round the rotary embedding's table too, which stays in f32 in every framework.
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    freeze_rotary(model)
    return model.eval()
