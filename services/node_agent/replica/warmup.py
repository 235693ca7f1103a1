"""Before a replica serves: every function runs once, and a known prompt gets the known answer."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np

from services.node_agent.core.sampling import Choice
from services.node_agent.replica.engine import Engine
from services.node_agent.replica.model import Model
from services.node_agent.replica.request import Outcome, Request
from tradewind.domain.errors import TradewindError, VariantRejected
from tradewind.domain.manifest import Canary, VariantManifest

# A canary is some tens of tokens; on the slowest CPU that is seconds.
CANARY_LIMIT_S: Final = 60.0
# Sequence id of the canary; callers' ids are greater.
CANARY_SEQUENCE: Final = 0


def warm(model: Model, manifest: VariantManifest) -> None:
    """Calls every function once: code is paged in, buffers are made, weights are packed."""
    for function in manifest.functions:
        if function.phase == "prefill":
            model.prefill(function, np.zeros(function.tokens, np.int64), 0, 0)
        else:
            model.decode(function, [0] * function.batch, [0] * function.batch)


def check_canary(engine: Engine, canary: Canary) -> None:
    """Asks the canary's prompt, greedily, on the idle engine. A variant that was never checked has none.

    Raises:
        VariantRejected: the answer is another one, or none came in time.
    """
    if not canary.continuation:
        return
    answer: list[int] = []
    over = threading.Event()
    errors: list[TradewindError] = []

    def deliver(_request: Request, outcome: Outcome) -> None:
        if outcome.token is not None:
            answer.append(outcome.token)
        if outcome.error is not None:
            errors.append(outcome.error)
        if outcome.error is not None or outcome.finish is not None:
            over.set()

    prompt = np.array(canary.prompt, np.int64)
    request = Request(CANARY_SEQUENCE, prompt, len(canary.continuation), Choice(), frozenset(), deliver)
    engine.submit(request)
    if not over.wait(CANARY_LIMIT_S):
        engine.cancel(CANARY_SEQUENCE)
        raise VariantRejected(f"the canary prompt was not answered within {CANARY_LIMIT_S:.0f} s on this device")
    if errors:
        raise errors[0]
    if tuple(answer) != canary.continuation:
        same = next(
            (i for i, (a, b) in enumerate(zip(answer, canary.continuation, strict=False)) if a != b), len(answer)
        )
        raise VariantRejected(
            f"the canary's answer differs from the admitted one from token {same} on: this device or driver computes "
            "something else; build the variant for it",
            {"expected": str(list(canary.continuation)), "actual": str(answer)},
        )
