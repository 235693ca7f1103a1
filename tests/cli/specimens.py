"""Messages as the small world's services tell them: variants, a profile, an explanation."""

from __future__ import annotations

from tradewind.v1 import common_pb2, compiler_pb2, orchestrator_pb2, profiler_pb2

TTFT = common_pb2.LATENCY_METRIC_TTFT
MODELLED = common_pb2.FIGURE_SOURCE_MODELLED


def variant_of(model: compiler_pb2.Model, name: str, top1: float) -> compiler_pb2.Variant:
    """An admitted variant."""
    variant = compiler_pb2.Variant(
        variant_id=f"sha256:{name.encode().hex():0<64}",
        name=f"{name}/cpu-host",
        model_id=model.model_id,
        target="cpu:host",
        compiled_target="cpu:znver3",
        recipe=compiler_pb2.Recipe(
            name=name, precision=name.partition("-")[0], decode_batches=[1, 4], context_buckets=[256, 512], slots=4
        ),
        state=compiler_pb2.VARIANT_STATE_ADMITTED,
        state_reason=f"top-1 {top1:.1%} ≥ 98 %",
        quality=compiler_pb2.Quality(
            top1_agreement=top1,
            kl_divergence_nats=1e-4,
            perplexity=10.2,
            reference_perplexity=10.1,
            positions=500,
            perplexity_increase_error=0.0012,
        ),
        memory_bytes=600 << 20,
        compile_s=21.5,
        ran_on=["cpu:x86_64-f25m1-avx2"],
    )
    variant.create_time.GetCurrentTime()
    return variant


def rejected_of(model: compiler_pb2.Model) -> compiler_pb2.Variant:
    """One whose answers are wrong."""
    variant = variant_of(model, "f32-fast-and-wrong", 0.03)
    variant.state = compiler_pb2.VARIANT_STATE_REJECTED
    variant.state_reason = "top-1 3.0 % < 98 %; perplexity 4801 against 10.1"
    return variant


def unchecked_of(model: compiler_pb2.Model, name: str, target: str) -> compiler_pb2.Variant:
    """One that nothing here could run."""
    variant = variant_of(model, name, 1.0)
    variant.name, variant.target, variant.compiled_target = f"{name}/{target.replace(':', '-')}", target, target
    variant.state, variant.state_reason = compiler_pb2.VARIANT_STATE_UNCHECKED, f"no device for {target} here"
    variant.ClearField("quality")
    variant.ClearField("ran_on")
    return variant


def profile_of(variant: compiler_pb2.Variant, kind: str, speed: float) -> profiler_pb2.Profile:
    """What a variant costs on a kind of partition."""
    stats = profiler_pb2.LatencyStats
    load = profiler_pb2.LoadPoint(
        prompt_tokens=128,
        output_tokens=20,
        concurrency=1,
        ttft=stats(p50_ms=400 / speed, p95_ms=440 / speed, samples=3),
        tpot=stats(p50_ms=42 / speed, p95_ms=50 / speed, samples=57),
        tokens_per_s=24 * speed,
        energy_per_token=common_pb2.Energy(
            energy_mj=900 - 150 * speed, source=MODELLED, method="cpu-linear@1(tdp=65W)"
        ),
        power_mw=20_000 + 4_000 * speed,
    )
    point = common_pb2.OperatingPoint(
        variant_id=variant.variant_id, device_class="cpu:amd-epyc-milan", partition_kind=kind, batch_limit=4
    )
    profile = profiler_pb2.Profile(
        profile_id=f"profile-{variant.name}-{kind}",
        point=point,
        model_id=variant.model_id,
        loads=[load],
        memory_bytes=620 << 20,
        node_id="n1",
    )
    profile.create_time.GetCurrentTime()
    return profile


def explanation() -> orchestrator_pb2.Explanation:
    """Why one option was chosen and another refused."""
    energy = common_pb2.Energy(energy_mj=492, source=MODELLED, method="cpu-linear@1(tdp=65W)")
    chosen = orchestrator_pb2.Candidate(
        point=common_pb2.OperatingPoint(device_class="cpu:amd-epyc-milan", partition_kind="cpu/2", batch_limit=4),
        variant_name="bf16-grouped/cpu-host",
        chosen=True,
        reason="least energy of 3 that meet the SLO",
        ttft_ms=162,
        tpot_ms=18.4,
        e2e_ms=3100,
        energy_per_token=energy,
        memory_bytes=620 << 20,
        replicas=1,
        capacity_requests_per_s=0.61,
    )
    refused = orchestrator_pb2.Candidate()
    refused.CopyFrom(chosen)
    refused.chosen, refused.variant_name, refused.replicas = False, "f32-grouped/cpu-host", 0
    refused.refusal, refused.reason, refused.ttft_ms = "TTFT_LIMIT", "440 ms > 300 ms", 440
    return orchestrator_pb2.Explanation(
        deployment_id="d-chat",
        summary="bf16-grouped on two cores of n1: it meets every limit at 492 mJ a token, the least of 4 options.",
        candidates=[chosen, refused],
    )
