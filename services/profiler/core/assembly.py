"""From what an agent sent to a profile worth keeping: checked, merged with what was known. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from services.profiler.core.campaign import Job
from services.profiler.core.settings import DEFAULT, key_of, words
from tradewind.domain.errors import Internal
from tradewind.domain.figures import checked
from tradewind.v1 import common_pb2, profiler_pb2

# A latency above this is a clock gone wrong, not a slow machine.
MAX_LATENCY_MS: Final = 3.6e6


def assemble(job: Job, sent: profiler_pb2.Profile, profile_id: str, now_s: float) -> profiler_pb2.Profile:
    """The profile to keep of a finished measurement.

    The identity of the point is what was asked for; loads known before and not measured again are kept.

    Raises:
        Internal: loads are missing or figures cannot be; nothing should be kept then.
    """
    measured = {(p.prompt_tokens, p.concurrency): p for p in sent.loads}
    if absent := [load.key for load in job.loads if load.key not in measured]:
        loads = ", ".join(f"{p} tokens × {c}" for p, c in absent)
        raise Internal(f"node {job.node_id} ended the measurement of {job.title} without these loads: {loads}")
    if sent.point.power != job.power:
        raise Internal(
            f"node {job.node_id} measured {job.title} at {words(sent.point.power) or 'its default'}; bring its agent "
            "up to date, which is older than this profiler"
        )
    for load in measured.values():
        _check(job, load)
    kept = [p for p in (job.known.loads if job.known else ()) if (p.prompt_tokens, p.concurrency) not in measured]
    profile = profiler_pb2.Profile(
        profile_id=profile_id,
        point=common_pb2.OperatingPoint(
            variant_id=job.variant.variant_id,
            device_class=job.device.device_class,
            partition_kind=job.partition_kind,
            batch_limit=job.batch_limit,
            power=job.power if job.power != DEFAULT else None,
        ),
        model_id=job.variant.model_id,
        loads=sorted([*kept, *measured.values()], key=lambda p: (p.concurrency, p.prompt_tokens)),
        memory_bytes=sent.memory_bytes,
        load_s=sent.load_s,
        idle_power_mw=sent.idle_power_mw,
        idle_power_source=sent.idle_power_source,
        node_id=job.node_id,
        ran_sm_clock_mhz=sent.ran_sm_clock_mhz if sent.HasField("ran_sm_clock_mhz") else None,
    )
    profile.create_time.FromNanoseconds(int(now_s * 1e9))
    return profile


def newest_by_point(
    profiles: Sequence[profiler_pb2.Profile],
) -> dict[tuple[str, str, str, int, bytes], profiler_pb2.Profile]:
    """The profile in force of each operating point.

    Args:
        profiles: newest first.
    """
    newest: dict[tuple[str, str, str, int, bytes], profiler_pb2.Profile] = {}
    for profile in profiles:
        point = profile.point
        key = (point.variant_id, point.device_class, point.partition_kind, point.batch_limit, key_of(point.power))
        newest.setdefault(key, profile)
    return newest


def _check(job: Job, load: profiler_pb2.LoadPoint) -> None:
    latencies = (load.ttft.p50_ms, load.ttft.p95_ms, load.tpot.p50_ms, load.tpot.p95_ms)
    if not all(math.isfinite(ms) and 0 <= ms <= MAX_LATENCY_MS for ms in latencies) or load.ttft.p50_ms == 0:
        raise Internal(
            f"node {job.node_id} sent latencies that cannot be for {job.title}, {load.prompt_tokens} tokens × "
            f"{load.concurrency}: {', '.join(f'{ms:g} ms' for ms in latencies)}; measure again"
        )
    energy = load.energy_per_token
    # An energy that cannot be one loses its label rather than the whole measurement.
    energy.source = common_pb2.FigureSource.ValueType(checked(energy.energy_mj, energy.source))
    if not math.isfinite(energy.energy_mj) or energy.energy_mj < 0:
        energy.energy_mj = 0.0
