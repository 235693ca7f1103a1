"""From a Hugging Face folder or a GGUF file to the store's form: a causal LM, or an encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from services.compiler.infer.answers import Answers
from services.compiler.infer.samples import make_samples
from services.compiler.sources.architectures import Task, architecture_of, context_tokens_of, task_of
from services.compiler.sources.detection import Form
from services.compiler.sources.eos import eos_token_ids
from services.compiler.sources.loading import load_source, save_normalised

# Tokens of the longest sample that an encoder is asked about.
_SAMPLE_TOKENS: Final = 28


def import_transformers(
    form: Form, source: Path, output: Path, reference: Path, say: Callable[[str, float], None]
) -> dict[str, Any]:
    """Writes the store's form and the source's answers; facts of the model.

    Raises:
        BadModelSource, UnsupportedModel: see `load_source` and `check_wrapped`.
    """
    say("reading weights", 0.05)
    model, tokenizer = load_source(form, source)
    say("writing the normalised model", 0.5)
    save_normalised(model, tokenizer, output)
    say("asking the source framework for its answers", 0.6)
    config = model.config
    facts = {
        "architecture": architecture_of(config),
        "parameter_count": sum(weight.numel() for weight in model.parameters()),
        "vocabulary_size": config.vocab_size,
        "layer_count": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
    }
    if task_of(config) is Task.INFER:
        return {**facts, **_encoder(model, reference)}
    return {**facts, **_causal(model, tokenizer, reference, say)}


def _causal(model: Any, tokenizer: Any, reference: Path, say: Callable[[str, float], None]) -> dict[str, Any]:
    from services.compiler.export.parity import check_wrapped
    from services.compiler.quality.reference import make_reference

    context_tokens = context_tokens_of(model.config)
    make_reference(model, tokenizer, context_tokens).save(reference)
    say("comparing the wrapped model with its source", 0.9)
    check_wrapped(model)
    return {
        "task": Task.GENERATE,
        "context_tokens": context_tokens,
        "eos_token_ids": eos_token_ids(model.config, tokenizer),
    }


def _encoder(model: Any, reference: Path) -> dict[str, Any]:
    from services.compiler.sources.encoder import INPUTS, encoder_graph
    from services.compiler.sources.onnx.importing import spec_facts

    # Answers come from the model as it is, before its wrapping changes it.
    integers = {"input_ids": int(model.config.vocab_size)}
    samples = make_samples(INPUTS, min(_SAMPLE_TOKENS, context_tokens_of(model.config) - 8), integers)
    outputs = [{name: value.float().numpy() for name, value in _answer(model, sample).items()} for sample in samples]
    Answers(tuple(samples), tuple(outputs)).save(reference)
    graph = encoder_graph(model)
    return {
        "task": Task.INFER,
        "context_tokens": graph.longest,
        "inputs": [spec_facts(spec) for spec in graph.inputs],
        "outputs": [spec_facts(spec) for spec in graph.outputs],
    }


def _answer(model: Any, sample: dict[str, Any]) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        answer = model(**{name: torch.from_numpy(array) for name, array in sample.items()})
    return {name: value for name, value in answer.items() if isinstance(value, torch.Tensor)}
