"""Builds the library with gcc. Functions can be left out of it, as an older driver's library lacks them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).parent
NAME = "libnvidia-ml.so.1"
_FLAGS = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-pthread")


def build(folder: Path, missing: Sequence[str] = ()) -> Path:
    """Builds it into a folder.

    Args:
        folder: must exist; set LD_LIBRARY_PATH to it to have other processes find the library.
        missing: functions that it shall not have.
    """
    compiler = shutil.which("gcc")
    assert compiler, "these tests build a C library: install gcc (apt install gcc)"
    script = folder / "exports"
    hidden = "".join(f"{name};" for name in missing)
    script.write_text(f"{{ global: *; local: {hidden} }};" if missing else "{ global: *; };")
    library = folder / NAME
    sources = sorted(str(path) for path in SOURCES.glob("*.c"))
    subprocess.run(
        [compiler, *_FLAGS, f"-Wl,--version-script={script}", "-o", str(library), *sources], check=True, timeout=120
    )
    return library
