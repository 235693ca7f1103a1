"""What to measure of a variant: prompt lengths × numbers of sequences. Pure.

The defaults are few on purpose. A load is kept only when another one does not tell it already:

- Three prompt lengths, with one sequence and with the most: the corners of what a planner may ask, so that it never has
  to guess beyond them. With one sequence they tell TTFT's fixed part, its slope, and what a long context does to TPOT.
- Numbers of sequences in between at the middle prompt length only, and only those that decode functions were compiled
  for: between two of them a replica runs the larger function, so a point in between tells nothing new.
- Sequences that run together are samples of each other: one round of four says as much as four rounds of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from tradewind.domain.errors import InvalidField

# A question, a paragraph, half a page. Planners read up to twice the longest; a longer one would cost minutes on two
# slow cores, where prefill is nearly linear in the length.
DEFAULT_PROMPTS: Final = (32, 128, 256)
MIDDLE_PROMPT: Final = 128
# At the middle prompt 20 tokens give 19 gaps a run, enough for a stable median at 20–40 ms each; the other loads need
# fewer, for their TPOT only has to show the trend.
OUTPUT_TOKENS: Final = 20
SHORT_OUTPUT_TOKENS: Final = 10
# Rounds of each load. TTFT has one sample a round and sequence; the longest prompt varies least and costs most.
REPEATS_SINGLE: Final = 2
REPEATS_SINGLE_LONG: Final = 1
REPEATS_TOGETHER: Final = 1
# Numbers of sequences measured by default, so that a recipe with many decode functions stays affordable.
MAX_DEFAULT_CONCURRENCIES: Final = 3
# What a caller may ask for in one go: more is minutes per operating point on a small machine.
MAX_LOADS: Final = 64
MAX_CONCURRENCY: Final = 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Load:
    """One load to run: a prompt length, a number of sequences at work together, tokens to generate, runs."""

    prompt_tokens: int
    concurrency: int
    output_tokens: int
    repeats: int

    @property
    def key(self) -> tuple[int, int]:
        """What tells loads apart: prompt length and concurrency."""
        return (self.prompt_tokens, self.concurrency)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant can take.

    Attributes:
        context_tokens: prompt and output together; 0 when not known.
        decode_batches: sequences its decode functions take, ascending.
        slots: sequences its cache holds.
    """

    context_tokens: int
    decode_batches: tuple[int, ...]
    slots: int

    @property
    def most_sequences(self) -> int:
        """The most sequences that can be decoded together."""
        largest = max(self.decode_batches, default=1)
        return min(largest, self.slots) if self.slots else largest


def check_request(prompts: Sequence[int], concurrencies: Sequence[int]) -> None:
    """Refuses loads that no variant could run.

    Raises:
        InvalidField: a zero, an absurd number, or too many loads.
    """
    if any(p < 1 for p in prompts):
        raise InvalidField("prompt_tokens", "each prompt length must be at least 1 token")
    if any(not 1 <= c <= MAX_CONCURRENCY for c in concurrencies):
        raise InvalidField("concurrencies", f"each must be from 1 to {MAX_CONCURRENCY} sequences")
    if len(set(prompts)) * max(1, len(set(concurrencies))) > MAX_LOADS:
        raise InvalidField("prompt_tokens", f"more than {MAX_LOADS} loads; ask for fewer lengths or concurrencies")


def choose_loads(limits: Limits, prompts: Sequence[int] = (), concurrencies: Sequence[int] = ()) -> tuple[Load, ...]:
    """The loads to run, cheapest first.

    What the caller names is measured in every combination; what is left open is chosen as the module's header says.
    Prompts that do not fit the context are shortened when they are defaults and refused when they were asked for.

    Raises:
        InvalidField: a prompt or concurrency asked for that the variant cannot take.
    """
    _check_fits(limits, prompts, concurrencies)
    lengths = sorted(set(prompts)) or default_prompts(limits.context_tokens)
    numbers = sorted(set(concurrencies)) or default_concurrencies(limits)
    if prompts and concurrencies:
        pairs = [(p, c) for p in lengths for c in numbers]
    else:
        middle = min(lengths, key=lambda p: abs(p - MIDDLE_PROMPT))
        corners = (numbers[0], numbers[-1])
        pairs = [(p, c) for p in lengths for c in numbers if c in corners or p == middle or prompts]
    return tuple(
        sorted((_load(limits, p, c) for p, c in pairs), key=lambda load: load.prompt_tokens * load.concurrency)
    )


def default_prompts(context_tokens: int) -> list[int]:
    """The default prompt lengths, those beyond the context replaced by the longest that fits."""
    if not context_tokens:
        return list(DEFAULT_PROMPTS)
    longest = max(1, context_tokens - SHORT_OUTPUT_TOKENS)
    return sorted({min(p, longest) for p in DEFAULT_PROMPTS})


def default_concurrencies(limits: Limits) -> list[int]:
    """One sequence, the most, and decode functions between, at most `MAX_DEFAULT_CONCURRENCIES`."""
    useful = sorted({1, limits.most_sequences, *(b for b in limits.decode_batches if b <= limits.most_sequences)})
    return spread(useful, MAX_DEFAULT_CONCURRENCIES)


def spread(values: Sequence[T], most: int) -> list[T]:
    """At most `most` of the values (ascending), both ends kept and the rest evenly spread."""
    if len(values) <= most:
        return list(values)
    if most == 1:
        return [values[-1]]
    step = (len(values) - 1) / (most - 1)
    return [values[round(i * step)] for i in range(most)]


def _load(limits: Limits, prompt: int, concurrency: int) -> Load:
    wanted = OUTPUT_TOKENS if (prompt, concurrency) == (MIDDLE_PROMPT, 1) else SHORT_OUTPUT_TOKENS
    room = limits.context_tokens - prompt if limits.context_tokens else wanted
    return Load(
        prompt_tokens=prompt,
        concurrency=concurrency,
        output_tokens=max(1, min(wanted, room)),
        repeats=_repeats(prompt, concurrency),
    )


def _repeats(prompt: int, concurrency: int) -> int:
    if concurrency > 1:
        return REPEATS_TOGETHER
    return REPEATS_SINGLE if prompt <= MIDDLE_PROMPT else REPEATS_SINGLE_LONG


def _check_fits(limits: Limits, prompts: Sequence[int], concurrencies: Sequence[int]) -> None:
    check_request(prompts, concurrencies)
    if limits.context_tokens and (long := [p for p in prompts if p >= limits.context_tokens]):
        raise InvalidField(
            "prompt_tokens", f"{max(long)} tokens leave no room in a context of {limits.context_tokens}; ask for less"
        )
    if high := [c for c in concurrencies if c > limits.most_sequences]:
        raise InvalidField(
            "concurrencies",
            f"{max(high)} sequences are more than the {limits.most_sequences} this variant takes; ask for fewer",
        )
