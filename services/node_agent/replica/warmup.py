"""Before a replica serves: every function runs once, and a known prompt gets the known answer, or one near enough."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Sequence
from typing import Final

import numpy as np

from services.node_agent.core.sampling import MAX_TOP_LOGPROBS, Choice
from services.node_agent.replica.engine import Engine
from services.node_agent.replica.model import Model
from services.node_agent.replica.request import Logprob, Outcome, Request
from tradewind.domain.errors import TradewindError, VariantRejected, WrongAnswer
from tradewind.domain.manifest import Canary, VariantManifest

# A canary is some tens of tokens; on the slowest CPU that is seconds.
CANARY_LIMIT_S: Final = 60.0
# Sequence id of the canary, and the largest of several asked together; callers' ids are greater.
CANARY_SEQUENCE: Final = 0
_WITH_LIKELIEST: Final = Choice(logprobs=True, top_logprobs=MAX_TOP_LOGPROBS)


def warm(model: Model, manifest: VariantManifest) -> None:
    """Calls every function once: code is paged in, buffers are made, weights are packed."""
    for function in manifest.functions:
        if function.phase == "prefill":
            model.prefill(function, np.zeros(function.tokens, np.int64), 0, 0)
        else:
            model.decode(function, [0] * function.batch, [0] * function.batch)


def check_canary(engine: Engine, canary: Canary, slots: int = 1) -> None:
    """Asks the canary's prompt, greedily, on the idle engine. A variant without a continuation has none.

    Args:
        engine: started, and asked nothing else meanwhile.
        canary: of the manifest.
        slots: sequences that the engine holds; one with a tolerance is asked in all of them together too.

    Raises:
        VariantRejected: no answer came in time.
        WrongAnswer: the answer is another one.
    """
    if not canary.continuation:
        return
    if canary.tolerance_nats:
        _check_near(engine, canary, slots)
        return
    (answer,) = _ask(engine, [(canary.prompt, len(canary.continuation))], Choice())
    actual = tuple(token.token for token in answer)
    if actual != canary.continuation:
        same = next(
            (i for i, (a, b) in enumerate(zip(actual, canary.continuation, strict=False)) if a != b), len(actual)
        )
        raise WrongAnswer(
            f"the canary's answer differs from the admitted one from token {same} on: this device or driver computes "
            "something else; build the variant for it",
            {"expected": str(list(canary.continuation)), "actual": str(list(actual))},
        )


def _check_near(engine: Engine, canary: Canary, slots: int) -> None:
    """Compares with the source's continuation: alone to its end, then begun at several places together."""
    at, wanted = 0, canary.continuation
    while at < len(wanted):
        # After a token that differs, though not by much, the source's own is the one to go on from.
        (answer,) = _ask(engine, [((*canary.prompt, *wanted[:at]), len(wanted) - at)], _WITH_LIKELIEST)
        at += _as_expected(answer, wanted[at:], canary.tolerance_nats)
    starts = range(min(slots, len(wanted)))
    together = _ask(
        engine, [((*canary.prompt, *wanted[:start]), len(wanted) - start) for start in starts], _WITH_LIKELIEST
    )
    for start, answer in zip(starts, together, strict=True):
        _as_expected(answer, wanted[start:], canary.tolerance_nats)


def _as_expected(answer: list[Logprob], wanted: Sequence[int], tolerance_nats: float) -> int:
    """Tokens of an answer up to and with the first that differs within the tolerance; all of them when none differs.

    Raises:
        WrongAnswer: one differs by more.
    """
    for place, (got, token) in enumerate(zip(answer, wanted, strict=True)):
        if got.token == token:
            continue
        behind_nats = got.logprob - dict(got.top).get(token, -math.inf)
        if not behind_nats <= tolerance_nats:
            raise WrongAnswer(
                f"the canary's token {place} is {got.token} where the source gives {token}, which this device finds "
                f"{behind_nats:.2g} nats less likely (at most {tolerance_nats:.2g} are rounding): the variant is "
                "compiled wrongly for it; build another recipe",
                {"expected": str(list(wanted)), "actual": str([one.token for one in answer])},
            )
        return place + 1
    return len(wanted)


def _ask(engine: Engine, prompts: Sequence[tuple[Sequence[int], int]], choice: Choice) -> list[list[Logprob]]:
    """Answers of prompts, each of so many tokens, asked together.

    Raises:
        VariantRejected: none came in time.
        TradewindError: the engine's own.
    """
    answers: dict[int, list[Logprob]] = {CANARY_SEQUENCE - index: [] for index in range(len(prompts))}
    left, over = set(answers), threading.Event()
    errors: list[TradewindError] = []

    def deliver(request: Request, outcome: Outcome) -> None:
        if outcome.token is not None:
            answers[request.sequence_id].append(outcome.logprob or Logprob(outcome.token, 0.0))
        if outcome.error is not None:
            errors.append(outcome.error)
        if outcome.error is not None or outcome.finish is not None:
            left.discard(request.sequence_id)
        if errors or not left:
            over.set()

    for sequence, (prompt, count) in zip(answers, prompts, strict=True):
        # A salt of its own: each is worked out whole.
        ids, salt = np.array(prompt, np.int64), secrets.token_hex(8)
        engine.submit(Request(sequence, ids, count, choice, frozenset(), deliver, salt))
    if not over.wait(CANARY_LIMIT_S):
        for sequence in answers:
            engine.cancel(sequence)
        raise VariantRejected(f"the canary prompt was not answered within {CANARY_LIMIT_S:.0f} s on this device")
    if errors:
        raise errors[0]
    return list(answers.values())
