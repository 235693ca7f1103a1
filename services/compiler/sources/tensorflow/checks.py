"""What a SavedModel or a .keras archive may hold, looked at before TensorFlow reads it. Runs and unpickles nothing."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tradewind.domain.errors import BadModelSource, UnsupportedModel

# Operators that call Python, or touch files and the network, when a model is loaded or asked.
_REACHING_OUT: Final = frozenset(
    [
        "PyFunc",
        "PyFuncStateless",
        "EagerPyFunc",
        "ReadFile",
        "WriteFile",
        "MatchingFiles",
        "LoadDataset",
        "DatasetFromGraph",
        "Print",
        "PrintV2",
        "TextLineDataset",
        "TFRecordDataset",
        "FixedLengthRecordDataset",
        "TextLineReader",
        "TFRecordReader",
        "WholeFileReader",
        "InitializeTableFromTextFile",
        "InitializeTableFromTextFileV2",
        "RpcCall",
        "CreateSummaryFileWriter",
    ]
)
# Layers that run code of their maker, or load it from elsewhere.
_RUNS_CODE: Final = frozenset({"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "FunctionWrapper"})
_OWN_MODULES: Final = ("keras", "builtins")
_MOST_MEMBERS: Final = 1_000
_MOST_CONFIG_BYTES: Final = 64 << 20
# Weights hardly shrink; a member that grows by more is made to fill the disk or memory.
_MOST_RATIO: Final = 100
_SMALL_BYTES: Final = 1 << 20
_KERAS_MEMBERS: Final = frozenset({"config.json", "metadata.json", "model.weights.h5"})


def check_operators(names: Iterable[str], source: Path) -> None:
    """Refuses operators that reach out of the computation.

    Raises:
        BadModelSource: names them.
    """
    if found := sorted(set(names) & _REACHING_OUT):
        raise BadModelSource(
            f"{source} uses {', '.join(found)}, which run Python or touch files; export the model without them",
            {"operators": ", ".join(found)},
        )


def check_folder_of_saved_model(folder: Path) -> None:
    """Refuses links and special files in a SavedModel's folder.

    Raises:
        BadModelSource: which one.
    """
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise BadModelSource(f"{path} is a link or no plain file; put the file itself there")


def check_keras(path: Path) -> None:
    """Refuses archives that are no plain Keras 3 model.

    Raises:
        BadModelSource: damaged, a zip bomb, or paths that lead out.
        UnsupportedModel: Lambda layers, or objects that are not Keras's own.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive.infolist(), path)
            config = json.loads(_read(archive, "config.json", path))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise BadModelSource(f"{path} is no Keras 3 archive or is damaged ({error}); save it again") from error
    for entry in _objects(config):
        _check_object(entry, path)


def _check_members(members: list[zipfile.ZipInfo], path: Path) -> None:
    if len(members) > _MOST_MEMBERS:
        raise BadModelSource(f"{path} has {len(members)} members, more than {_MOST_MEMBERS}")
    for member in members:
        parts = PurePosixPath(member.filename).parts
        if member.filename.startswith("/") or ".." in parts or "\\" in member.filename:
            raise BadModelSource(f"{path} holds {member.filename!r}, which leads out of it")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise BadModelSource(f"{path} holds {member.filename!r}, which is a link")
        if member.file_size > _SMALL_BYTES and member.file_size > _MOST_RATIO * max(1, member.compress_size):
            raise BadModelSource(
                f"{path}: {member.filename!r} grows from {member.compress_size} to {member.file_size} bytes: a zip bomb"
            )
    names = [member.filename for member in members]
    if missing := _KERAS_MEMBERS - set(names):
        raise BadModelSource(f"{path} lacks {', '.join(sorted(missing))}: it is no Keras 3 archive; save it again")
    if len(set(names)) != len(names):
        raise BadModelSource(f"{path} holds a member twice; save it again")


def _read(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    if archive.getinfo(name).file_size > _MOST_CONFIG_BYTES:
        raise BadModelSource(f"{path}: {name} is larger than {_MOST_CONFIG_BYTES} bytes")
    return archive.read(name)


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every serialised object of a configuration."""
    if isinstance(value, Mapping):
        if "class_name" in value:
            yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _check_object(entry: Mapping[str, Any], path: Path) -> None:
    name, module = str(entry.get("class_name")), entry.get("module")
    if name in _RUNS_CODE or name == "__lambda__":
        raise UnsupportedModel(
            f"{path} has a {name} layer, which runs code that came with the model; replace it by layers of Keras",
            {"layer": name},
        )
    own = module is None or str(module).split(".")[0] in _OWN_MODULES
    registered = entry.get("registered_name")
    if not own or (registered and registered != name and ">" in str(registered)):
        raise UnsupportedModel(
            f"{path} needs {module or ''}.{name}, which is not Keras's own and is not loaded; replace it by layers of "
            "Keras",
            {"layer": name},
        )
