"""The jobs of a tensor model's build, as a worker runs them: export, and comparison with the source."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.compiler.infer.shapes import InferShapes
from tradewind.domain.infer_manifest import InferFunction
from tradewind.domain.tensors import tensor_spec

if TYPE_CHECKING:
    from services.compiler.infer.evaluation import InferSession

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
    from services.compiler.infer.answers import Answers
    from services.compiler.infer.evaluation import evaluate

    session, answers = _session_of(job), Answers.load(Path(job["reference"]))
    functions, outputs = shapes_in(job).functions, [tensor_spec(spec) for spec in job["outputs"]]
    found = evaluate(session, functions, outputs, answers, _fits_of(job), lambda share: say("comparing answers", share))
    found.canary.save(Path(job["canary"]))
    return {
        "error": found.error,
        "worst": found.worst,
        "compared": found.compared,
        "memory_bytes": _resident_bytes(),
    }


def try_infer(job: Job, say: Say) -> Job:
    """Module and weights → what each function costs. How far its answers are from the source's was found at its build,
    on the only samples there are.
    """
    from services.compiler.infer.answers import Answers
    from services.compiler.search.timing import time_calls

    session, samples, fits = _session_of(job), Answers.load(Path(job["reference"])).samples, _fits_of(job)

    def call_of(function: InferFunction) -> Callable[[], Any]:
        sample = next(sample for sample in samples if fits(function, sample))
        return lambda: session.run(function, [sample] * (function.batch or 1))

    say("timing", 0.0)
    costs = time_calls({function.name: call_of(function) for function in shapes_in(job).functions})
    return {
        "costs": [asdict(cost) for cost in costs],
        "figures": None,
        "kl_by_function": {},
        "memory_bytes": _resident_bytes(),
    }


def _session_of(job: Job) -> InferSession:
    from services.compiler.infer.evaluation import InferSession

    inputs, outputs = ([tensor_spec(spec) for spec in job[kind]] for kind in ("inputs", "outputs"))
    return InferSession(Path(job["module"]), [Path(w) for w in job["weights"]], inputs, outputs, job["driver"])


def _fits_of(job: Job) -> Callable[[InferFunction, dict[str, Any]], bool]:
    """Whether a function may be asked about a sample: without a mask it takes its very length."""
    from tradewind.domain.padding import extent_of

    inputs = [tensor_spec(spec) for spec in job["inputs"]]

    def fits(function: InferFunction, sample: dict[str, Any]) -> bool:
        length = extent_of(inputs, sample).length
        return length <= function.length if job["mask"] else length == function.length

    return fits


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def shapes_in(job: Job) -> InferShapes:
    """The sizes that a job names."""
    sizes = job["shapes"]
    return InferShapes(tuple(sizes["batches"]), tuple(sizes["lengths"]), str(sizes.get("fixed", "")))
