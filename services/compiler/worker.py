"""The child process of a job: reads a JSON job, writes JSON lines, leaves its files in the job's folder.

    python -m services.compiler.worker import|export|quality JOB.json

Lines on standard output: {"stage": text, "share": 0…1}, and at the end {"result": …} or {"error": …}. Must not touch
the blob store, the database or the network: it handles foreign files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tradewind.domain.errors import TradewindError

Job = dict[str, Any]


def import_model(job: Job) -> Job:
    """Source → normalised folder, facts, and the reference's answers."""
    from services.compiler.quality.reference import make_reference
    from services.compiler.sources.architectures import check_supported, context_tokens_of
    from services.compiler.sources.detection import Form
    from services.compiler.sources.eos import eos_token_ids
    from services.compiler.sources.loading import load_source, save_normalised

    folder = Path(job["output"])
    say("reading weights", 0.05)
    model, tokenizer = load_source(Form(job["form"]), Path(job["source"]))
    say("writing the normalised model", 0.5)
    save_normalised(model, tokenizer, folder)
    config = model.config
    context_tokens = context_tokens_of(config)
    say("asking the source framework for its answers", 0.6)
    make_reference(model, tokenizer, context_tokens).save(Path(job["reference"]))
    return {
        "architecture": check_supported(config),
        "parameter_count": sum(weight.numel() for weight in model.parameters()),
        "context_tokens": context_tokens,
        "vocabulary_size": config.vocab_size,
        "layer_count": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "eos_token_ids": eos_token_ids(config, tokenizer),
    }


def export(job: Job) -> Job:
    """Normalised folder → MLIR with the functions wanted and, where wanted, the weights archive."""
    from services.compiler.export.attention import narrow_weights
    from services.compiler.export.generator import export_mlir, save_weights
    from services.compiler.recipes import NARROW_WEIGHTS
    from services.compiler.sources.loading import load_normalised, torch_type

    say("loading weights", 0.05)
    arithmetic = "f32" if NARROW_WEIGHTS in job["passes"] else job["precision"]
    model = load_normalised(Path(job["model"]), arithmetic)
    if arithmetic != job["precision"]:
        narrow_weights(model, torch_type(job["precision"]))
    cache_bytes = export_mlir(
        model,
        _shapes(job),
        Path(job["mlir"]),
        lambda name, share: say(f"tracing {name}", share),
        torch_type(arithmetic),
    )
    if job["weights"]:
        say("writing weights", 0.95)
        save_weights(model, Path(job["weights"]))
    return {"cache_bytes": cache_bytes}


def quality(job: Job) -> Job:
    """Module and weights → figures against the reference, and the canary."""
    import psutil

    from services.compiler.quality.evaluation import Evaluator
    from services.compiler.quality.reference import Reference
    from services.compiler.quality.session import Session

    shapes = _shapes(job)
    session = Session(Path(job["module"]), [Path(w) for w in job["weights"]], shapes.functions, job["driver"])
    reference = Reference.load(Path(job["reference"]))
    evaluation = Evaluator(session, reference, shapes.slots).run(lambda share: say("comparing answers", share))
    return {
        "figures": asdict(evaluation.figures),
        "canary": asdict(evaluation.canary),
        "kl_by_function": evaluation.kl_by_function,
        "memory_bytes": psutil.Process().memory_info().rss,
    }


def _shapes(job: Job) -> Any:
    from services.compiler.export.shapes import Shapes

    sizes = job["shapes"]
    return Shapes(
        prefill_chunks=tuple(sizes["prefill_chunks"]),
        decode_batches=tuple(sizes["decode_batches"]),
        context_buckets=tuple(sizes["context_buckets"]),
        slots=int(sizes["slots"]),
    )


KINDS: Final[dict[str, Callable[[Job], Job]]] = {"import": import_model, "export": export, "quality": quality}


def say(stage: str, share: float) -> None:
    """Tells the parent where the work stands."""
    _write({"stage": stage, "share": share})


def _write(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def main(arguments: list[str]) -> int:
    """Runs one job; the exit status."""
    kind, path = arguments
    job: Job = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        result = KINDS[kind](job)
    except TradewindError as error:
        _write({"error": {"class": type(error).__name__, "message": error.message, "metadata": error.metadata}})
        return 1
    _write({"result": result})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
