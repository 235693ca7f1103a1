"""Models as the store keeps them, whatever form they came in, and back into PyTorch for a build.

Three forms: a transformers model (config.json, model.safetensors), an ONNX graph (graph.onnx without weights,
model.safetensors), and MLIR (program.mlir, weights.irpa), which needs no PyTorch any more. None of them holds code of
its source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from services.compiler.sources.loading import load_normalised, torch_type

GRAPH: Final = "graph.onnx"
PROGRAM: Final = "program.mlir"
PROGRAM_WEIGHTS: Final = "program.irpa"
WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"


def save_onnx(folder: Path, model: Any, weights: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes an ONNX graph: names and producer's remarks go, weights lie apart."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    (folder / GRAPH).write_bytes(model.SerializeToString(deterministic=True))
    save_file({name: np.ascontiguousarray(array) for name, array in sorted(weights.items())}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")


def load_generator(folder: Path, precision: str, narrow: bool) -> Any:
    """A decoder of the store in a precision; with `narrow`, weights are kept in it and arithmetic is f32."""
    if not (folder / GRAPH).exists():
        model = load_normalised(folder, "f32" if narrow else precision)
        if narrow:
            from services.compiler.passes.narrow_weights import narrow_weights

            narrow_weights(model, torch_type(precision))
        return model
    from services.compiler.sources.onnx.decoder import OnnxDecoder
    from services.compiler.sources.onnx.signature import decoder_of

    signature = decoder_of(_read_graph(folder).graph)
    if signature is None:
        raise ValueError(f"{folder / GRAPH} is no decoder")
    facts = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return OnnxDecoder(_onnx_module(folder, precision, narrow), signature, int(facts["context_tokens"]))


def load_graph(folder: Path, precision: str, narrow: bool) -> Any:
    """A tensor model of the store as a Graph in a precision; see `load_generator`."""
    if (folder / GRAPH).exists():
        from services.compiler.sources.onnx.importing import onnx_graph

        return onnx_graph(_onnx_module(folder, precision, narrow), _read_graph(folder))
    from services.compiler.sources.encoder import encoder_graph

    return encoder_graph(load_generator(folder, precision, narrow))


def _onnx_module(folder: Path, precision: str, narrow: bool) -> Any:
    import torch
    from safetensors.numpy import load_file

    from services.compiler.sources.onnx.module import OnnxModule
    from services.compiler.sources.onnx.signature import inputs_of

    model = _read_graph(folder)
    names = [spec.name for spec in inputs_of(model.graph)]
    wanted = torch_type(precision)
    return OnnxModule(model, load_file(folder / WEIGHTS), names, torch.float32 if narrow else wanted, wanted)


def _read_graph(folder: Path) -> Any:
    import onnx

    return onnx.ModelProto.FromString((folder / GRAPH).read_bytes())
