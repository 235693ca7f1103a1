"""Where a model's files are, as people name them: a path, or a file that an installed Python package carries."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Final

from tradewind.domain.errors import BadModelSource, InvalidField

PACKAGE: Final = "package:"
_LOCAL: Final = ("127.", "localhost:", "[::1]:", "unix:")
_NAME_LIMIT: Final = 63


def source_path(text: str, compiler_address: str, folder: Path | None = None) -> Path:
    """The path that the compiler is told.

    Args:
        text: a path, or "package:NAME/FILE" for a file in an installed package (which is not imported).
        compiler_address: a compiler on this machine lets a missing file be noticed here, before anything is sent.
        folder: what a relative path is relative to; None means the current folder.

    Raises:
        BadModelSource: no such file, folder or package.
    """
    if text.startswith(PACKAGE):
        path = _in_package(text.removeprefix(PACKAGE))
    else:
        path = (folder or Path.cwd()) / Path(text).expanduser()
    # What follows "::" is the import path of a PyTorch module, inside the folder before it.
    on_disk = Path(str(path).partition("::")[0])
    if compiler_address.startswith(_LOCAL) and not on_disk.exists():
        raise BadModelSource(f"no such file or folder: {path}", {"path": str(path)})
    return path


def default_name(source: str) -> str:
    """A model name from its source: the file's stem or the folder's name, made fit.

    Raises:
        InvalidField: nothing is left.
    """
    last = re.split(r"[/\\]", source.removeprefix(PACKAGE).rstrip("/\\"))[-1].replace("::", "-")
    stem = re.sub(r"\.(gguf|onnx|pt2|mlir|mlirbc|keras)$", "", last, flags=re.IGNORECASE)
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-.")[:_NAME_LIMIT]
    if not name:
        raise InvalidField("--name", f"no name can be made from {source!r}; give one with --name")
    return name


def _in_package(text: str) -> Path:
    package, _, inside = text.partition("/")
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise BadModelSource(f"no Python package {package!r} is installed here; install it, or give a path")
    return Path(next(iter(found.submodule_search_locations))) / inside
