"""Runs every function of a tensor model's variant on its samples, as the engine does, and compares. No PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from services.compiler.export.shapes import WEIGHTS_SCOPE
from services.compiler.infer.answers import Answers
from services.compiler.infer.samples import Array, Sample
from tradewind.domain.infer_manifest import InferFunction
from tradewind.domain.padding import extent_of, stack, unstack
from tradewind.domain.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class InferEvaluation:
    """What a comparison found.

    Attributes:
        error: largest relative error (L2) of an output; infinite where it is no number.
        worst: function and output where it was.
        compared: answers compared.
        canary: some samples with the variant's own answers.
    """

    error: float
    worst: str
    compared: int
    canary: Answers


class InferSession:
    """A loaded module."""

    def __init__(
        self, module: Path, weights: Sequence[Path], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec],
        driver: str,
    ) -> None:  # fmt: skip
        """Maps the files into memory."""
        import iree.runtime as rt

        config = rt.Config(driver)
        index = rt.ParameterIndex()
        for path in weights:
            index.load(str(path), mmap=True)
        parameters = rt.create_io_parameters_module(config.vm_instance, index.create_provider(scope=WEIGHTS_SCOPE))
        code = rt.VmModule.mmap(config.vm_instance, str(module))
        self._module: Any = rt.load_vm_modules(parameters, code, config=config)[-1]
        self._inputs, self._outputs = inputs, outputs

    def run(self, function: InferFunction, samples: Sequence[Sample]) -> list[list[Array]]:
        """Answers to each of some samples, in one call."""
        extents = [extent_of(self._inputs, sample) for sample in samples]
        arrays = stack(self._inputs, samples, function.batch or 1, function.length)
        answer = self._module[function.name](*arrays)
        outputs = [np.asarray(a) for a in (answer if isinstance(answer, list | tuple) else [answer])]
        return unstack(self._outputs, outputs, extents)


def evaluate(
    session: InferSession,
    functions: Sequence[InferFunction],
    outputs: Sequence[TensorSpec],
    answers: Answers,
    fits: Callable[[InferFunction, Sample], bool],
    report: Callable[[float], None] = lambda _share: None,
) -> InferEvaluation:
    """Asks every function about every sample that fits it, as many together as it takes.

    Args:
        session: the variant.
        functions: its functions.
        outputs: what it gives.
        answers: of the source.
        fits: whether a function may be asked about a sample.
        report: hears the share done.
    """
    error, worst, compared, own = 0.0, "nothing compared", 0, dict[int, list[Array]]()
    for place, function in enumerate(functions):
        fitting = [i for i, sample in enumerate(answers.samples) if fits(function, sample)]
        if not fitting:
            error, worst = math.inf, f"{function.name} was not compared: no sample fits it"
        width = function.batch or 1
        for start in range(0, len(fitting), width):
            group = fitting[start : start + width]
            for index, answer in zip(group, session.run(function, [answers.samples[i] for i in group]), strict=True):
                own[index] = answer
                for spec, got in zip(outputs, answer, strict=True):
                    found = relative_error(got, answers.outputs[index][spec.name])
                    compared += 1
                    if not found <= error:
                        error, worst = found, f"{function.name} {spec.name}"
        report((place + 1) / len(functions))
    kept = sorted(own)[:1]
    canary = Answers(
        tuple(answers.samples[i] for i in kept),
        tuple({s.name: a for s, a in zip(outputs, own[i], strict=True)} for i in kept),
    )
    return InferEvaluation(error if compared else math.inf, worst, compared, canary)


def relative_error(got: Array, wanted: Array) -> float:
    """L2 norm of the difference over that of what is wanted; infinite for other sizes and for what is no number."""
    if got.shape != wanted.shape:
        return math.inf
    one, other = got.astype(np.float64), wanted.astype(np.float64)
    if not np.isfinite(one).all():
        return 0.0 if np.array_equal(one, other, equal_nan=True) else math.inf
    scale = float(np.linalg.norm(other))
    difference = float(np.linalg.norm(one - other))
    return difference / scale if scale else difference
