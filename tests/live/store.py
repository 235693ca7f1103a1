"""An export of a store as an engine of known costs would have filled it: two compiled batches, chunks of 64 tokens."""

from __future__ import annotations

from typing import Final

from tradewind.client.profile_file import StoredProfiles
from tradewind.v1 import common_pb2, compiler_pb2, node_pb2, profiler_pb2

CLASS: Final = "cpu-test"
VARIANT: Final = "sha256:v"
CHUNK_S, STEP_S = 0.2, {1: 0.03, 4: 0.06}
IDLE_W, CORE_W = 2.4, 3.5
OUTPUT: Final = 10


def stored(**point: object) -> StoredProfiles:
    """One variant on one core of a two-core CPU."""
    recipe = compiler_pb2.Recipe(
        name="w4", prefill_chunks=[64], decode_batches=[1, 4], slots=4, context_buckets=[512]
    )  # fmt: skip
    variant = compiler_pb2.Variant(
        variant_id=VARIANT, name="w4", model_id="m", recipe=recipe, state=compiler_pb2.VARIANT_STATE_ADMITTED
    )  # fmt: skip
    profile = profiler_pb2.Profile(
        profile_id="p",
        point=common_pb2.OperatingPoint(
            variant_id=VARIANT, device_class=CLASS, partition_kind="cpu/1", batch_limit=4, **point
        ),
        model_id="m",
        loads=[_load(32, 1), _load(128, 1), _load(32, 4)],
        idle_power_mw=IDLE_W * 1e3,
        load_s=2.0,
    )
    device = node_pb2.Device(
        device_id="cpu0", device_class=CLASS, cpu_ids=[0, 1], memory_bytes=8 << 30, idle_power_mw=IDLE_W * 1e3
    )
    return StoredProfiles(compiler_pb2.Model(model_id="m", name="tiny"), (variant,), (profile,), (device,))


def _load(prompt: int, together: int) -> profiler_pb2.LoadPoint:
    """What a closed round of such an engine shows: each sequence meets the prompts of those behind it."""
    prefill_s = -(-prompt // 64) * CHUNK_S
    later = OUTPUT - 1
    tpot_s = STEP_S[together] + (together - 1) / 2.0 * prefill_s / later
    ttft_s = prefill_s if together == 1 else prefill_s * (together + 1) / 2.0 + STEP_S[together]
    prefill_mj, decode_mj = prefill_s * CORE_W * 1e3, later * STEP_S[together] * CORE_W * 1e3 / together
    energy = common_pb2.Energy(energy_mj=(prefill_mj + decode_mj) / OUTPUT, source=common_pb2.FIGURE_SOURCE_MODELLED)
    return profiler_pb2.LoadPoint(
        prompt_tokens=prompt,
        output_tokens=OUTPUT,
        concurrency=together,
        ttft=_stats(ttft_s),
        tpot=_stats(tpot_s),
        energy_per_token=energy,
        energy_per_prefill=common_pb2.Energy(energy_mj=prefill_mj, source=common_pb2.FIGURE_SOURCE_MODELLED),
        power_mw=(IDLE_W + CORE_W) * 1e3,
    )


def _stats(seconds: float) -> profiler_pb2.LatencyStats:
    ms = seconds * 1e3
    return profiler_pb2.LatencyStats(p50_ms=ms, p95_ms=ms, p99_ms=ms, mean_ms=ms, samples=3)
