"""A compiled tensor model, loaded: outputs for inputs of one function's sizes. No batching, no queue."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from services.node_agent.replica.loading import load_module
from services.node_agent.replica.verified_files import loader_path, seal_checked
from tradewind.domain.errors import WrongAnswer
from tradewind.domain.infer_manifest import InferFunction, InferManifest
from tradewind.domain.padding import Array, extent_of, stack, unstack
from tradewind.iree_arrays import to_host

_PARTS: Final = ("in", "out")


class InferModel(Protocol):
    """What the engine drives. Calls come from one thread."""

    def infer(self, function: InferFunction, inputs: Sequence[Array]) -> list[Array]:
        """Outputs for inputs of the function's sizes."""


class IreeInferModel:
    """A module in memory."""

    def __init__(self, manifest: InferManifest, artifacts: Path, threads: int) -> None:
        """Checks and maps the files of a variant; see `load_module`."""
        module = load_module(manifest, artifacts, threads)
        self._functions = {f.name: module[f.name] for f in manifest.functions}

    def infer(self, function: InferFunction, inputs: Sequence[Array]) -> list[Array]:
        """See `InferModel`."""
        answer = self._functions[function.name](*inputs)
        # A copy: what the runtime gives lies in the device's memory and is written again by the next call.
        return [np.array(to_host(output)) for output in (answer if isinstance(answer, list | tuple) else [answer])]


def check_infer_canary(model: InferModel, manifest: InferManifest, artifacts: Path) -> None:
    """Warms every function, and asks the canary. A variant that was never checked has none.

    Raises:
        ArtifactRejected: the canary's file is not what the manifest says.
        WrongAnswer: the answer is another one.
    """
    for function in manifest.functions:
        model.infer(
            function, stack(manifest.inputs, [_zeros(manifest, function)], function.batch or 1, function.length)
        )
    if manifest.canary is None:
        return
    descriptor = seal_checked(artifacts / manifest.canary.digest.removeprefix("sha256:"), manifest.canary)
    try:
        sample, wanted = _read(loader_path(descriptor))
    finally:
        os.close(descriptor)
    extent = extent_of(manifest.inputs, sample)
    function = next(
        f for f in manifest.functions if f.length == extent.length or (manifest.mask and f.length >= extent.length)
    )
    answers = model.infer(function, stack(manifest.inputs, [sample], function.batch or 1, function.length))
    got = unstack(manifest.outputs, answers, [extent])[0]
    for spec, array in zip(manifest.outputs, got, strict=True):
        error = _relative_error(array, wanted[spec.name])
        if not error <= manifest.canary_error:
            raise WrongAnswer(
                f"the canary's {spec.name} differs from the admitted one by {error:.2g} (relative, at most "
                f"{manifest.canary_error:g}): this device or driver computes something else; build the variant for it"
            )


def _zeros(manifest: InferManifest, function: InferFunction) -> dict[str, Array]:
    return {spec.name: np.zeros(spec.sized(1, function.length), NUMPY[spec.dtype]) for spec in manifest.inputs}


def _read(path: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """The canary's first sample and its answer: tensors "0|in|NAME" and "0|out|NAME" in safetensors."""
    from safetensors.numpy import load

    tensors: dict[str, Any] = load(Path(path).read_bytes())
    parts = [{key.split("|", 2)[2]: t for key, t in tensors.items() if key.startswith(f"0|{part}|")} for part in _PARTS]
    return parts[0], parts[1]


def _relative_error(got: Array, wanted: Array) -> float:
    """L2 norm of the difference over that of what is wanted; infinite for what is no number."""
    if got.shape != wanted.shape or not np.isfinite(got.astype(np.float64)).all():
        return float("inf")
    scale = float(np.linalg.norm(wanted.astype(np.float64)))
    return float(np.linalg.norm(got.astype(np.float64) - wanted.astype(np.float64))) / (scale or 1.0)


NUMPY: Final[dict[str, Any]] = {
    "bool": np.bool_, "i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16, "i32": np.int32,
    "u32": np.uint32, "i64": np.int64, "u64": np.uint64, "f16": np.float16, "f32": np.float32, "f64": np.float64,
}  # fmt: skip
