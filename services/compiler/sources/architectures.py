"""The supported architectures, and the checks that a configuration is one of them. Loads no weights."""

from __future__ import annotations

from typing import Any, Final

from tradewind.domain.errors import UnsupportedModel

# Each of them has a parity test; adding a name here without one lets tests/compiler/test_parity.py fail.
SUPPORTED: Final[tuple[str, ...]] = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)

# Rotary embeddings whose table depends on the length seen so far cannot be one fixed graph.
_FIXED_ROPE: Final = frozenset({"default", "linear", "llama3", "yarn"})


def check_supported(config: Any) -> str:
    """The architecture of a transformers configuration.

    Raises:
        UnsupportedModel: not in the list, or with a feature that the exported functions do not have.
    """
    architecture = _architecture_of(config)
    if architecture not in SUPPORTED:
        raise _unsupported(architecture, "its architecture is not supported")
    if getattr(config, "quantization_config", None) is not None:
        raise _unsupported(architecture, "its weights are quantised; import the unquantised model, or a GGUF")
    rope = getattr(config, "rope_parameters", None) or {}
    rope_type = rope.get("rope_type", "default")
    if rope_type not in _FIXED_ROPE:
        raise _unsupported(architecture, f"its rotary embedding is {rope_type!r}, not one of {sorted(_FIXED_ROPE)}")
    return architecture


def context_tokens_of(config: Any) -> int:
    """Longest context in tokens: inside the sliding window, where there is one, attention is full attention."""
    longest = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        return min(longest, int(window))
    return longest


def _architecture_of(config: Any) -> str:
    """What the configuration names, or what its model type means: a GGUF names no class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    named = list(getattr(config, "architectures", None) or [])
    return str(named[0] if named else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, config.model_type))


def _unsupported(architecture: str, why: str) -> UnsupportedModel:
    supported = ", ".join(SUPPORTED)
    return UnsupportedModel(
        f"{architecture}: {why}; supported are {supported}", {"architecture": architecture, "supported": supported}
    )
