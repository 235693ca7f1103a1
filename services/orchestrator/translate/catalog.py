"""Variants and profiles: contract → core."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from services.orchestrator.core.facts.eased import with_eased
from services.orchestrator.core.facts.profile import Latency, Load, Profile
from services.orchestrator.core.facts.variant import Admission, Artifact, Variant
from services.orchestrator.translate.nodes import power_of
from tradewind.domain.figures import checked
from tradewind.v1 import compiler_pb2, profiler_pb2

_ADMISSIONS: Final = {
    compiler_pb2.VARIANT_STATE_ADMITTED: Admission.ADMITTED,
    compiler_pb2.VARIANT_STATE_REJECTED: Admission.REJECTED,
    compiler_pb2.VARIANT_STATE_UNCHECKED: Admission.UNCHECKED,
}


def variant_of(variant: compiler_pb2.Variant) -> Variant:
    """A variant; a state that is not known counts as failed."""
    top1 = increase = None
    if variant.HasField("quality"):
        quality = variant.quality
        top1 = quality.top1_agreement
        if quality.reference_perplexity > 0:
            increase = quality.perplexity / quality.reference_perplexity - 1.0
    return Variant(
        variant_id=variant.variant_id,
        name=variant.name,
        model_id=variant.model_id,
        target=variant.target,
        compiled_target=variant.compiled_target,
        admission=_ADMISSIONS.get(variant.state, Admission.FAILED),
        admission_reason=variant.state_reason,
        manifest=Artifact(variant.manifest.name, variant.manifest.digest, variant.manifest.size_bytes),
        top1_agreement=top1,
        perplexity_increase=increase,
        context_tokens=max(variant.recipe.context_buckets, default=0),
        slots=variant.recipe.slots,
        memory_bytes=variant.memory_bytes,
    )


def profiles_of(profiles: Iterable[profiler_pb2.Profile]) -> tuple[Profile, ...]:
    """Profiles that can be planned with: the newest of each operating point, and those of easing clocks."""
    newest: dict[tuple[str, str, str, int, tuple[int, int, int]], profiler_pb2.Profile] = {}
    for profile in profiles:
        point = profile.point
        if not profile.loads:
            continue
        power = power_of(point.power).order
        key = (point.variant_id, point.device_class, point.partition_kind, point.batch_limit, power)
        if key not in newest or _age(profile) > _age(newest[key]):
            newest[key] = profile
    return with_eased((_profile(newest[key]) for key in sorted(newest)), each_clock=True)


def _age(profile: profiler_pb2.Profile) -> tuple[int, int, str]:
    return (profile.create_time.seconds, profile.create_time.nanos, profile.profile_id)


def _profile(profile: profiler_pb2.Profile) -> Profile:
    # Of one load measured twice the last one counts.
    loads = {(load.prompt_tokens, load.concurrency): load for load in profile.loads if load.prompt_tokens}
    return Profile(
        profile_id=profile.profile_id,
        variant_id=profile.point.variant_id,
        device_class=profile.point.device_class,
        partition_kind=profile.point.partition_kind,
        batch_limit=profile.point.batch_limit or max((load.concurrency for load in profile.loads), default=1),
        loads=tuple(_load(loads[key]) for key in sorted(loads)),
        memory_bytes=profile.memory_bytes,
        load_s=profile.load_s,
        idle_power_mw=profile.idle_power_mw,
        power=power_of(profile.point.power),
    )


def _load(load: profiler_pb2.LoadPoint) -> Load:
    energy = load.energy_per_token
    return Load(
        prompt_tokens=load.prompt_tokens,
        output_tokens=load.output_tokens,
        concurrency=max(load.concurrency, 1),
        ttft=_latency(load.ttft),
        tpot=_latency(load.tpot),
        energy_per_token_mj=energy.energy_mj,
        energy_source=checked(energy.energy_mj, energy.source),
        energy_method=energy.method,
        energy_per_prefill_mj=load.energy_per_prefill.energy_mj,
        power_mw=load.power_mw,
    )


def _latency(stats: profiler_pb2.LatencyStats) -> Latency:
    p50 = stats.p50_ms or stats.mean_ms
    return Latency(p50, max(stats.p95_ms, p50), max(stats.p99_ms, stats.p95_ms, p50), stats.mean_ms or p50)
