"""What the engine pays for a step, out of a measured profile and the functions that the variant was compiled with.

Two facts of the engine (`services/node_agent/core/shapes.py`) shape the figures between measured points: a decode step
of n sequences runs the smallest compiled batch that holds them and takes that batch's time; a prompt is padded to
whole prefill chunks. A load's sequences begin together, so each of n meets on average the prompts of (n-1)/2 others
between its tokens; that is taken out of the measured TPOT to have the step alone. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

import numpy as np

from services.node_agent.core.schedule import INTERLEAVED_CHUNK_TOKENS
from services.simulator.engine.cost import StepCost
from tradewind.domain.errors import ProfileMissing
from tradewind.v1 import compiler_pb2, profiler_pb2

# Slots bound a replica of this engine; its cache has room for the whole context of each.
_NO_CACHE_LIMIT: Final = 10**9
# The part of a measured TPOT that is decode at least, whatever the correction for others' prompts says.
_LEAST_STEP_SHARE: Final = 0.2

LoadPoint = profiler_pb2.LoadPoint


def cost_of_profile(profile: profiler_pb2.Profile, recipe: compiler_pb2.Recipe) -> StepCost:
    """Costs of one operating point.

    Raises:
        ProfileMissing: the profile has no load of one sequence.
    """
    single = sorted((p for p in profile.loads if p.concurrency == 1), key=lambda p: p.prompt_tokens)
    if not single:
        raise ProfileMissing(
            f"profile {profile.profile_id} has no load of one sequence; run `tradewind profile run` for its model",
            {"profile": profile.profile_id},
        )
    grain = max(min(recipe.prefill_chunks, default=1), 1)
    token_s, square_s = _prefill(single, grain)
    context_s = _context(single)
    batches, steps, watts = _decode(profile, recipe, context_s)
    idle_w = profile.idle_power_mw / 1000.0
    return StepCost(
        decode_s=(0.0, *(steps[b] for b in batches)),
        context_s=context_s,
        prefill_token_s=token_s,
        prefill_square_s=square_s,
        chunk_tokens=INTERLEAVED_CHUNK_TOKENS,
        decode_power_w=(idle_w, *(idle_w + watts[b] for b in batches)),
        prefill_power_w=idle_w + _prefill_w(single),
        cache_tokens=_NO_CACHE_LIMIT,
        load_s=profile.load_s,
        prefill_grain_tokens=grain,
        by_slot=True,
        apart=True,
    )


def _prefill(single: Sequence[LoadPoint], grain: int) -> tuple[float, float]:
    """Linear and quadratic part of a prompt's time over its padded length; linear alone where that fits no worse."""
    lengths = np.array([float(-(-p.prompt_tokens // grain) * grain) for p in single])
    times = np.array([p.ttft.p50_ms / 1000.0 for p in single])
    if len(set(lengths)) >= 2:
        features = np.stack([lengths, lengths**2], axis=1)
        (linear, square), *_ = np.linalg.lstsq(features / times[:, None], np.ones(len(times)), rcond=None)
        if linear > 0 and square >= 0:
            return float(linear), float(square)
    ratio = lengths / times
    return float(np.sum(ratio) / np.sum(ratio**2)), 0.0


def _context(single: Sequence[LoadPoint]) -> float:
    """Seconds that each token in the cache adds to a step, from the TPOT of one sequence at each prompt length."""
    lengths = np.array([p.prompt_tokens + p.output_tokens / 2.0 for p in single])
    steps = np.array([p.tpot.p50_ms / 1000.0 for p in single])
    if len(lengths) < 2 or not (steps > 0).all():
        return 0.0
    slope = np.polyfit(lengths, steps, 1)[0]
    return max(float(slope), 0.0)


def _decode(
    profile: profiler_pb2.Profile, recipe: compiler_pb2.Recipe, context_s: float
) -> tuple[list[int], dict[int, float], dict[int, float]]:
    """For each number of sequences the batch that runs; for each batch seconds of a step and watts above idle."""
    shortest = min(p.prompt_tokens for p in profile.loads)
    row = sorted((p for p in profile.loads if p.prompt_tokens == shortest), key=lambda p: p.concurrency)
    alone_s = row[0].ttft.p50_ms / 1000.0 if row[0].concurrency == 1 else 0.0
    known = {p.concurrency: _step(p, alone_s, context_s) for p in row}
    if 1 in known:
        # Every load of one sequence says what its step takes, whatever its prompt; the median, for each is short.
        alone = [_step(p, alone_s, context_s) for p in profile.loads if p.concurrency == 1]
        known[1] = (median(step_s for step_s, _ in alone), median(watts for _, watts in alone))
    counts = sorted(known)
    most = profile.point.batch_limit or counts[-1]
    compiled = sorted({min(b, most) for b in recipe.decode_batches} | {most})
    batches = [next(b for b in compiled if b >= n) for n in range(1, most + 1)]
    steps = {b: float(np.interp(b, counts, [known[n][0] for n in counts])) for b in compiled}
    watts = {b: float(np.interp(b, counts, [known[n][1] for n in counts])) for b in compiled}
    return batches, steps, watts


def _step(load: LoadPoint, prefill_s: float, context_s: float) -> tuple[float, float]:
    """Seconds of a decode step of a load's sequences without context, and watts above idle during it."""
    n, later = load.concurrency, max(load.output_tokens - 1, 1)
    measured_s = load.tpot.mean_ms / 1000.0
    met_s = (n - 1) / 2.0 * prefill_s / later
    context = n * (load.prompt_tokens + load.output_tokens / 2.0)
    step_s = max(measured_s - met_s - context_s * context, _LEAST_STEP_SHARE * measured_s)
    total_mj = load.energy_per_token.energy_mj * load.output_tokens
    decode_mj = max(total_mj - load.energy_per_prefill.energy_mj, 0.0)
    return step_s, n * decode_mj / later / 1000.0 / step_s


def _prefill_w(single: Sequence[LoadPoint]) -> float:
    """Watts above idle while a prompt is taken in: energy over time, of all lengths together."""
    energy_mj = sum(p.energy_per_prefill.energy_mj for p in single)
    time_ms = sum(p.ttft.p50_ms for p in single)
    return energy_mj / time_ms if time_ms > 0 else 0.0
