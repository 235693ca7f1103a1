"""The Pareto points of a model: the same load at every operating point, beaten ones marked. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from services.profiler.core.campaign import limits_of
from services.profiler.core.pareto import Costs, on_front
from services.profiler.core.prediction import CostModel
from tradewind.domain.figures import FigureSource, weakest
from tradewind.v1 import compiler_pb2, profiler_pb2

# Where points are compared unless the caller says otherwise: a paragraph of prompt, one sequence.
DEFAULT_PROMPT_TOKENS: Final = 128
DEFAULT_CONCURRENCY: Final = 1


def pareto_points(
    profiles: Sequence[profiler_pb2.Profile],
    variants: Mapping[str, compiler_pb2.Variant],
    prompt_tokens: int = 0,
    concurrency: int = 0,
) -> list[profiler_pb2.ParetoPoint]:
    """Every operating point at one load, `on_front` set, by rising energy.

    Args:
        profiles: one of each operating point.
        variants: by id; profiles of others are left out, for nothing is known of their quality.
        prompt_tokens: where to compare; 0 means the measured load nearest to `DEFAULT_PROMPT_TOKENS`.
        concurrency: likewise. A point that cannot take as many sequences is left out.
    """
    points = []
    for profile in profiles:
        variant = variants.get(profile.point.variant_id)
        if variant is None or not profile.loads or concurrency > max(1, profile.point.batch_limit):
            continue
        load = load_at(profile, variant, prompt_tokens, concurrency)
        points.append(_point(profile, variant, load))
    for point, wins in zip(points, on_front(points, costs), strict=True):
        point.on_front = wins
    return sorted(points, key=lambda p: (p.load.energy_per_token.energy_mj, p.load.ttft.p50_ms, p.variant_name))


def load_at(
    profile: profiler_pb2.Profile, variant: compiler_pb2.Variant, prompt_tokens: int, concurrency: int
) -> profiler_pb2.LoadPoint:
    """The load of a profile to compare at: the measured nearest one, or what was asked for, predicted if need be."""
    wanted_prompt, wanted_number = prompt_tokens or DEFAULT_PROMPT_TOKENS, concurrency or DEFAULT_CONCURRENCY
    if prompt_tokens and concurrency:
        return CostModel(profile.loads, limits_of(variant).decode_batches).predict(prompt_tokens, 0, concurrency).load
    nearest = min(profile.loads, key=lambda p: _away(p, wanted_prompt, wanted_number))
    if prompt_tokens or concurrency:
        model = CostModel(profile.loads, limits_of(variant).decode_batches)
        return model.predict(prompt_tokens or nearest.prompt_tokens, 0, concurrency or nearest.concurrency).load
    return nearest


def costs(point: profiler_pb2.ParetoPoint) -> Costs:
    """What points compete in: TTFT and TPOT (medians), energy for a token, memory, and quality lost.

    An energy that nobody knows is the worst, so that it wins nothing.
    """
    energy = point.load.energy_per_token
    unknown = weakest((energy.source,)) is FigureSource.UNAVAILABLE
    return (
        point.load.ttft.p50_ms,
        point.load.tpot.p50_ms,
        math.inf if unknown else energy.energy_mj,
        float(point.memory_bytes),
        1 - point.top1_agreement,
    )


def perplexity_increase(quality: compiler_pb2.Quality) -> float:
    """Relative perplexity increase against the reference; 0 when the reference is not known."""
    if quality.reference_perplexity <= 0:
        return 0.0
    return quality.perplexity / quality.reference_perplexity - 1


def _point(
    profile: profiler_pb2.Profile, variant: compiler_pb2.Variant, load: profiler_pb2.LoadPoint
) -> profiler_pb2.ParetoPoint:
    return profiler_pb2.ParetoPoint(
        point=profile.point,
        variant_name=variant.name,
        load=load,
        memory_bytes=profile.memory_bytes,
        top1_agreement=variant.quality.top1_agreement,
        perplexity_increase=perplexity_increase(variant.quality),
    )


def _away(load: profiler_pb2.LoadPoint, prompt_tokens: int, concurrency: int) -> float:
    """Distance in doublings; the number of sequences counts more, for it changes what is measured."""
    prompts = abs(math.log2(max(1, load.prompt_tokens) / prompt_tokens))
    return prompts + 4 * abs(math.log2(max(1, load.concurrency) / concurrency))
