"""Hostile and broken sources: refused with a reason, nothing run, nothing written, nothing reached."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.compiler.jobs.limits import JobLimits
from services.compiler.sources.detection import Form, detect
from services.compiler.sources.front_ends import Import, bring
from services.compiler.workshop import Workshop
from tests.tiny_model import write_tiny_model
from tradewind.domain.errors import BadModelSource, TradewindError, UnsupportedModel, UntrustedSource

LIMITS = JobLimits(time_s=120, memory_bytes=6 << 30)


class Canary:
    """A file and a socket that nobody may touch."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "canary"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]

    def assert_untouched(self) -> None:
        assert not self.file.exists(), "the canary file was written"
        with pytest.raises(BlockingIOError):
            self.listener.accept()


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    made = Canary(tmp_path)
    yield made
    made.assert_untouched()
    made.listener.close()


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, canary: Canary) -> None:
        self._command = f"touch {canary.file}"

    def __reduce__(self) -> Any:
        return os.system, (self._command,)


def refused(source: Path, says: str, kind: type[TradewindError] = BadModelSource) -> None:
    """The source is refused, in the forms' own order, without a child."""
    output = source.parent / "output"
    with pytest.raises(kind, match=says):
        form, path = detect(source)
        output.parent.mkdir(exist_ok=True)
        bring(Import(form, path, output, source.parent / "reference", lambda _stage, _share: None))
    assert not output.exists(), "nothing half written"


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m.ckpt", "m.pkl", "m.joblib", "m.npy", "m.h5"])
def test_pickles_are_never_opened(name: str, canary: Canary, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Payload(canary)))
    refused(tmp_path / name, "runs code when it is read; convert it to safetensors", UnsupportedModel)


def test_a_folder_of_pickled_weights_is_refused(canary: Canary, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(canary)))
    refused(folder, "pickled weights only, which can run code when read")


def onnx_model(*, data_at: str | None = None, shape: tuple[int, ...] = (2, 2), **node: Any) -> Any:
    """x @ w, the weight perhaps in another file."""
    import onnx
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, (2, 2), np.eye(2, dtype=np.float32).tobytes(), raw=True)
    if data_at is not None:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": data_at, "offset": "0", "length": "16"}.items():
            weight.external_data.add(key=key, value=value)
    weight.dims[:] = shape
    kind = {"op_type": "MatMul", "inputs": ["x", "w"], "outputs": ["y"], **node}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(**kind)], "g", infos[:1], infos[1:], [weight])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    assert isinstance(model, onnx.ModelProto)
    return model


def _outside(folder: Path) -> Path:
    secret = folder.parent / "secret"
    secret.write_bytes(bytes(16))
    return secret


def _dot_dot(folder: Path) -> str:
    return f"../{_outside(folder).name}"


def _absolute(folder: Path) -> str:
    return str(_outside(folder))


def _symlink(folder: Path) -> str:
    (folder / "data").symlink_to(_outside(folder))
    return "data"


def _linked_folder(folder: Path) -> str:
    _outside(folder)
    (folder / "sub").symlink_to(folder.parent)
    return "sub/secret"


def _hard_link(folder: Path) -> str:
    (folder / "data").hardlink_to(_outside(folder))
    return "data"


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "data")
    return "data"


def _short(folder: Path) -> str:
    (folder / "data").write_bytes(bytes(9))
    return "data"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (_dot_dot, "outside of its folder; it is not read"),
        (_absolute, "outside of its folder; it is not read"),
        (_symlink, "missing or a link"),
        (_linked_folder, "missing or a link"),
        (_hard_link, r"other names \(hard links\)"),
        (_pipe, "no plain file"),
        (_short, "cut short: 'w' lacks 7 bytes"),
    ],
)
def test_external_data_is_read_from_plain_files_of_the_folder_only(
    place: Callable[[Path], str], says: str, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    model = onnx_model(data_at=place(folder))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    refused(folder, says)


def test_onnx_that_points_at_a_file_and_a_socket(canary: Canary, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    places = {
        str(canary.file): "outside of its folder",
        f"../{canary.file.name}": "outside of its folder",
        f"http://127.0.0.1:{canary.port}/w": "missing or a link",
    }
    for place, says in places.items():
        (folder / "model.onnx").write_bytes(onnx_model(data_at=place).SerializeToString())
        refused(folder, says)


@pytest.mark.parametrize(
    ("model", "says", "kind"),
    [
        (lambda: onnx_model(shape=(1 << 40, 1 << 40)), "absurd shape", BadModelSource),
        (lambda: onnx_model(shape=(-1, 2)), "absurd shape", BadModelSource),
        (lambda: onnx_model(shape=(3, 2)), "weight 'w' is damaged", BadModelSource),
        (
            lambda: onnx_model(op_type="FusedMatMul", domain="com.microsoft"),
            r"outside the ONNX standard: com\.microsoft\.FusedMatMul",
            UnsupportedModel,
        ),
        (lambda: onnx_model(op_type="Loop"), r"decides at run time what it runs \(Loop\)", UnsupportedModel),
        (
            lambda: onnx_model(op_type="StringNormalizer"),
            "operators StringNormalizer are not supported",
            UnsupportedModel,
        ),
    ],
)
def test_graphs_that_cannot_be_are_named(
    model: Callable[[], Any], says: str, kind: type[TradewindError], tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(model().SerializeToString())
    refused(tmp_path / "m.onnx", says, kind)


def test_damaged_onnx_and_weights_that_are_no_numbers(tmp_path: Path) -> None:
    whole = onnx_model()
    (tmp_path / "m.onnx").write_bytes(whole.SerializeToString()[:60])
    refused(tmp_path / "m.onnx", "is damaged")
    (tmp_path / "m.onnx").write_bytes(b"not onnx at all")
    refused(tmp_path / "m.onnx", "is damaged")
    whole.graph.initializer[0].raw_data = np.full((2, 2), np.nan, np.float32).tobytes()
    (tmp_path / "m.onnx").write_bytes(whole.SerializeToString())
    refused(tmp_path / "m.onnx", "w holds values that are not finite")


def keras_archive(path: Path, config: Any, **members: bytes) -> Path:
    """A .keras archive by hand."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", members.pop("weights", b""))
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def layer(class_name: str, module: str = "keras.layers", **config: Any) -> dict[str, Any]:
    inner = {"class_name": class_name, "module": module, "config": config}
    return {"class_name": "Sequential", "module": "keras", "config": {"layers": [inner]}}


def test_keras_archives_that_run_code_or_lead_out(canary: Canary, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAAAA"}}
    refused(keras_archive(path, layer("Lambda", function=code)), "a Lambda layer, which runs code", UnsupportedModel)
    refused(keras_archive(path, layer("TFSMLayer", filepath="/x")), "a TFSMLayer layer", UnsupportedModel)
    refused(keras_archive(path, layer("Evil", "os")), "not Keras's own and is not loaded", UnsupportedModel)
    refused(keras_archive(path, layer("Dense"), **{"../evil": b""}), "leads out of it")
    refused(keras_archive(path, layer("Dense"), weights=bytes(64 << 20)), "a zip bomb")
    path.write_bytes(path.read_bytes()[:500])
    refused(path, "is no Keras 3 archive or is damaged")


def test_saved_models_that_call_python_or_link_out(tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    folder = tmp_path / "m"
    folder.mkdir()
    saved = saved_model_pb2.SavedModel()
    saved.meta_graphs.add().graph_def.library.function.add().node_def.add(name="n", op="EagerPyFunc")
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    refused(folder, "EagerPyFunc, which run Python or touch files")
    (folder / "saved_model.pb").write_bytes(b"\xff" * 30)
    refused(folder, "saved_model.pb is damaged")
    (folder / "assets").symlink_to(tmp_path)
    refused(folder, "is a link or no plain file")


# IREE 3.13 leaves the object alone for cpu, cuda and rocm; it is refused all the same, as what names a file.
MLIR_WITH_A_FILE = """#map = affine_map<(i) -> (i)>
func.func @main(%%a: tensor<2xf32>) -> tensor<2xf32> {
  %%e = tensor.empty() : tensor<2xf32>
  %%0 = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel"]}
      ins(%%a : tensor<2xf32>) outs(%%e : tensor<2xf32>) attrs = {%s} {
    ^bb0(%%x: f32, %%y: f32):
      linalg.yield %%x : f32
  } -> tensor<2xf32>
  return %%0 : tensor<2xf32>
}"""
OBJECT = '#hal.executable.object<{path = "%s"}>'


def test_a_saved_model_that_writes_a_file_and_calls_home_when_it_is_read(canary: Canary, tmp_path: Path) -> None:
    """Whole, and harmful in the hands of TensorFlow: the canary file is written where it is loaded and asked."""
    import tensorflow as tf

    module, aim, home = tf.Module(), str(canary.file), f"127.0.0.1:{canary.port}"

    @tf.function(input_signature=[tf.TensorSpec([1, 2], tf.float32, name="x")])
    def run(x: Any) -> dict[str, Any]:
        tf.io.write_file(aim, "touched")
        return {"y": x + tf.strings.to_number(tf.io.read_file(f"http://{home}/w"))}

    module.run = run
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": run})
    refused(tmp_path / "m", "ReadFile.*WriteFile, which run Python or touch files")


@pytest.mark.parametrize("place", ["x = %s", "hal.executable.objects = [%s]", "x = {y = [1, %s]}"])
def test_mlir_that_names_a_file(place: str, canary: Canary, tmp_path: Path) -> None:
    (tmp_path / "m.mlir").write_text(MLIR_WITH_A_FILE % (place % (OBJECT % canary.file)))
    refused(tmp_path / "m.mlir", "linalg.generic carries .*, which is IREE's own; leave it out")


@pytest.mark.parametrize(
    ("text", "says", "kind"),
    [
        (
            "module { util.func public @f(%a: tensor<2xf32>) { util.return } }",
            "reach beyond the computation",
            BadModelSource,
        ),
        (
            "func.func @f(%a: tensor<?xf32>) -> tensor<?xf32> { return %a : tensor<?xf32> }",
            "fixed sizes",
            UnsupportedModel,
        ),
        ("module {}", "0 public functions", UnsupportedModel),
        ("not mlir", "no MLIR that IREE reads", BadModelSource),
    ],
)
def test_mlir_that_reaches_out_or_is_none(text: str, says: str, kind: type[TradewindError], tmp_path: Path) -> None:
    (tmp_path / "m.mlir").write_text(text)
    refused(tmp_path / "m.mlir", says, kind)


HOSTILE_MODULE = """
import os, pathlib, signal, socket, subprocess
import torch

def tried(name, attempt):
    try:
        attempt()
    except OSError:
        return []
    return [name]

def connect():
    socket.create_connection(("127.0.0.1", {port}), timeout=2)

def build():
    reached = tried("canary file", lambda: pathlib.Path({file!r}).write_text("x"))
    reached += tried("socket", connect)
    reached += tried("unix socket", lambda: socket.socket(socket.AF_UNIX).connect("/nowhere"))
    reached += tried("another process", lambda: os.kill(os.getppid(), signal.SIGTERM))
    reached += tried("its memory", lambda: open("/proc/%d/environ" % os.getppid(), "rb").read())
    reached += tried("the signing key", lambda: pathlib.Path({key!r}).read_bytes())
    subprocess.run(["touch", {file!r}])
    raise ValueError("reached: %s" % reached)
"""


class Code:
    """Runs Python when it is unpickled."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __reduce__(self) -> Any:
        return exec, (self._text, {})


def hostile_pt2(path: Path, code: str) -> Path:
    """A whole archive of torch.export whose example inputs run code when they are read."""
    import torch

    pickled = io.BytesIO()
    torch.save(Code(code), pickled)
    whole = path.with_name("whole.pt2")
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2).eval(), (torch.ones(1, 2),), strict=False), whole)
    with zipfile.ZipFile(whole) as read, zipfile.ZipFile(path, "w") as made:
        (examples,) = (name for name in read.namelist() if "/sample_inputs/" in name)
        for name in read.namelist():
            made.writestr(name, pickled.getvalue() if name == examples else read.read(name))
    return path


async def test_trusted_code_reaches_nothing_outside_its_sandbox(canary: Canary, tmp_path: Path) -> None:
    """Would fail, with what was reached in its message, where the kernel or the filter let something through."""
    folder = tmp_path / "code"
    folder.mkdir()
    key = tmp_path / "state" / "keys" / "compiler.key"
    code = HOSTILE_MODULE.format(port=canary.port, file=str(canary.file), key=str(key))
    (folder / "evil.py").write_text(code)
    source = folder.with_name("code::evil:build")
    workshop = Workshop(tmp_path / "state", LIMITS)
    try:
        assert any(stat.S_ISREG(path.stat().st_mode) for path in key.parent.iterdir())
        with pytest.raises(UntrustedSource, match="say --trust if you trust it"):
            await workshop.importer.import_model(source, lambda _stage, _share: None)
        with pytest.raises(BadModelSource, match=r"code raised ValueError: reached: \[\]"):
            await workshop.importer.import_model(source, lambda _stage, _share: None, trust=True)
        archive = hostile_pt2(tmp_path / "evil.pt2", f"{code}\nbuild()")
        with pytest.raises(UntrustedSource):
            await workshop.importer.import_model(archive, lambda _stage, _share: None)
        with pytest.raises(BadModelSource, match=r"cannot be read as a torch.export archive \(reached: \[\]\)"):
            await workshop.importer.import_model(archive, lambda _stage, _share: None, trust=True)
        assert not any(path.is_file() for path in (tmp_path / "state" / "blobs").rglob("*"))
        assert not list((tmp_path / "state" / "work").iterdir())
    finally:
        workshop.close()


def test_every_form_has_a_front_end() -> None:
    from services.compiler.sources.front_ends import FRONT_ENDS

    assert set(FRONT_ENDS) == set(Form)
