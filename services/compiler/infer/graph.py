"""A PyTorch module that maps tensors to tensors, with its signature, and its export to MLIR. Knows no source format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from iree.turbine.aot.compiled_module import ExportTargetDef

from services.compiler.export.shapes import WEIGHTS_SCOPE
from services.compiler.infer.samples import Sample, make_samples, numpy_type
from services.compiler.infer.shapes import InferShapes
from services.compiler.kernels.lowering import lower_kernels
from tradewind.domain.errors import UnsupportedModel
from tradewind.domain.tensors import BATCH, LENGTH, TensorSpec

DTYPES: Final = {
    torch.bool: "bool", torch.int8: "i8", torch.uint8: "u8", torch.int16: "i16", torch.int32: "i32",
    torch.int64: "i64", torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64",
}  # fmt: skip
# Two sizes of each open dimension tell it from fixed ones; all different, and below any model's longest sample.
_PROBES: Final = ((2, 7), (3, 11))


@dataclass(frozen=True, slots=True)
class Graph:
    """A module and what it takes and gives.

    Attributes:
        module: takes tensors in the order of `inputs`, gives a tuple in that of `outputs`.
        inputs: what it takes.
        outputs: what it gives.
        integers: by input, below which its integers are.
        longest: sample it takes; 0 when it does not say.
    """

    module: torch.nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    integers: Mapping[str, int]
    longest: int


def describe(
    module: torch.nn.Module,
    inputs: Sequence[TensorSpec],
    names: Sequence[str],
    integers: Mapping[str, int],
    longest: int = 0,
) -> Graph:
    """A module with its outputs described, which is found out by asking it twice.

    Args:
        module: to describe.
        inputs: what it takes.
        names: of its outputs.
        integers: by input, below which its integers are.
        longest: sample it takes.

    Raises:
        UnsupportedModel: an output's size follows from something else than the batch and the samples' length.
    """
    probes = [(batch, min(length, longest or length)) for batch, length in _PROBES]
    answers = [ask(module, inputs, _widened(inputs, batch, length, integers)) for batch, length in probes]
    outputs = []
    for index, name in enumerate(names):
        sizes = [_size(name, pair, probes) for pair in zip(*(a[index].shape for a in answers), strict=True)]
        outputs.append(TensorSpec(name, DTYPES[answers[0][index].dtype], tuple(sizes)))
    return Graph(module, tuple(inputs), tuple(outputs), integers, longest)


def ask(module: torch.nn.Module, inputs: Sequence[TensorSpec], sample: Sample) -> tuple[torch.Tensor, ...]:
    """The module's answer to a sample."""
    with torch.no_grad():
        answer = module(*(torch.from_numpy(sample[spec.name]) for spec in inputs))
    return answer if isinstance(answer, tuple) else (answer,)


def export_graph(graph: Graph, shapes: InferShapes, path: Path, report: Callable[[str, float], None]) -> None:
    """Writes MLIR (bytecode) with one function for each size, weights by name in scope WEIGHTS_SCOPE."""
    from iree.turbine import aot
    from iree.turbine.aot.decompositions import current_aot_decompositions
    from iree.turbine.aot.fx_programs import FxPrograms

    module = graph.module
    aot.externalize_module_parameters(module, external_scope=WEIGHTS_SCOPE)
    programs: Any = FxPrograms()  # type: ignore[no-untyped-call]
    for index, function in enumerate(shapes.functions):
        report(function.name, (index + 1) / (len(shapes.functions) + 1))
        sizes = [spec.sized(function.batch or 1, function.length) for spec in graph.inputs]
        zeros = tuple(torch.from_numpy(_zeros(spec, size)) for spec, size in zip(graph.inputs, sizes, strict=True))
        with torch.no_grad():
            program = torch.export.export(module, zeros, strict=False)
            program = program.run_decompositions(current_aot_decompositions() or {})
        programs.programs[function.name] = ExportTargetDef(program)
    exported = aot.export(programs)
    lower_kernels(exported.mlir_module)
    exported.save_mlir(str(path))


def _zeros(spec: TensorSpec, sizes: tuple[int, ...]) -> Any:
    import numpy as np

    return np.zeros(sizes, numpy_type(spec.dtype))


def _widened(inputs: Sequence[TensorSpec], batch: int, length: int, integers: Mapping[str, int]) -> Sample:
    """A sample repeated along the batch."""
    import numpy as np

    sample = make_samples(inputs, length, integers)[0]
    return {
        spec.name: np.repeat(sample[spec.name], batch, 0) if spec.shape[:1] == (BATCH,) else sample[spec.name]
        for spec in inputs
    }


def _size(name: str, pair: Sequence[int], probes: Sequence[tuple[int, int]]) -> int | str:
    if len(set(pair)) == 1:
        return int(pair[0])
    for kind, wanted in ((BATCH, [batch for batch, _ in probes]), (LENGTH, [length for _, length in probes])):
        if list(pair) == wanted:
            return kind
    raise UnsupportedModel(
        f"output {name!r} has sizes {list(pair)} for batches and lengths {list(probes)}; only outputs whose sizes are "
        "fixed, the batch or the length are supported"
    )
