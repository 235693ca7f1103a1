"""Which of its two clocks a board runs at: the eased one while all it has in hand keeps its limits there. Pure.

Decode is bound by memory, so that a lower SM clock costs little time and saves much energy; prompts are bound by
compute. Clocks cannot follow single steps, but they can follow a queue: what is planned for is the full clock, and the
eased one is used for as long as nobody would be late by it (as GreenLLM, arXiv 2508.16449, and VoltanaLLM, 2509.04827,
do with engines that keep the phases apart). Times at the eased clock are reckoned from those seen at the full one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Shares of the limits that may be used up at the eased clock: what comes next waits for what is in hand.
TTFT_SHARE: Final = 0.5
TPOT_SHARE: Final = 0.8
# Share of a decode step that is taken to be bound by the clock before the eased clock was tried: it waits for memory
# for most of the time. Once eased, what is seen counts.
STEP_SHARE: Final = 0.5
# The clock is eased only after so long without need, so that it is not set for every prompt.
DWELL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a replica's requests may take; infinite without a limit.

    Attributes:
        pace_s: a token need not come sooner than this after the one before it; 0 where it shall come as soon as it can.
    """

    ttft_s: float = math.inf
    tpot_s: float = math.inf
    pace_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """What one replica has in hand, with times as they are at the clock in force.

    Attributes:
        prompt_tokens: of requests that wait for their first token, as far as they are not taken in yet.
        oldest_wait_s: of those requests.
        crowded: one of them finds no place in the batch.
        prefill_token_s: for each prompt token; 0 when none was seen yet.
        chunk_tokens: prompt tokens between two decode steps.
        step_s: of a decode step of all sequences that have one; 0 without any.
    """

    prompt_tokens: int = 0
    oldest_wait_s: float = 0.0
    crowded: bool = False
    prefill_token_s: float = 0.0
    chunk_tokens: int = 1
    step_s: float = 0.0


def may_ease(work: Work, limits: Limits, slower: float) -> bool:
    """Whether a replica keeps its limits at the eased clock.

    Args:
        slower: how much longer everything takes there at most: full clock over eased; 1 when it is in force already.
    """
    step_s = work.step_s * (1.0 + STEP_SHARE * (slower - 1.0))
    token_s = work.prefill_token_s * slower
    chunk_s = work.chunk_tokens * token_s if work.prompt_tokens else 0.0
    if step_s and step_s + chunk_s > TPOT_SHARE * limits.tpot_s:
        return False
    if not work.prompt_tokens:
        return True
    # A prompt with nothing beside it is bound by compute: slower takes as much energy.
    if work.crowded or not work.step_s:
        return False
    steps = work.prompt_tokens / max(work.chunk_tokens, 1)
    takes_s = work.prompt_tokens * token_s + steps * step_s
    return work.oldest_wait_s + takes_s <= TTFT_SHARE * limits.ttft_s


def needs_full_clock(replicas: Iterable[tuple[Work, Limits]], slower: float) -> bool:
    """Whether any replica of a board does; clocks act on all of it."""
    return not all(may_ease(work, limits, slower) for work, limits in replicas)
