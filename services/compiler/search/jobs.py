"""What the child processes of a search do: answers of the source for choosing, and one candidate timed and compared.

Must not touch the blob store, the database or the network; see `services.compiler.worker`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Say = Callable[[str, float], None]


def answer_for_choosing(job: Job, say: Say) -> Job:
    """The source's answers on the text for choosing, for each depth wanted; which depths could be made.

    A depth that the model cannot be cut to is left out.
    """
    from services.compiler.quality.reference import make_reference
    from services.compiler.quality.stored_tokenizer import StoredTokenizer
    from services.compiler.quality.text import Part
    from services.compiler.search.cut import cut_layers
    from services.compiler.sources.normal_form import load_generator

    folder, made = Path(job["model"]), []
    tokenizer = StoredTokenizer(folder, int(job["vocabulary_size"]))
    for number, layers in enumerate(sorted(job["layers"], key=lambda layers: -layers or -(1 << 30))):
        say("asking the source", number / len(job["layers"]))
        # Loaded anew for each depth: what was cut does not grow again.
        model = load_generator(folder, "f32", narrow=False)
        if layers and not cut_layers(model, layers):
            continue
        reference = make_reference(model, tokenizer, int(job["context_tokens"]), Part.CHOOSING)
        reference.save(Path(job["output"]) / f"choosing-{layers}.safetensors")
        made.append(layers)
    return {"layers": made}


def try_candidate(job: Job, say: Say) -> Job:
    """Module and weights → what each function costs, and figures against the source on the text for choosing."""
    import psutil

    from services.compiler.export.shapes import Shapes
    from services.compiler.quality.jobs import evaluate
    from services.compiler.quality.session import Session
    from services.compiler.search.timing import time_functions

    shapes = Shapes.from_sizes(job["shapes"])
    session = Session(Path(job["module"]), [Path(w) for w in job["weights"]], shapes.functions, job["driver"])
    say("timing", 0.0)
    costs = time_functions(session)
    answer: Job = {"costs": [asdict(cost) for cost in costs], "figures": None, "kl_by_function": {}}
    if job["reference"]:
        evaluation = evaluate(job, session, shapes.slots, lambda share: say("comparing answers", 0.5 + share / 2))
        answer |= {"figures": asdict(evaluation.figures), "kl_by_function": evaluation.kl_by_function}
    return answer | {"memory_bytes": psutil.Process().memory_info().rss}
