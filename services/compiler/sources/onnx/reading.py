"""Reads an ONNX file and its external data, after checks of our own. Runs no node, follows no link.

The onnx library's own reader has had path traversal holes (CVE-2022-25882, CVE-2024-27318, CVE-2026-34446 by hard
links, CVE-2026-34447 by symbolic ones), so external data is opened here, without following links, and never there.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.compiler.sources.onnx.branches import choose_branches
from tradewind.domain.errors import BadModelSource, UnsupportedModel

Array = npt.NDArray[Any]

# protobuf cannot read messages beyond this; larger models keep their weights outside.
_MOST_MODEL_BYTES: Final = 2**31 - 1
# A graph of this many nodes takes minutes to export; language models of 100 layers have about 10,000.
_MOST_NODES: Final = 100_000
# Tensors of more elements than this are in no model that fits a machine.
_MOST_ELEMENTS: Final = 1 << 36
_MOST_DIMENSIONS: Final = 16
# Oldest operator set whose forms are known here; exporters have written 11 or newer since 2020.
_OLDEST_OPSET: Final = 11
STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})
_EXTERNAL: Final = 1
# Nodes with a graph inside: what runs depends on data.
_CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A checked model.

    Attributes:
        model: onnx.ModelProto whose initialisers carry no data.
        weights: initialisers by name.
    """

    model: Any
    weights: dict[str, Array]


def read_onnx(path: Path) -> OnnxFile:
    """Reads and checks a model.

    Raises:
        BadModelSource: damaged, hostile, or with data missing.
        UnsupportedModel: operators outside the standard set, control flow, or an old form.
    """
    import onnx
    from google.protobuf.message import DecodeError

    size = path.stat().st_size
    if size > _MOST_MODEL_BYTES:
        raise BadModelSource(f"{path} has {size} bytes, more than an ONNX file can; keep its weights in external data")
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        raise BadModelSource(f"{path} is no ONNX file or is damaged ({error}); export it again") from error
    if not model.graph.node or not model.graph.output:
        raise BadModelSource(f"{path} holds no graph: it is no ONNX file or is damaged; export it again")
    choose_branches(model)
    _check_graph(model, path)
    weights = {}
    for tensor in model.graph.initializer:
        weights[tensor.name] = _data_of(tensor, path)
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        tensor.ClearField("external_data")
    _check_attributes(model.graph.node, path)
    return OnnxFile(model, weights)


def _check_graph(model: Any, path: Path) -> None:
    if len(model.graph.node) > _MOST_NODES:
        raise BadModelSource(f"{path} has {len(model.graph.node)} nodes, more than {_MOST_NODES}")
    if model.graph.sparse_initializer:
        raise UnsupportedModel(f"{path} has sparse weights, which are not supported; export it with dense ones")
    if model.functions:
        raise UnsupportedModel(f"{path} has functions of its own; inline them (onnx.inliner) and import the result")
    versions = {item.domain: item.version for item in model.opset_import}
    version = versions.get("", versions.get("ai.onnx", 0))
    if version < _OLDEST_OPSET:
        raise UnsupportedModel(f"{path} is of operator set {version}; export it with {_OLDEST_OPSET} or newer")
    foreign = sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in STANDARD_DOMAINS})
    if foreign:
        raise UnsupportedModel(
            f"{path} uses operators outside the ONNX standard: {', '.join(foreign)}; export it without fusions "
            "(Optimum: optimization level none)",
            {"operators": ", ".join(foreign)},
        )
    if control := sorted({n.op_type for n in model.graph.node if n.op_type in _CONTROL_FLOW}):
        raise UnsupportedModel(
            f"{path} decides at run time what it runs ({', '.join(control)}), which one fixed graph cannot; export it "
            "without",
            {"operators": ", ".join(control)},
        )


def _check_attributes(nodes: Any, path: Path) -> None:
    """Constants inside nodes must carry their own data: nothing else may open a file."""
    for node in nodes:
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                if tensor.data_location == _EXTERNAL:
                    raise BadModelSource(
                        f"{path}: node {node.name!r} keeps a constant in another file; export it again"
                    )
                _check_shape(tensor, path)


def _data_of(tensor: Any, path: Path) -> Array:
    from onnx import numpy_helper

    _check_shape(tensor, path)
    try:
        if tensor.data_location == _EXTERNAL:
            tensor.raw_data = _external_bytes(tensor, path)
            tensor.data_location = 0
        array: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise BadModelSource(f"{path}: weight {tensor.name!r} is damaged ({error}); export it again") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadModelSource(f"{path}: {tensor.name} holds values that are not finite numbers; the model is damaged")
    return array


def _check_shape(tensor: Any, path: Path) -> None:
    sizes = list(tensor.dims)
    if len(sizes) > _MOST_DIMENSIONS or any(size < 0 for size in sizes) or math.prod(sizes) > _MOST_ELEMENTS:
        raise BadModelSource(
            f"{path}: {tensor.name!r} has the absurd shape {sizes[:_MOST_DIMENSIONS]}; export it again"
        )


def _external_bytes(tensor: Any, path: Path) -> bytes:
    """A tensor's bytes out of the file beside the model that it names."""
    import onnx

    facts = {entry.key: entry.value for entry in tensor.external_data}
    location = facts.get("location", "")
    try:
        offset, length = int(facts.get("offset", 0)), int(facts.get("length", -1))
    except ValueError as error:
        raise BadModelSource(f"{path}: {tensor.name!r} names its place in {location!r} in no numbers") from error
    wanted = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    if offset < 0 or length not in (-1, wanted):
        raise BadModelSource(f"{path}: {tensor.name!r} has {length} bytes in {location!r} and needs {wanted}")
    descriptor = _open_inside(path, location)
    try:
        data = (
            os.pread(descriptor, wanted, offset) if wanted < 1 << 30 else b"".join(_pieces(descriptor, wanted, offset))
        )
    finally:
        os.close(descriptor)
    if len(data) != wanted:
        raise BadModelSource(f"{path}: {location!r} is cut short: {tensor.name!r} lacks {wanted - len(data)} bytes")
    return data


def _pieces(descriptor: int, count: int, offset: int) -> Iterator[bytes]:
    """A read of more than 2 GiB comes short on Linux."""
    end = offset + count
    while offset < end and (piece := os.pread(descriptor, min(end - offset, 1 << 28), offset)):
        yield piece
        offset += len(piece)


def _open_inside(path: Path, location: str) -> int:
    """Opens a file of the model's folder: plain, of one name, reached without links. The caller closes it."""
    parts = PurePosixPath(location).parts
    if not parts or "\\" in location or "\0" in location or location.startswith("/") or ".." in parts:
        raise BadModelSource(f"{path} keeps weights at {location!r}, outside of its folder; it is not read")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = below
        # Without O_NONBLOCK the open of a named pipe would wait for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(parts[-1], flags, dir_fd=folder)
    except OSError as error:
        raise BadModelSource(
            f"{path} keeps weights in {location!r}, which is missing or a link ({error.strerror}); put the file "
            "itself there"
        ) from error
    finally:
        os.close(folder)
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
        os.close(descriptor)
        raise BadModelSource(
            f"{path} keeps weights in {location!r}, which is no plain file or has other names (hard links); copy it "
            "there"
        )
    return descriptor
