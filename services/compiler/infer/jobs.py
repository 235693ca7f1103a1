"""The jobs of a tensor model's build, as a worker runs them: export, and comparison with the source."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.compiler.infer.shapes import InferShapes
from tradewind.domain.infer_manifest import InferFunction
from tradewind.domain.tensors import tensor_spec

Job = dict[str, Any]
Say = Callable[[str, float], None]


def export_infer(job: Job, say: Say) -> Job:
    """The store's form → MLIR with the functions wanted and, where wanted, the weights archive."""
    from services.compiler.sources.normal_form import PROGRAM, PROGRAM_WEIGHTS, load_graph
    from tradewind.domain.passes import NARROW_WEIGHTS

    folder = Path(job["model"])
    if (folder / PROGRAM).exists():
        shutil.copy(folder / PROGRAM, job["mlir"])
        if job["weights"] and (folder / PROGRAM_WEIGHTS).exists():
            shutil.copy(folder / PROGRAM_WEIGHTS, job["weights"])
        return {"cache_bytes": 0}
    from services.compiler.export.generator import save_weights
    from services.compiler.infer.graph import export_graph

    say("loading weights", 0.05)
    graph = load_graph(folder, job["precision"], NARROW_WEIGHTS in job["passes"])
    export_graph(graph, shapes_in(job), Path(job["mlir"]), lambda name, share: say(f"tracing {name}", share))
    if job["weights"]:
        say("writing weights", 0.95)
        save_weights(graph.module, Path(job["weights"]))
    return {"cache_bytes": 0}


def check_infer(job: Job, say: Say) -> Job:
    """Module and weights → how far its answers are from the source's, and the canary's file."""
    import psutil

    from services.compiler.infer.answers import Answers
    from services.compiler.infer.evaluation import InferSession, evaluate

    inputs = [tensor_spec(spec) for spec in job["inputs"]]
    outputs = [tensor_spec(spec) for spec in job["outputs"]]
    session = InferSession(Path(job["module"]), [Path(w) for w in job["weights"]], inputs, outputs, job["driver"])
    answers = Answers.load(Path(job["reference"]))

    def fits(function: InferFunction, sample: dict[str, Any]) -> bool:
        from tradewind.domain.padding import extent_of

        length = extent_of(inputs, sample).length
        return length <= function.length if job["mask"] else length == function.length

    found = evaluate(
        session, shapes_in(job).functions, outputs, answers, fits, lambda share: say("comparing answers", share)
    )
    found.canary.save(Path(job["canary"]))
    return {
        "error": found.error,
        "worst": found.worst,
        "compared": found.compared,
        "memory_bytes": psutil.Process().memory_info().rss,
    }


def shapes_in(job: Job) -> InferShapes:
    """The sizes that a job names."""
    sizes = job["shapes"]
    return InferShapes(tuple(sizes["batches"]), tuple(sizes["lengths"]), str(sizes.get("fixed", "")))
