"""Loads of a measurement: what is asked of them, what their samples add up to. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from services.node_agent.core.draws import uniform
from tradewind.domain.errors import ContextExceeded, InvalidField
from tradewind.domain.figures import EnergyFigure, FigureSource, weakest

DEFAULT_REPEATS: Final = 3
# A profile of more points takes longer than the day it is for.
MAX_LOADS: Final = 256
MAX_REPEATS: Final = 1_000


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One load: `concurrency` sequences together, `repeats` times."""

    prompt_tokens: int
    output_tokens: int
    concurrency: int
    repeats: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What one sequence took."""

    ttft_ms: float
    tpot_ms: float
    output_tokens: int
    prefill_mj: float
    decode_mj: float
    source: FigureSource
    method: str


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What a load took.

    Attributes:
        energy_per_token: both phases, over the tokens generated.
        power_mw: idle share included, with the label of the energies.
    """

    tokens_per_s: float
    energy_per_token: EnergyFigure
    energy_per_prefill: EnergyFigure
    power_mw: float


def check_loads(loads: Sequence[LoadSpec], slots: int, context_tokens: int) -> None:
    """Returns when the loads can be run.

    Raises:
        InvalidField: none, too many, or a number out of range.
        ContextExceeded: one does not fit the context.
    """
    if not 1 <= len(loads) <= MAX_LOADS:
        raise InvalidField("loads", f"{len(loads)} given; 1 to {MAX_LOADS} are taken")
    for load in loads:
        if load.prompt_tokens < 1 or load.output_tokens < 1:
            raise InvalidField("loads", "prompt_tokens and output_tokens must be at least 1")
        if not 1 <= load.concurrency <= slots:
            raise InvalidField("loads.concurrency", f"{load.concurrency} is not in 1…{slots}, the batch limit")
        if not 1 <= load.repeats <= MAX_REPEATS:
            raise InvalidField("loads.repeats", f"{load.repeats} is not in 1…{MAX_REPEATS}")
        if load.prompt_tokens + load.output_tokens > context_tokens:
            raise ContextExceeded(
                f"a load of {load.prompt_tokens} + {load.output_tokens} tokens does not fit the context of "
                f"{context_tokens}",
                {"context": str(context_tokens), "prompt_tokens": str(load.prompt_tokens)},
            )


def prompt(load: LoadSpec, sequence: int, vocabulary_size: int, avoid: Collection[int]) -> list[int]:
    """A prompt of a load: the same each time for the same sequence number, without the tokens to avoid."""
    ids = []
    for place in range(load.prompt_tokens):
        token = int(uniform(sequence, place) * vocabulary_size)
        while token in avoid:
            token = (token + 1) % vocabulary_size
        ids.append(token)
    return ids


def figures_of(samples: Sequence[Sample], wall_s: float, idle_power_mw: float) -> LoadFigures:
    """What the samples of a load, taken over `wall_s` seconds, add up to.

    Args:
        samples: at least one.
        wall_s: above 0.
        idle_power_mw: of the device.
    """
    tokens = sum(s.output_tokens for s in samples)
    prefill_mj, decode_mj = sum(s.prefill_mj for s in samples), sum(s.decode_mj for s in samples)
    source, method = weakest(s.source for s in samples), samples[0].method
    return LoadFigures(
        tokens_per_s=tokens / wall_s,
        energy_per_token=EnergyFigure((prefill_mj + decode_mj) / max(tokens, 1), source, method),
        energy_per_prefill=EnergyFigure(prefill_mj / len(samples), source, method),
        power_mw=idle_power_mw + (prefill_mj + decode_mj) / wall_s,
    )
