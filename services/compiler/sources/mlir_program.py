"""MLIR as a model: StableHLO, torch, linalg and tensor, as text or bytecode, one function of fixed sizes.

MLIR can name files and native code (`hal.executable.object`, `flow.dispatch` with objects). Only dialects that compute
are let in, and none of their attributes may name a file.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from services.compiler.infer.answers import Answers
from services.compiler.infer.evaluation import InferSession
from services.compiler.infer.samples import make_samples
from services.compiler.infer.shapes import InferShapes
from services.compiler.sources.architectures import Task
from services.compiler.sources.normal_form import PROGRAM
from services.compiler.sources.onnx.importing import spec_facts
from services.compiler.sources.program import note_program
from services.compiler.toolchain import find_iree_compile
from tradewind.domain.errors import BadModelSource, UnsupportedModel
from tradewind.domain.tensors import TensorSpec

Say = Callable[[str, float], None]

# Dialects that compute and touch nothing else.
_COMPUTING: Final = frozenset(
    [
        "affine",
        "arith",
        "builtin",
        "cf",
        "chlo",
        "complex",
        "func",
        "linalg",
        "math",
        "ml_program",
        "quant",
        "scf",
        "shape",
        "stablehlo",
        "tensor",
        "torch",
        "torch_c",
        "tosa",
        "vector",
    ]
)
_IREES: Final = ("#flow", "#hal", "#io_parameters", "#iree", "#rocm", "#stream", "#util", "#vm")
_MOST_BYTES: Final = 1 << 31
_MOST_ELEMENTS: Final = 1 << 32
_TENSOR: Final = re.compile(r"tensor<((?:\d+x)*)(\w+)>")
_TORCH_TENSOR: Final = re.compile(r"!torch\.vtensor<\[([\d,]*)\],(\w+)>")
_DTYPES: Final = {
    "i1": "bool", "i8": "i8", "si8": "i8", "ui8": "u8", "i16": "i16", "si16": "i16", "ui16": "u16", "i32": "i32",
    "si32": "i32", "ui32": "u32", "i64": "i64", "si64": "i64", "ui64": "u64", "f16": "f16", "f32": "f32", "f64": "f64",
}  # fmt: skip
# IREE's portable interpreter, unoptimised: what the same program gives on the way that shares least with a variant's.
_PLAIN: Final = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=vmvx",
    "--iree-opt-level=O0",
)
_COMPILE_S: Final = 600


def import_mlir(path: Path, output: Path, reference: Path, say: Say) -> dict[str, Any]:
    """Checks and keeps a program, and lets IREE's interpreter answer; facts of the model.

    Raises:
        BadModelSource: no MLIR, or MLIR that reaches out.
        UnsupportedModel: not one function of fixed sizes.
    """
    say("reading the program", 0.05)
    data = _bytes_of(path)
    name, inputs, outputs = check_program(data, path)
    output.mkdir(parents=True, exist_ok=True)
    (output / PROGRAM).write_bytes(data)
    say("asking IREE's interpreter for its answers", 0.3)
    shapes = InferShapes((), (), name)
    samples = make_samples(inputs, 1, {})[:1]
    session = InferSession(_interpreted(output / PROGRAM, reference.parent), [], inputs, outputs, "local-task")
    answers = session.run(shapes.functions[0], samples)[0]
    named = {spec.name: array for spec, array in zip(outputs, answers, strict=True)}
    Answers(tuple(samples), (named,)).save(reference)
    return {
        "task": Task.INFER,
        "architecture": "MlirProgram",
        "inputs": [spec_facts(spec) for spec in inputs],
        "outputs": [spec_facts(spec) for spec in outputs],
        "program": note_program(output, shapes),
    }


def _bytes_of(path: Path) -> bytes:
    if path.stat().st_size > _MOST_BYTES:
        raise BadModelSource(f"{path} has {path.stat().st_size} bytes, more than {_MOST_BYTES}")
    return path.read_bytes()


def check_program(data: bytes, path: Path) -> tuple[str, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Name, inputs and outputs of the one function of a program, text or bytecode.

    Raises:
        BadModelSource: no MLIR, or MLIR that reaches out.
        UnsupportedModel: not one function of fixed sizes.
    """
    from iree.compiler import ir

    with ir.Context():
        try:
            module = ir.Module.parse(data)
        except (ir.MLIRError, ValueError) as error:
            first = str(error).strip().splitlines()
            raise BadModelSource(f"{path} is no MLIR that IREE reads: {' '.join(first[:2])[:300]}") from error
        entries = []
        for operation in _operations(module.operation):
            _check_operation(operation, path)
            if operation.name == "func.func" and "sym_visibility" not in operation.attributes:
                entries.append(operation)
        if len(entries) != 1:
            raise UnsupportedModel(f"{path} has {len(entries)} public functions; exactly one is taken")
        name = ir.StringAttr(entries[0].attributes["sym_name"]).value
        kind = ir.FunctionType(ir.TypeAttr(entries[0].attributes["function_type"]).value)
        inputs = tuple(_spec(f"input_{at}", str(t), path) for at, t in enumerate(kind.inputs))
        return name, inputs, tuple(_spec(f"output_{at}", str(t), path) for at, t in enumerate(kind.results))


def without_locations(data: bytes) -> bytes:
    """A program as text, without the places in its maker's files that each operation remembers."""
    from iree.compiler import ir

    with ir.Context():
        return ir.Module.parse(data).operation.get_asm(enable_debug_info=False).encode()  # type: ignore[no-any-return]


def _operations(operation: Any) -> Iterator[Any]:
    yield operation
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield from _operations(inner.operation)


def _check_operation(operation: Any, path: Path) -> None:
    dialect = operation.name.split(".")[0]
    if dialect not in _COMPUTING:
        raise BadModelSource(
            f"{path} uses {operation.name}, which can reach beyond the computation; dialects taken are "
            f"{', '.join(sorted(_COMPUTING))}"
        )
    for name in operation.attributes:
        attribute = operation.attributes[name] if isinstance(name, str) else name.attr
        if _is_irees(attribute):
            raise BadModelSource(f"{path}: {operation.name} carries {attribute}, which is IREE's own; leave it out")


def _is_irees(attribute: Any) -> bool:
    """Whether an attribute, or one inside it, is of a dialect of IREE's; these can name files."""
    from iree.compiler import ir

    if isinstance(attribute, ir.ArrayAttr):
        return any(map(_is_irees, attribute))
    if isinstance(attribute, ir.DictAttr):
        return any(_is_irees(named.attr) for named in attribute)
    # Weights have no attributes inside, and gigabytes as text.
    return not isinstance(attribute, ir.DenseElementsAttr) and str(attribute).startswith(_IREES)


def _spec(name: str, text: str, path: Path) -> TensorSpec:
    plain, torch_form = _TENSOR.fullmatch(text), _TORCH_TENSOR.fullmatch(text)
    if plain:
        sizes, kind = [int(s) for s in plain[1].split("x") if s], plain[2]
    elif torch_form:
        sizes, kind = [int(s) for s in torch_form[1].split(",") if s], torch_form[2]
    else:
        raise UnsupportedModel(f"{path}: {name} is {text}; only tensors of fixed sizes are taken")
    elements = 1
    for size in sizes:
        elements *= size
    if kind not in _DTYPES or not 0 < elements <= _MOST_ELEMENTS:
        raise UnsupportedModel(f"{path}: {name} is {text}, of a type or size that is not taken")
    return TensorSpec(name, _DTYPES[kind], tuple(sizes))


def _interpreted(program: Path, folder: Path) -> Path:
    made = folder / "interpreted.vmfb"
    command = [find_iree_compile(), str(program), *_PLAIN, "-o", str(made)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
    if ended.returncode != 0:
        errors = [line for line in ended.stderr.splitlines() if "error:" in line] or ended.stderr.splitlines()[:1]
        raise UnsupportedModel(f"IREE cannot compile this program: {' '.join(errors[:1])[:300]}")
    return made
