"""From an ONNX file to the store's form: a decoder that generates, or a graph that maps tensors to tensors.

What the source answers is asked of ONNX's reference evaluator, unless a caller has the framework the graph came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.compiler.infer.answers import Answers
from services.compiler.infer.edges import WideEdges
from services.compiler.infer.graph import Graph, describe
from services.compiler.infer.samples import make_samples
from services.compiler.quality.answers_of_graph import GreedyAsker, reference_of
from services.compiler.sources.architectures import Task
from services.compiler.sources.detection import read_json
from services.compiler.sources.eos import eos_token_ids
from services.compiler.sources.normal_form import save_onnx
from services.compiler.sources.onnx.decoder import OnnxDecoder
from services.compiler.sources.onnx.evaluator import Evaluator
from services.compiler.sources.onnx.module import OnnxModule
from services.compiler.sources.onnx.reading import OnnxFile, read_onnx
from services.compiler.sources.onnx.signature import DecoderSignature, decoder_of, inputs_of
from services.compiler.sources.sidecar import copy_tokenizer, find_tokenizer
from tradewind.domain.errors import BadModelSource, UnsupportedModel

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]
# Runs a source on tensors by name; gives its outputs by name.
Oracle = Callable[[Feeds], dict[str, Array]]
Say = Callable[[str, float], None]

# Sequences that a graph of open length is asked about.
_SAMPLE_LENGTH: Final = 24
_CONTEXT_KEYS: Final = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length")


def import_onnx(path: Path, output: Path, reference: Path, say: Say, oracle: Oracle | None = None) -> dict[str, Any]:
    """Writes the store's form and what the source answers; facts of the model.

    Args:
        path: the .onnx file.
        output: folder to write.
        reference: file to write.
        say: hears stage and share.
        oracle: the framework that the graph came from; ONNX's reference evaluator when None.

    Raises:
        BadModelSource, UnsupportedModel: see `read_onnx`; a decoder without tokenizer or context.
    """
    say("reading the graph", 0.05)
    file = read_onnx(path)
    names = [spec.name for spec in inputs_of(file.model.graph)]
    module = OnnxModule(file.model, file.weights, names)
    signature = decoder_of(file.model.graph)
    asked = oracle or evaluator_of(file)
    if signature is None:
        return _import_graph(file, module, asked, output, reference, say)
    return _import_decoder(path, file, signature, OnnxDecoder(module, signature, 1), asked, output, reference, say)


def onnx_graph(module: OnnxModule, model: Any) -> Graph:
    """A graph that maps tensors to tensors, described."""
    names = [output.name for output in model.graph.output]
    return describe(WideEdges(module), inputs_of(model.graph), names, module.table_rows, module.longest)


def evaluator_of(file: OnnxFile) -> Oracle:
    """ONNX's reference evaluator over a file whose weights lie apart."""
    from onnx import ModelProto, numpy_helper

    whole = ModelProto()
    whole.CopyFrom(file.model)
    del whole.graph.initializer[:]
    whole.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in file.weights.items())
    return Evaluator(whole).run


def _import_graph(
    file: OnnxFile, module: OnnxModule, oracle: Oracle, output: Path, reference: Path, say: Say
) -> dict[str, Any]:
    graph = onnx_graph(module, file.model)
    say("writing the normalised model", 0.5)
    save_onnx(output, file.model, file.weights, {"architectures": ["OnnxGraph"], "context_tokens": graph.longest})
    say("asking the source for its answers", 0.6)
    length = min(_SAMPLE_LENGTH, graph.longest or _SAMPLE_LENGTH)
    samples = make_samples(graph.inputs, length, graph.integers)
    Answers(tuple(samples), tuple(oracle(sample) for sample in samples)).save(reference)
    return infer_facts(graph, "OnnxGraph", file.weights)


def infer_facts(graph: Graph, architecture: str, weights: Mapping[str, Any]) -> dict[str, Any]:
    """What the contract says of a tensor model."""
    return {
        "task": Task.INFER,
        "architecture": architecture,
        "parameter_count": int(sum(np.size(weight) for weight in weights.values())),
        "context_tokens": graph.longest,
        "inputs": [spec_facts(spec) for spec in graph.inputs],
        "outputs": [spec_facts(spec) for spec in graph.outputs],
    }


def spec_facts(spec: Any) -> dict[str, Any]:
    """A tensor as the contract has it."""
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.open_shape)}


def _import_decoder(
    path: Path,
    file: OnnxFile,
    signature: DecoderSignature,
    decoder: OnnxDecoder,
    oracle: Oracle,
    output: Path,
    reference: Path,
    say: Say,
) -> dict[str, Any]:
    config = read_json(path.parent / "config.json") if (path.parent / "config.json").is_file() else {}
    context = next((int(config[key]) for key in _CONTEXT_KEYS if isinstance(config.get(key), int)), 0)
    if context < 1:
        raise BadModelSource(
            f"nothing says how long the context of {path} is; put the model's config.json with "
            "max_position_embeddings beside it"
        )
    tokenizer = find_tokenizer(path.parent)
    asker = _asker(signature, decoder, oracle)
    vocabulary = asker.logits((0, 0)).shape[-1]
    architecture = str((config.get("architectures") or ["OnnxDecoder"])[0])
    say("writing the normalised model", 0.5)
    save_onnx(output, file.model, file.weights, {"architectures": [architecture], "context_tokens": context})
    copy_tokenizer(tokenizer, output)
    say("asking the source for its answers", 0.6)
    reference_of(asker, tokenizer, context).save(reference)
    return {
        "task": Task.GENERATE,
        "architecture": architecture,
        "parameter_count": int(sum(array.size for array in file.weights.values())),
        "context_tokens": context,
        "vocabulary_size": vocabulary,
        "layer_count": len(signature.layers),
        "hidden_size": int(config.get("hidden_size") or config.get("n_embd") or 0),
        "eos_token_ids": eos_token_ids(_Eos(config.get("eos_token_id")), tokenizer),
    }


class _Eos:
    def __init__(self, eos_token_id: Any) -> None:
        self.eos_token_id = eos_token_id


def _asker(signature: DecoderSignature, decoder: OnnxDecoder, oracle: Oracle) -> GreedyAsker:
    """Asks the source about whole sequences, with an empty past."""

    def logits(tokens: tuple[int, ...]) -> Array:
        count = len(tokens)
        feeds: dict[str, Array] = {
            signature.ids: np.asarray([tokens], np.int64),
            signature.mask: np.ones((1, count), np.int64),
            signature.positions: np.arange(count, dtype=np.int64)[None],
        }
        for layer, rows in zip(signature.layers, decoder.cache_rows, strict=True):
            for name, (heads, width) in zip(layer.past, (rows.key, rows.value), strict=True):
                feeds[name] = np.zeros((1, heads, 0, width), np.float32)
        answer = oracle(feeds)[signature.logits]
        if answer.shape[:2] != (1, count):
            raise UnsupportedModel(
                f"{signature.logits} has shape {list(answer.shape)}; logits of every token are needed"
            )
        return np.asarray(answer[0], np.float32)

    return GreedyAsker(logits)
