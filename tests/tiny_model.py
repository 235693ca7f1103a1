"""A tiny random language model, made in code, that every test can compile in seconds. Makes files, nothing else.

Its answers mean nothing, and yet it is a real model: a Hugging Face folder with config.json, safetensors, a byte-level
tokenizer.json and a chat template. Weights are drawn wide enough that its answers are decided (the most likely token
leads clearly), so that a comparison of precisions says something.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

VOCABULARY_SIZE: Final = 288
END_OF_TEXT: Final = 0
MESSAGE_START: Final = 1
MESSAGE_END: Final = 2
CONTEXT_TOKENS: Final = 512

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# What every tiny architecture shares; two KV heads for four heads exercises grouped attention.
_SHAPE: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
    "bos_token_id": MESSAGE_START,
    "eos_token_id": MESSAGE_END,
    "pad_token_id": END_OF_TEXT,
}


def write_tiny_model(folder: Path, *, seed: int = 0, architecture: str = "LlamaForCausalLM", **config: Any) -> Path:
    """Writes the model into a folder, which is made.

    Args:
        folder: where to; its files are overwritten.
        seed: of the weights; the same seed gives the same bytes.
        architecture: name of a causal LM class of transformers, for instance "Qwen3ForCausalLM".
        config: fields of the configuration that differ from the tiny ones.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    model_class = getattr(transformers, architecture)
    settings = model_class.config_class(**{**_SHAPE, **config})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(settings).to(torch.float32)
        _widen(model)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_tiny_tokenizer(folder)
    return folder


def write_tiny_tokenizer(folder: Path) -> None:
    """Writes tokenizer.json (byte level, no merges), tokenizer_config.json and chat_template.jinja."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special[1],
        "eos_token": special[2],
        "pad_token": special[0],
        "model_max_length": CONTEXT_TOKENS,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(facts), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _widen(model: Any) -> None:
    """Draws matrices with unit gain and the output head wider, so that logits spread by several nats."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() < 2:
                continue
            gain = 6.0 if "lm_head" in name or "embed_tokens" in name else 1.0
            weight.normal_(0.0, gain * weight.shape[-1] ** -0.5)
