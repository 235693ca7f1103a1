"""How trials end: made of what happened, with the fate that a failure stands for. Pure but for the time they took."""

from __future__ import annotations

from typing import Any, Final

from services.compiler.order import Order
from services.compiler.search.core.facts import Fate, Trial
from tradewind.domain.errors import (
    CompileFailed,
    JobOutOfMemory,
    JobTimeout,
    TradewindError,
    UnsupportedModel,
    WrongAnswer,
)

# What ends a candidate; anything else ends the search.
FAILURES: Final = (CompileFailed, JobTimeout, JobOutOfMemory, UnsupportedModel, WrongAnswer)


def fate_of(error: TradewindError) -> Fate:
    """The fate that a failed job stands for."""
    if isinstance(error, JobTimeout):
        return Fate.HANG
    if isinstance(error, JobOutOfMemory):
        return Fate.OUT_OF_MEMORY
    if isinstance(error, WrongAnswer):
        return Fate.WRONG_ANSWERS
    if isinstance(error, UnsupportedModel):
        return Fate.UNSUPPORTED
    died = error.metadata.get("status", "").startswith("-") or "node" in error.metadata
    return Fate.CRASH if died else Fate.COMPILE_ERROR


def trial_of(order: Order, layers: int, spent_s: float, **what: Any) -> Trial:
    """A trial with what it showed."""
    return Trial(order.recipe.name, layers, spent_s, **what)


def failed_trial(order: Order, layers: int, spent_s: float, error: TradewindError) -> Trial:
    """A trial that an error ended."""
    return trial_of(order, layers, spent_s, fate=fate_of(error), words=error.message)
