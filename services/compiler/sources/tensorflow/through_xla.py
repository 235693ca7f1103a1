"""The second way out of TensorFlow: its own XLA bridge writes a function as StableHLO, for operators that ONNX has not.

The program has fixed sizes: an open batch becomes one sample a call. Weights are constants in it.
See docs/adr/0055-tensorflow-through-xla.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from services.compiler.infer.answers import Answers
from services.compiler.infer.samples import make_samples
from services.compiler.infer.shapes import InferShapes
from services.compiler.sources.architectures import Task
from services.compiler.sources.mlir_program import check_program, without_locations
from services.compiler.sources.normal_form import PROGRAM
from services.compiler.sources.onnx.importing import Oracle, spec_facts
from services.compiler.sources.program import note_program
from tradewind.domain.errors import UnsupportedModel

Say = Callable[[str, float], None]
_STAGE: Final = "stablehlo_serialized"


def import_through_xla(
    tf: Any,
    concrete: Any,
    names: tuple[list[str], list[str]],
    oracle: Oracle,
    files: tuple[Path, Path, Path],
    say: Say,
) -> dict[str, Any]:
    """Keeps a function of TensorFlow as StableHLO, with TensorFlow's own answers; facts of the model.

    Args:
        tf: the module.
        concrete: the function.
        names: of its inputs and of its outputs, in order.
        oracle: answers of the source.
        files: the source, for messages; the folder to write to; the file of answers.
        say: hears stage and share.

    Raises:
        UnsupportedModel: open sizes beside the batch, or operators that XLA has not.
    """
    source, output, reference = files
    say("turning it into StableHLO", 0.3)
    data = without_locations(_stablehlo(tf, concrete, names[0], source))
    name, inputs, outputs = check_program(data, source)
    if (len(inputs), len(outputs)) != (len(names[0]), len(names[1])):
        raise UnsupportedModel(f"{source}: XLA leaves out an input or output; save it without those that are not used")
    inputs = tuple(replace(spec, name=name) for spec, name in zip(inputs, names[0], strict=True))
    outputs = tuple(replace(spec, name=name) for spec, name in zip(outputs, names[1], strict=True))
    output.mkdir(parents=True, exist_ok=True)
    (output / PROGRAM).write_bytes(data)
    say("asking the source for its answers", 0.7)
    samples = make_samples(inputs, 1, {})[:1]
    Answers(tuple(samples), tuple(oracle(sample) for sample in samples)).save(reference)
    return {
        "task": Task.INFER,
        "architecture": "TensorFlowProgram",
        "inputs": [spec_facts(spec) for spec in inputs],
        "outputs": [spec_facts(spec) for spec in outputs],
        "program": note_program(output, InferShapes((), (), name)),
    }


def _stablehlo(tf: Any, concrete: Any, names: list[str], source: Path) -> bytes:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = [_fixed(tf, spec, name, source) for spec, name in zip(concrete.inputs, names, strict=False)]
    try:
        frozen = convert_variables_to_constants_v2(concrete)
        function = tf.function(lambda *given: frozen(*given), input_signature=specs, jit_compile=True, autograph=False)
        zeros = [tf.zeros(spec.shape, spec.dtype) for spec in specs]
        data: bytes = function.experimental_get_compiler_ir(*zeros)(stage=_STAGE)
    except Exception as error:
        words = str(error).strip().splitlines()
        raise UnsupportedModel(
            f"{source} cannot be turned into StableHLO ({type(error).__name__}: {words[0][:200] if words else ''})"
        ) from error
    return data


def _fixed(tf: Any, tensor: Any, name: str, source: Path) -> Any:
    """The specification of an input, with one sample in an open batch."""
    sizes = tensor.shape.as_list() if tensor.shape.rank is not None else [None, None]
    fixed = [1, *sizes[1:]] if sizes[:1] == [None] else sizes
    if None in fixed:
        raise UnsupportedModel(
            f"{source}: input {name!r} has open sizes {sizes}, of which XLA takes the batch only; fix them in the "
            "signature that it is saved with"
        )
    return tf.TensorSpec(fixed, tensor.dtype, name=name)
