"""Which form a source path has, and whether its files can be read at all. Opens no weights."""

from __future__ import annotations

import json
import struct
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tradewind.domain.errors import BadModelSource, UnsupportedModel

_GGUF_MAGIC: Final = b"GGUF"
# A safetensors header describes tensors in JSON; real ones stay below 10 MB, the format's own limit is 100 MB.
_MOST_HEADER_BYTES: Final = 100_000_000
_SUPPORTED: Final = (
    "a Hugging Face folder (config.json and safetensors), a .gguf, .onnx, .keras, .mlir or .pt2 file, a TensorFlow "
    "SavedModel folder, or FOLDER::module:attribute for a PyTorch module"
)
_PICKLES: Final = frozenset(
    {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".hdf5"}
)
# Between the folder of a PyTorch module and the module's import path.
INSIDE: Final = "::"


class Form(StrEnum):
    """Forms that can be imported."""

    HUGGING_FACE = "hugging_face"
    GGUF = "gguf"
    ONNX = "onnx"
    TENSORFLOW = "tensorflow"
    KERAS = "keras"
    PT2 = "pt2"
    PYTORCH = "pytorch"
    MLIR = "mlir"


_BY_SUFFIX: Final = {
    ".onnx": Form.ONNX,
    ".keras": Form.KERAS,
    ".pt2": Form.PT2,
    ".mlir": Form.MLIR,
    ".mlirbc": Form.MLIR,
}
# Forms that are one file, with nothing beside it.
LONE_FILES: Final = frozenset({Form.KERAS, Form.PT2, Form.MLIR})
# Forms whose reading can run code that came with the model.
RUNS_CODE: Final = frozenset({Form.PT2, Form.PYTORCH})


def detect(source: Path) -> tuple[Form, Path]:
    """The form of a source and the file or folder to read.

    Raises:
        BadModelSource: nothing there, unreadable, or neither form.
        UnsupportedModel: a form that is known and not supported.
    """
    _check_name(source)
    if INSIDE in source.name:
        return Form.PYTORCH, _python_source(source)
    if not source.exists():
        raise BadModelSource(f"{source} does not exist; give a path that the compiler's machine can read")
    if source.is_file():
        return _detect_file(source)
    if (source / "saved_model.pb").is_file():
        return Form.TENSORFLOW, source
    return _detect_folder(source)


def _detect_folder(source: Path) -> tuple[Form, Path]:
    """A folder of transformers, or one with a single file of another form: weights of its own come first."""
    graphs = _graphs(source)
    if (source / "config.json").is_file() and (not graphs or any(source.glob("*.safetensors*"))):
        return Form.HUGGING_FACE, source
    for suffix, form in ((".gguf", Form.GGUF), (".onnx", Form.ONNX)):
        found = graphs if form is Form.ONNX else sorted(source.glob(f"*{suffix}"))
        if len(found) == 1:
            return form, found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise BadModelSource(f"{source} holds several {suffix} files ({names}); name one of them")
    raise BadModelSource(f"{source} holds neither config.json nor a model file that is known here; give {_SUPPORTED}")


def _graphs(source: Path) -> list[Path]:
    return sorted(source.glob("*.onnx"))


def _python_source(source: Path) -> Path:
    folder = file_of(source)
    if not folder.is_dir():
        raise BadModelSource(f"{folder} is no folder; give FOLDER{INSIDE}module:attribute with the folder of the code")
    return source


def file_of(source: Path) -> Path:
    """The file or folder of a source, without the import path that may follow it."""
    name, inside, _ = source.name.partition(INSIDE)
    return source.with_name(name) if inside and name else source.parent if inside else source


def _detect_file(source: Path) -> tuple[Form, Path]:
    with source.open("rb") as file:
        magic = file.read(4)
    if magic == _GGUF_MAGIC:
        return Form.GGUF, source
    if source.suffix == ".gguf":
        raise BadModelSource(f"{source} does not start with GGUF: it is damaged or no GGUF file; fetch it again")
    if source.suffix in _BY_SUFFIX:
        return _BY_SUFFIX[source.suffix], source
    if source.suffix in _PICKLES:
        raise UnsupportedModel(
            f"{source} is a pickle or may hold one, which runs code when it is read; convert it to safetensors first"
        )
    raise BadModelSource(f"{source} is no model file that is known here; give {_SUPPORTED}")


def _check_name(source: Path) -> None:
    try:
        str(source).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadModelSource(f"the path {str(source)!r} is not UTF-8; rename it") from error


def check_folder(folder: Path) -> None:
    """Checks that a Hugging Face folder's files are whole, are inside it, and hold no pickles.

    Raises:
        BadModelSource: what is wrong with which file, and what to do.
    """
    check_inside(folder)
    weights = _weight_files(folder)
    for path in weights:
        if not path.is_file():
            raise BadModelSource(f"{path} is missing; copy the whole model folder again")
        check_safetensors(path)


def check_inside(folder: Path) -> None:
    """Checks that no entry of a folder is a link out of it.

    Raises:
        BadModelSource: which one is.
    """
    root = folder.resolve()
    for path in sorted(folder.iterdir()):
        _check_name(path)
        if path.is_symlink() and not path.resolve().is_relative_to(_link_root(root)):
            raise BadModelSource(f"{path} is a link out of the folder, to {path.resolve()}; put the file itself there")


def _link_root(root: Path) -> Path:
    """Where links may lead: the folder, or for a folder of the hub's cache the model's own `blobs`."""
    is_hub_cache = root.parent.name == "snapshots" and (root.parent.parent / "blobs").is_dir()
    return root.parent.parent if is_hub_cache else root


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise BadModelSource(f"{index} names no weights; fetch the model again")
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if Path(name).name != name:
                raise BadModelSource(f"{index} names {name!r}, which is not in the folder; fetch the model again")
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if single.exists():
        return [single]
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise BadModelSource(
            f"{folder} holds pickled weights only, which can run code when read; convert them to safetensors first"
        )
    raise BadModelSource(f"{folder} holds no model.safetensors; copy the whole model folder again")


def check_safetensors(path: Path) -> None:
    """Checks that a safetensors file is as long as its header says.

    Raises:
        BadModelSource: it is not.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        header_bytes = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 0 < header_bytes <= min(_MOST_HEADER_BYTES, size - 8):
            raise BadModelSource(f"{path} has no safetensors header: it is damaged or truncated; fetch it again")
        try:
            header = json.loads(file.read(header_bytes))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise BadModelSource(f"{path} has a damaged safetensors header ({error}); fetch it again") from error
    wanted = 8 + header_bytes + max(ends, default=0)
    if size != wanted:
        raise BadModelSource(f"{path} is {size} bytes long and should be {wanted}: it is truncated; fetch it again")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON table.

    Raises:
        BadModelSource: missing, not UTF-8, not JSON, or not a table.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadModelSource(f"{path} cannot be read ({error.strerror}); copy the whole model folder again") from error
    except ValueError as error:
        raise BadModelSource(f"{path} is not valid JSON in UTF-8 ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise BadModelSource(f"{path} holds no table; fetch it again")
    return content
