"""What child processes of the gate do: a variant against its reference, and the source asked about more text.

Must not touch the blob store, the database or the network; see `services.compiler.worker`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from services.compiler.quality.evaluation import Evaluation, Evaluator
from services.compiler.quality.reference import Reference, make_windows
from services.compiler.quality.session import Session
from services.compiler.quality.text import Part
from services.compiler.quality.thresholds import precise_enough, token_slack_nats
from services.compiler.quality.windows import Windows

Job = dict[str, Any]
Say = Callable[[str, float], None]


def check_variant(job: Job, say: Say) -> Job:
    """Module and weights → figures against the reference, and the canary."""
    import psutil

    from services.compiler.export.shapes import Shapes

    shapes = Shapes.from_sizes(job["shapes"])
    session = Session(Path(job["module"]), [Path(w) for w in job["weights"]], shapes.functions, job["driver"])
    evaluation = evaluate(job, session, shapes.slots, lambda share: say("comparing answers", share))
    return {
        "figures": asdict(evaluation.figures),
        "canary": asdict(evaluation.canary),
        "kl_by_function": evaluation.kl_by_function,
        "memory_bytes": psutil.Process().memory_info().rss,
    }


def evaluate(job: Job, session: Session, slots: int, report: Callable[[float], None]) -> Evaluation:
    """A session against the reference and the windows that a job names; it may name none of these."""
    session.check_picks()
    windows = Windows.load(Path(job["windows"])) if job["windows"] else None
    enough = partial(precise_enough, job["precision"])
    reference, slack_nats = Reference.load(Path(job["reference"])), token_slack_nats(job["precision"])
    return Evaluator(session, reference, slots, windows, enough, slack_nats).run(report)


def ask_about_windows(job: Job, say: Say) -> Job:
    """The store's form of a model → what it answers on windows of a part of the text."""
    from services.compiler.quality.stored_tokenizer import StoredTokenizer
    from services.compiler.sources.normal_form import load_generator

    say("asking the source about more text", 0.0)
    folder = Path(job["model"])
    tokenizer = StoredTokenizer(folder, int(job["vocabulary_size"]))
    model = load_generator(folder, "f32", narrow=False)

    def tell(done: int, count: int) -> None:
        say(f"asking the source about more text, {done} windows of {count}", done / count)

    make_windows(model, tokenizer, int(job["context_tokens"]), Part(job["part"]), tell).save(Path(job["output"]))
    return {}
