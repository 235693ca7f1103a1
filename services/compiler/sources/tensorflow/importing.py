"""From a SavedModel or a .keras archive to ONNX, and on from there; through XLA where ONNX lacks an operator.

What the source answers is asked of TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.compiler.sources.onnx.importing import Oracle, import_onnx
from services.compiler.sources.sidecar import SIDECARS
from services.compiler.sources.tensorflow.checks import check_folder_of_saved_model, check_keras, check_operators
from services.compiler.sources.tensorflow.through_xla import import_through_xla
from tradewind.domain.errors import BadModelSource, UnsupportedModel

Say = Callable[[str, float], None]
_OPSET: Final = 17
_SIGNATURE: Final = "serving_default"
# How inputs of a decoder with a cache begin; such a one generates, which a program of XLA does not.
_PAST: Final = "past_key_values"


@dataclass(frozen=True, slots=True)
class Callee:
    """A function of TensorFlow: its inputs' specs by name, and what it is called with by name."""

    specs: Mapping[str, Any]
    call: Callable[..., Mapping[str, Any]]


def import_saved_model(folder: Path, output: Path, reference: Path, say: Say) -> dict[str, Any]:
    """A SavedModel's serving signature; facts of the model.

    Raises:
        BadModelSource: damaged, links, or operators that reach out.
        UnsupportedModel: TensorFlow is not installed, no such signature, or operators that ONNX has not.
    """
    tf = _tensorflow()
    say("checking the graph", 0.05)
    check_folder_of_saved_model(folder)
    check_operators(_operators(folder), folder)
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:
        raise BadModelSource(f"{folder} cannot be read by TensorFlow ({_first(error)}); save it again") from error
    signature = getattr(loaded, "signatures", {}).get(_SIGNATURE)
    if signature is None:
        raise UnsupportedModel(f"{folder} has no signature {_SIGNATURE!r}; save it with one")
    callee = Callee(dict(signature.structured_input_signature[1]), signature)
    return _import(tf, callee, folder, output, reference, say)


def import_keras(path: Path, output: Path, reference: Path, say: Say) -> dict[str, Any]:
    """A Keras 3 archive; facts of the model.

    Raises:
        BadModelSource, UnsupportedModel: see `check_keras` and `import_saved_model`.
    """
    check_keras(path)
    tf = _tensorflow()
    import keras

    say("reading the model", 0.05)
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise BadModelSource(f"{path} cannot be read by Keras ({_first(error)}); save it again") from error
    specs = {i.name: tf.TensorSpec(i.shape, i.dtype, name=i.name) for i in model.inputs}
    names = list(getattr(model, "output_names", None) or [f"output_{at}" for at in range(len(model.outputs))])

    def call(**given: Any) -> dict[str, Any]:
        values = [given[name] for name in specs]
        answer = model(values[0] if len(values) == 1 else values, training=False)
        return dict(zip(names, answer if isinstance(answer, list | tuple) else [answer], strict=True))

    return _import(tf, Callee(specs, call), path, output, reference, say)


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    try:
        import tensorflow as tf
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UnsupportedModel(
            f"TensorFlow is not installed where the compiler runs ({error}); install tradewind[tensorflow]"
        ) from error
    return tf


def _operators(folder: Path) -> set[str]:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise BadModelSource(f"{folder}/saved_model.pb is damaged ({error}); save the model again") from error
    found: set[str] = set()
    for graph in saved.meta_graphs:
        found.update(node.op for node in graph.graph_def.node)
        for function in graph.graph_def.library.function:
            found.update(node.op for node in function.node_def)
    return found


def _import(tf: Any, callee: Callee, source: Path, output: Path, reference: Path, say: Say) -> dict[str, Any]:
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in callee.specs.items()]

    @tf.function(input_signature=specs)  # type: ignore[untyped-decorator]
    def called(*values: Any) -> Any:
        answer = callee.call(**dict(zip(callee.specs, values, strict=True)))
        return [answer[name] for name in sorted(answer)]

    names = sorted(_outputs_of(tf, callee))
    try:
        return _through_onnx(tf, called, callee, names, (source, output, reference), say)
    except UnsupportedModel as refused:
        if any(name.startswith(_PAST) for name in callee.specs):
            raise
        files, oracle = (source, output, reference), _oracle(tf, callee)
        try:
            return import_through_xla(tf, called.get_concrete_function(), ([*callee.specs], names), oracle, files, say)
        except UnsupportedModel as second:
            raise UnsupportedModel(f"{refused.message}; by the second way, {second.message}") from second


def _through_onnx(
    tf: Any, called: Any, callee: Callee, names: list[str], files: tuple[Path, Path, Path], say: Say
) -> dict[str, Any]:
    import tf2onnx

    source, output, reference = files
    say("turning it into ONNX", 0.2)
    path = output.parent / "converted" / "model.onnx"
    path.parent.mkdir(parents=True)
    try:
        model, _ = tf2onnx.convert.from_function(called, input_signature=called.input_signature, opset=_OPSET)
    except Exception as error:
        raise UnsupportedModel(f"{source} cannot be turned into ONNX ({_first(error)})") from error
    _fill(tf, called.get_concrete_function(), model.graph)
    _rename(model.graph, names)
    path.write_bytes(model.SerializeToString())
    for name in SIDECARS:
        beside = (source if source.is_dir() else source.parent) / name
        if beside.is_file() and not beside.is_symlink():
            (path.parent / name).write_bytes(beside.read_bytes())
    return import_onnx(path, output, reference, say, _oracle(tf, callee))


def _outputs_of(tf: Any, callee: Callee) -> list[str]:
    """Names of what a function gives, found by tracing it."""
    traced = tf.function(lambda **given: callee.call(**given)).get_concrete_function(
        **{name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in callee.specs.items()}
    )
    return list(traced.structured_outputs)


def _oracle(tf: Any, callee: Callee) -> Oracle:
    def ask(feeds: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: tf.constant(value) for name, value in feeds.items()}
        return {name: value.numpy() for name, value in callee.call(**given).items()}

    return ask


def _fill(tf: Any, concrete: Any, graph: Any) -> None:
    """Makes weights of what a function captured as constants, which tf2onnx leaves as inputs."""
    from onnx import numpy_helper

    captured = {placeholder.name: value for value, placeholder in concrete.graph.captures if value.dtype != tf.resource}
    for at in reversed(range(len(graph.input))):
        name = graph.input[at].name
        value = captured.get(name, captured.get(f"{name}:0"))
        if value is not None:
            graph.initializer.append(numpy_helper.from_array(value.numpy(), name))
            del graph.input[at]


def _rename(graph: Any, outputs: list[str]) -> None:
    """Gives inputs and outputs the names that TensorFlow's user knows, without its output numbers."""
    new = {value.name: value.name.removesuffix(":0") for value in graph.input}
    new.update(zip((value.name for value in graph.output), outputs, strict=True))
    for value in (*graph.input, *graph.output):
        value.name = new[value.name]
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
