"""Forms that become tensor models, each against its source: MLIR of three kinds, .pt2, Keras, an 8-bit ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.compiler.infer.answers import Answers
from services.compiler.infer.evaluation import InferSession, relative_error
from services.compiler.infer.graph import ask
from services.compiler.infer.shapes import InferShapes
from services.compiler.jobs.limits import JobLimits
from services.compiler.sources.detection import Form, detect
from services.compiler.sources.mlir_program import _interpreted, import_mlir
from services.compiler.sources.normal_form import PROGRAM, load_graph
from services.compiler.sources.onnx.importing import import_onnx
from services.compiler.sources.torch_module import import_pt2
from services.compiler.workshop import Workshop
from tradewind.domain.errors import UnsupportedModel
from tradewind.domain.tensors import TensorSpec
from tradewind.v1 import compiler_pb2

ADD_STABLEHLO = """func.func @main(%a: tensor<2x3xf32>, %b: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = stablehlo.add %a, %b : tensor<2x3xf32>
  return %0 : tensor<2x3xf32>
}"""
ADD_TORCH = """!t = !torch.vtensor<[2,3],f32>
func.func @main(%a: !t, %b: !t) -> !t {
  %one = torch.constant.int 1
  %0 = torch.aten.add.Tensor %a, %b, %one : !t, !t, !torch.int -> !t
  return %0 : !t
}"""
ADD_LINALG = """#map = affine_map<(i, j) -> (i, j)>
func.func @main(%a: tensor<2x3xf32>, %b: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %e = tensor.empty() : tensor<2x3xf32>
  %0 = linalg.generic {indexing_maps = [#map, #map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%a, %b : tensor<2x3xf32>, tensor<2x3xf32>) outs(%e : tensor<2x3xf32>) {
    ^bb0(%x: f32, %y: f32, %z: f32):
      %s = arith.addf %x, %y : f32
      linalg.yield %s : f32
  } -> tensor<2x3xf32>
  return %0 : tensor<2x3xf32>
}"""


def quiet(_stage: str, _share: float) -> None:
    pass


@pytest.mark.parametrize("name", ["m.mlirbc", "m.mlir"])
@pytest.mark.parametrize("text", [ADD_STABLEHLO, ADD_TORCH, ADD_LINALG], ids=["stablehlo", "torch", "linalg"])
def test_mlir_adds(text: str, name: str, tmp_path: Path) -> None:
    """As bytecode and as text."""
    from iree.compiler import ir

    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    if path.suffix == ".mlirbc":
        with ir.Context(), path.open("wb") as file:
            ir.Module.parse(text).operation.write_bytecode(file)
    assert detect(path) == (Form.MLIR, path)
    facts = import_mlir(path, tmp_path / "out", tmp_path / "answers", quiet)
    assert facts["program"] == {"batches": (), "lengths": (), "fixed": "main"}
    answers = Answers.load(tmp_path / "answers")
    sample, output = answers.samples[0], answers.outputs[0]
    assert np.allclose(output["output_0"], sample["input_0"] + sample["input_1"])


def test_a_pt2_becomes_a_program_for_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    torch.export.save(torch.export.export(model, (torch.randn(2, 8),), strict=False), tmp_path / "net.pt2")
    facts = import_pt2(tmp_path / "net.pt2", tmp_path / "out", tmp_path / "answers", quiet)
    fixed = facts["program"]["batches"] == ()
    shapes = InferShapes(tuple(facts["program"]["batches"]), (), "")
    inputs = [TensorSpec(t["name"], t["dtype"], (2, 8) if fixed else ("batch", 8)) for t in facts["inputs"]]
    outputs = [TensorSpec(t["name"], t["dtype"], (2, 4) if fixed else ("batch", 4)) for t in facts["outputs"]]
    module = _interpreted(tmp_path / "out" / PROGRAM, tmp_path)
    session = InferSession(module, [tmp_path / "out" / "program.irpa"], inputs, outputs, "local-task")
    x = np.random.default_rng(0).standard_normal((2 if fixed else 1, 8)).astype(np.float32)
    got = session.run(shapes.functions[0], [{inputs[0].name: x}])[0][0]
    with torch.no_grad():
        assert np.abs(got - model(torch.from_numpy(x)).numpy()).max() < 1e-5


MODULE = """
import torch
from net.parts import WEIGHTS

class Scales(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(WEIGHTS))

    def forward(self, image):
        return image * self.weights

def build():
    return Scales()

def example_inputs():
    return (torch.ones(2, 3),)
"""


async def test_a_trusted_module_by_its_import_path(tmp_path: Path) -> None:
    package = tmp_path / "code" / "net"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "parts.py").write_text("WEIGHTS = [2.0, -3.0, 0.5]")
    (package / "model.py").write_text(MODULE)
    workshop = Workshop(tmp_path / "state", JobLimits(time_s=120, memory_bytes=6 << 30))
    try:
        stored = await workshop.importer.import_model(tmp_path / "code::net.model:build", quiet, trust=True)
        model = stored.model
        assert (model.format, model.task) == (compiler_pb2.MODEL_FORMAT_PYTORCH, compiler_pb2.MODEL_TASK_INFER)
        assert model.architecture == "Scales"
        assert [t.name for t in model.inputs] == ["image"]
        answers = Answers.load(workshop.blobs.existing(stored.reference))
    finally:
        workshop.close()
    for sample, output in zip(answers.samples, answers.outputs, strict=True):
        assert np.allclose(output["output_0"], sample["image"] * np.array([2.0, -3.0, 0.5], np.float32))


def graph_answers(folder: Path, reference: Path) -> list[tuple[Any, Any]]:
    """What the stored graph and the source say to each sample."""
    graph = load_graph(folder, "f32", narrow=False)
    answers = Answers.load(reference)
    pairs = []
    for sample, wanted in zip(answers.samples, answers.outputs, strict=True):
        got = ask(graph.module, graph.inputs, sample)
        pairs += [(tensor.numpy(), wanted[spec.name]) for spec, tensor in zip(graph.outputs, got, strict=True)]
    return pairs


def test_a_keras_network_of_convolutions(tmp_path: Path) -> None:
    import keras

    from services.compiler.sources.tensorflow.importing import import_keras

    keras.utils.set_random_seed(0)
    parts = [
        keras.Input((8, 8, 3), name="image"),
        keras.layers.Conv2D(4, 3, strides=2, activation="relu", padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(5, activation="softmax"),
    ]
    keras.Sequential(parts).save(tmp_path / "cnn.keras")
    facts = import_keras(tmp_path / "cnn.keras", tmp_path / "out", tmp_path / "answers", quiet)
    assert [(t["name"], t["shape"]) for t in facts["inputs"]] == [("image", [-1, 8, 8, 3])]
    for got, wanted in graph_answers(tmp_path / "out", tmp_path / "answers"):
        assert relative_error(got, wanted) < 1e-5


def test_what_onnx_lacks_goes_through_xla_with_its_names_and_answers(tmp_path: Path) -> None:
    import tensorflow as tf

    from services.compiler.sources.tensorflow.importing import import_saved_model

    tf.random.set_seed(0)
    module = tf.Module()
    module.weight = tf.Variable(tf.random.normal([4, 3]))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def run(x: Any) -> dict[str, Any]:
        product = tf.matmul(x, module.weight)
        return {"gamma": tf.math.lgamma(tf.abs(product) + 1), "also": product}

    module.run = run
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": run})
    facts = import_saved_model(tmp_path / "saved", tmp_path / "out", tmp_path / "answers", quiet)
    assert facts["architecture"] == "TensorFlowProgram"
    assert [(t["name"], t["shape"]) for t in facts["inputs"]] == [("x", [1, 4])]
    program = (tmp_path / "out" / PROGRAM).read_text(encoding="utf-8")
    assert "stablehlo." in program and ".py" not in program, "no places of anybody's files"
    answers = Answers.load(tmp_path / "answers")
    outputs = [TensorSpec(t["name"], "f32", (1, 3)) for t in facts["outputs"]]
    inputs = [TensorSpec("x", "f32", (1, 4))]
    session = InferSession(_interpreted(tmp_path / "out" / PROGRAM, tmp_path), [], inputs, outputs, "local-task")
    got = session.run(InferShapes((), (), facts["program"]["fixed"]).functions[0], list(answers.samples))[0]
    for spec, array in zip(outputs, got, strict=True):
        assert relative_error(array, answers.outputs[0][spec.name]) < 1e-5


def test_what_neither_way_takes_is_refused_with_both_reasons(tmp_path: Path) -> None:
    import tensorflow as tf

    from services.compiler.sources.tensorflow.importing import import_saved_model

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([3, None], tf.float32, name="x")])
    def run(x: Any) -> dict[str, Any]:
        return {"y": tf.math.lgamma(x)}

    module.run = run
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": run})
    with pytest.raises(UnsupportedModel, match=r"Lgamma.*second way.*'x' has open sizes \[3, None\].*fix them"):
        import_saved_model(tmp_path / "saved", tmp_path / "out", tmp_path / "answers", quiet)
    assert not (tmp_path / "out" / PROGRAM).exists()


def test_an_8_bit_graph(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    weight = numpy_helper.from_array(draw.integers(-127, 128, (16, 4)).astype(np.int8), "w")
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "scale"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("x", 16), ("y", 4))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    import_onnx(tmp_path / "m.onnx", tmp_path / "out", tmp_path / "answers", quiet)
    for got, wanted in graph_answers(tmp_path / "out", tmp_path / "answers"):
        assert relative_error(got, wanted) < 1e-5


@pytest.mark.parametrize("operator", ["QLinearMatMul", "QLinearConv"])
def test_8_bit_operators_round_as_the_standard_says(operator: str, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    convolves = operator == "QLinearConv"
    shape = (4, 3, 3, 3) if convolves else (16, 4)
    known = {
        "a_scale": np.float32(0.02), "a_zero": np.uint8(120), "w": draw.integers(-127, 128, shape).astype(np.int8),
        "w_scale": draw.uniform(0.01, 0.02, 4).astype(np.float32), "w_zero": np.zeros(4, np.int8),
        "y_scale": np.float32(0.1), "y_zero": np.uint8(128),
    }  # fmt: skip
    given = ["q", "a_scale", "a_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
    if convolves:
        known["bias"] = draw.integers(-500, 500, 4).astype(np.int32)
        given.append("bias")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "a_scale", "a_zero"], ["q"]),
        helper.make_node(operator, given, ["sum"], **({"pads": [1, 1, 1, 1]} if convolves else {})),
        helper.make_node("DequantizeLinear", ["sum", "y_scale", "y_zero"], ["y"]),
    ]
    sizes = (["batch", 3, 6, 6], ["batch", 4, 6, 6]) if convolves else (["batch", 16], ["batch", 4])
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip("xy", sizes, strict=True)]
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in known.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    import_onnx(tmp_path / "m.onnx", tmp_path / "out", tmp_path / "answers", quiet)
    for got, wanted in graph_answers(tmp_path / "out", tmp_path / "answers"):
        assert np.ptp(wanted) > 1
        assert np.abs(got - wanted).max() <= 0.1 + 1e-6, "one step at a tie at most"
        assert np.mean(got != wanted) < 0.02
