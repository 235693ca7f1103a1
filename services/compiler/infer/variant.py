"""What of a build differs for tensor models: their functions, their manifest, their verdict. Compiles nothing."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from services.compiler.export.shapes import WEIGHTS_SCOPE
from services.compiler.infer.samples import mask_of
from services.compiler.infer.shapes import InferShapes, fit_shapes
from services.compiler.infer.thresholds import CANARY_ERROR, judge_infer
from services.compiler.passes.form import OF_TENSORS
from tradewind.domain.errors import InvalidField
from tradewind.domain.infer_manifest import InferManifest
from tradewind.domain.manifest import FileRef, RecipeFacts
from tradewind.domain.tensors import BATCH, LENGTH, TensorSpec
from tradewind.v1 import compiler_pb2

# Samples a call takes; one for the lone request, eight for a batch: each function costs compile time.
BATCHES: Final = (1, 8)
# Lengths a call takes: short texts must not pay for long ones.
LENGTHS: Final = (32, 128, 512)
# Without a mask nothing can be padded, so that a function takes its very length; these were asked about at import.
EXACT_LENGTHS: Final = (32, 128)
CANARY: Final = "canary.safetensors"


def specs(messages: Any) -> tuple[TensorSpec, ...]:
    """Tensors as the contract has them: -1 is the batch in the first place and the length elsewhere."""
    return tuple(
        TensorSpec(
            m.name, m.dtype, tuple(int(s) if s >= 0 else BATCH if at == 0 else LENGTH for at, s in enumerate(m.shape))
        )
        for m in messages
    )


def infer_facts_of(facts: RecipeFacts, model: compiler_pb2.Model, wanted_length: int) -> RecipeFacts:
    """A recipe of the book, cut to a tensor model: batches and lengths in place of chunks and contexts.

    Args:
        facts: fitted to the target.
        model: of MODEL_TASK_INFER.
        wanted_length: longest sample asked for; 0 for the recipe's choice.

    Raises:
        InvalidField: a length for a model that cannot be compared at it.
    """
    inputs = specs(model.inputs)
    if not mask_of(inputs):
        if wanted_length:
            raise InvalidField("context_tokens", "this model takes no mask, so that it has fixed lengths; leave it out")
        return _fitted(facts, model, EXACT_LENGTHS)
    lengths = (*(length for length in LENGTHS if length < wanted_length), wanted_length) if wanted_length else LENGTHS
    return _fitted(facts, model, lengths)


def _fitted(facts: RecipeFacts, model: compiler_pb2.Model, lengths: tuple[int, ...]) -> RecipeFacts:
    shapes = fit_shapes(specs(model.inputs), BATCHES, lengths, model.context_tokens)
    passes = tuple(name for name in facts.passes if name in OF_TENSORS)
    return replace(
        facts,
        passes=passes,
        prefill_chunks=(),
        decode_batches=shapes.batches,
        context_buckets=shapes.lengths,
        slots=max(shapes.batches, default=1),
        tuning=(),
    )


def shapes_of(recipe: RecipeFacts) -> InferShapes:
    """The functions that a fitted recipe means."""
    return InferShapes(recipe.decode_batches, recipe.context_buckets)


def infer_manifest(
    facts: dict[str, Any],
    model: compiler_pb2.Model,
    recipe: RecipeFacts,
    shapes: InferShapes,
    files: tuple[FileRef, tuple[FileRef, ...], FileRef | None],
    memory_bytes: int,
) -> InferManifest:
    """The manifest of a variant.

    Args:
        facts: target, compiled_target, driver and toolchain.
        model: of MODEL_TASK_INFER.
        recipe: it was made with.
        shapes: functions it has.
        files: module, weights, canary.
        memory_bytes: that a replica needs.
    """
    module, weights, canary = files
    inputs = specs(model.inputs)
    return InferManifest(
        model_id=model.model_id,
        architecture=model.architecture,
        recipe=recipe,
        inputs=inputs,
        outputs=specs(model.outputs),
        mask=mask_of(inputs),
        module=module,
        weights=weights,
        weights_scope=WEIGHTS_SCOPE,
        functions=shapes.functions,
        canary=canary,
        canary_error=CANARY_ERROR,
        memory_bytes=memory_bytes,
        **facts,
    )


def infer_check(model: compiler_pb2.Model, canary: Path) -> dict[str, Any]:
    """What a comparison job of a tensor model is told beside the usual: its tensors, and where its canary goes."""
    inputs = specs(model.inputs)
    return {
        "inputs": [asdict(spec) for spec in inputs],
        "outputs": [asdict(spec) for spec in specs(model.outputs)],
        "mask": mask_of(inputs),
        "canary": str(canary),
    }


def say_infer_quality(variant: compiler_pb2.Variant, checked: dict[str, Any]) -> None:
    """Writes the verdict and its figures into a variant."""
    precision = variant.recipe.precision
    error, compared = float(checked["error"]), int(checked["compared"])
    admitted, variant.state_reason = judge_infer(precision, error, checked["worst"], compared)
    variant.state = compiler_pb2.VARIANT_STATE_ADMITTED if admitted else compiler_pb2.VARIANT_STATE_REJECTED
    variant.quality.relative_error = error
    variant.quality.positions = compared
