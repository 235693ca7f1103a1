"""What a transformers configuration says a model is, and whether it can be one fixed graph. Loads no weights.

Causal LMs are taken whatever their architecture: `services.compiler.export.parity` compares each with its source.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from services.compiler.sources.rotary import KINDS, rotary_kinds, rotary_limit
from tradewind.domain.errors import UnsupportedModel

# Those that tests/compiler/test_parity.py compares with PyTorch; others are compared when they are imported.
TESTED: Final[tuple[str, ...]] = (
    "CohereForCausalLM",
    "FalconForCausalLM",
    "GPT2LMHeadModel",
    "GPTBigCodeForCausalLM",
    "GPTNeoXForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "GemmaForCausalLM",
    "GraniteForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "OPTForCausalLM",
    "Olmo2ForCausalLM",
    "Phi3ForCausalLM",
    "PhiForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "SmolLM3ForCausalLM",
    "StableLmForCausalLM",
    "Starcoder2ForCausalLM",
)


class Task(StrEnum):
    """What a model is asked: to go on with a text, or to map tensors to tensors."""

    GENERATE = "generate"
    INFER = "infer"


def task_of(config: Any) -> Task:
    """A causal LM generates; any other model of one text input is an encoder.

    Raises:
        UnsupportedModel: neither, or with a feature that a fixed graph does not have.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    architecture = architecture_of(config)
    if getattr(config, "quantization_config", None) is not None:
        raise _unsupported(architecture, "its weights are quantised; import the unquantised model, or a GGUF")
    if getattr(config, "is_encoder_decoder", False):
        raise _unsupported(architecture, "it is an encoder with a decoder; a causal LM or an encoder alone is taken")
    if strange := rotary_kinds(config) - KINDS:
        raise _unsupported(architecture, f"its rotary embedding is {sorted(strange)}, not one of {sorted(KINDS)}")
    if architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return Task.GENERATE
    _check_encoder(architecture)
    return Task.INFER


def architecture_of(config: Any) -> str:
    """What the configuration names, or what its model type means: a GGUF names no class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    named = list(getattr(config, "architectures", None) or [])
    return str(named[0] if named else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, config.model_type))


def context_tokens_of(config: Any) -> int:
    """Longest context in tokens at which one fixed graph computes what the source does."""
    return rotary_limit(config)


def _check_encoder(architecture: str) -> None:
    import transformers

    found = getattr(transformers, architecture, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise _unsupported(architecture, "transformers has no such model, and code that comes with a model is not run")
    takes = getattr(found, "main_input_name", "input_ids")
    if takes != "input_ids":
        raise _unsupported(architecture, f"it takes {takes}, not text; export it to ONNX and import that")


def _unsupported(architecture: str, why: str) -> UnsupportedModel:
    return UnsupportedModel(f"{architecture}: {why}", {"architecture": architecture})
