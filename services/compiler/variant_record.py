"""What is said of a variant: its manifest, and its record in the contract's words. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from services.compiler.export.shapes import WEIGHTS_SCOPE
from services.compiler.infer.shapes import InferShapes
from services.compiler.infer.variant import infer_manifest, say_infer_quality
from services.compiler.order import Order
from services.compiler.quality.comparison import Figures
from services.compiler.quality.thresholds import judge
from services.compiler.toolchain import toolchain_versions
from tradewind.domain.infer_manifest import AnyManifest
from tradewind.domain.manifest import PICKS, Canary, FileRef, VariantManifest
from tradewind.domain.passes import DEVICE_SAMPLING
from tradewind.v1 import compiler_pb2


def manifest_of(
    order: Order,
    files: tuple[FileRef, tuple[FileRef, ...], FileRef | None],
    canary: Canary,
    memory_bytes: int,
) -> AnyManifest:
    """The manifest of an order's module; `canary` is of a generator, a tensor model's is one of the files."""
    model, shapes = order.model.model, order.shapes
    if isinstance(shapes, InferShapes):
        made = {
            "target": order.target.name,
            "compiled_target": order.target.resolved,
            "driver": order.target.driver,
            "toolchain": toolchain_versions(),
        }
        return infer_manifest(made, model, order.recipe, shapes, files, memory_bytes)
    code, weights, _ = files
    return VariantManifest(
        model_id=model.model_id,
        architecture=model.architecture,
        target=order.target.name,
        compiled_target=order.target.resolved,
        driver=order.target.driver,
        recipe=order.recipe,
        vocabulary_size=model.vocabulary_size,
        eos_token_ids=tuple(model.eos_token_ids),
        context_tokens=shapes.context_buckets[-1],
        cache_tokens=shapes.cache_tokens,
        slots=shapes.slots,
        module=code,
        weights=weights,
        weights_scope=WEIGHTS_SCOPE,
        functions=shapes.functions,
        canary=canary,
        memory_bytes=memory_bytes,
        toolchain=toolchain_versions(),
        picks=min(PICKS, model.vocabulary_size) if DEVICE_SAMPLING in order.recipe.passes else 0,
    )


def described(order: Order) -> compiler_pb2.Variant:
    variant = compiler_pb2.Variant(
        name=order.name,
        model_id=order.model.model.model_id,
        target=order.target.name,
        compiled_target=order.target.resolved,
        recipe=compiler_pb2.Recipe(**asdict(order.recipe)),
    )
    variant.create_time.GetCurrentTime()
    return variant


def say_quality(variant: compiler_pb2.Variant, checked: dict[str, Any] | None) -> None:
    if checked is None:
        variant.state = compiler_pb2.VARIANT_STATE_UNCHECKED
        variant.state_reason = f"no device for {variant.target} here; build it where there is one to have it checked"
        return
    if "error" in checked:
        say_infer_quality(variant, checked)
        return
    figures = Figures(**checked["figures"])
    verdict = judge(variant.recipe.precision, figures, checked["kl_by_function"])
    variant.state = compiler_pb2.VARIANT_STATE_ADMITTED if verdict.admitted else compiler_pb2.VARIANT_STATE_REJECTED
    variant.state_reason = verdict.why
    variant.failed_checks.extend(
        compiler_pb2.QualityCheck.Value(f"QUALITY_CHECK_{check.name}") for check in verdict.failed
    )
    variant.quality.CopyFrom(compiler_pb2.Quality(**asdict(figures)))


def failed_variant(order: Order, why: str) -> compiler_pb2.Variant:
    """A variant that could not be built, with the reason; not kept in the index, so that the next wish tries again."""
    variant = described(order)
    variant.variant_id = order.key
    variant.state = compiler_pb2.VARIANT_STATE_FAILED
    variant.state_reason = why
    return variant
