"""Models that are kept as a program of fixed sizes: exported at import, so that no build reads their source again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from services.compiler.infer.answers import Answers
from services.compiler.infer.graph import Graph, ask, export_graph
from services.compiler.infer.samples import make_samples
from services.compiler.infer.shapes import InferShapes, fit_shapes
from services.compiler.infer.variant import BATCHES, EXACT_LENGTHS
from services.compiler.sources.normal_form import CONFIG, PROGRAM, PROGRAM_WEIGHTS
from services.compiler.sources.onnx.importing import infer_facts

Say = Callable[[str, float], None]
_SAMPLE_LENGTH: Final = EXACT_LENGTHS[0]


def keep_program(graph: Graph, architecture: str, output: Path, reference: Path, say: Say) -> dict[str, Any]:
    """Writes a PyTorch graph as a program with its weights apart, and its own answers; facts of the model."""
    from services.compiler.export.generator import save_weights

    say("asking the source for its answers", 0.3)
    samples = make_samples(graph.inputs, _SAMPLE_LENGTH, graph.integers)
    answers = [ask(graph.module, graph.inputs, sample) for sample in samples]
    named = tuple(
        {spec.name: tensor.numpy() for spec, tensor in zip(graph.outputs, answer, strict=True)} for answer in answers
    )
    Answers(tuple(samples), named).save(reference)
    shapes = fit_shapes(graph.inputs, BATCHES, EXACT_LENGTHS[:1], graph.longest)
    output.mkdir(parents=True, exist_ok=True)
    export_graph(graph, shapes, output / PROGRAM, lambda name, share: say(f"exporting {name}", 0.4 + share * 0.5))
    weights = {name: weight.detach().numpy() for name, weight in graph.module.named_parameters()}
    if weights or any(True for _ in graph.module.buffers()):
        save_weights(graph.module, output / PROGRAM_WEIGHTS)
    return {**infer_facts(graph, architecture, weights), "program": note_program(output, shapes)}


def note_program(output: Path, shapes: InferShapes) -> dict[str, Any]:
    """Writes what functions a program has beside it, and gives it for the facts."""
    facts = asdict(shapes)
    (output / CONFIG).write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
    return facts
