"""One generation at work in an engine: what was asked, what it has so far, how to tell its caller. No decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from services.node_agent.core.phase_account import PhaseAccount
from services.node_agent.core.sampling import Choice
from services.node_agent.replica.model import Tokens
from tradewind.domain.errors import TradewindError


class Finish(IntEnum):
    """Why a generation ended; the numbers of `tradewind.v1.FinishReason`."""

    STOP = 1
    LENGTH = 2


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token's log-probability and the likeliest ones at its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step brought one request.

    Attributes:
        token: a new token to send; None when it was a stop token or the request failed.
        finish: set when this is the last outcome.
        error: set when the request failed.
    """

    token: int | None
    logprob: Logprob | None = None
    finish: Finish | None = None
    error: TradewindError | None = None


@dataclass(slots=True)
class Request:
    """A generation.

    Attributes:
        prompt: token ids.
        most_output_tokens: at least 1; prompt and output fit the context.
        stop_ids: tokens that end it and are not sent.
        deliver: called with each outcome, on the engine's thread.
        salt: cached rows are shared only among requests with the same one.
        reused: tokens of the prompt that were in the cache already.
        arrived_s: when it came; monotonic, as all times here; 0 for not yet.
        last_token: the newest token, which the next decode step takes.
        tokens: generated so far, a stop token included.
    """

    sequence_id: int
    prompt: Tokens
    most_output_tokens: int
    choice: Choice
    stop_ids: frozenset[int]
    deliver: Callable[[Request, Outcome], None]
    salt: str = ""
    reused: int = 0
    arrived_s: float = 0.0
    began_s: float = 0.0
    first_token_s: float = 0.0
    last_token_s: float = 0.0
    last_token: int = 0
    tokens: int = 0
    sent: int = 0
    account: PhaseAccount = field(default_factory=PhaseAccount)

    @property
    def ttft_s(self) -> float:
        """From arrival to first token."""
        return self.first_token_s - self.arrived_s

    @property
    def tpot_s(self) -> float:
        """Mean time of a token after the first; 0 when there is none."""
        return (self.last_token_s - self.first_token_s) / (self.tokens - 1) if self.tokens > 1 else 0.0

    @property
    def queue_s(self) -> float:
        """From arrival to the first work on it."""
        return self.began_s - self.arrived_s
