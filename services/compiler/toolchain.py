"""Versions of what makes variants, and where the compiler program lies. Reads metadata only, imports no toolchain."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

# Grown by hand when the same inputs would now give another model, module or verdict.
IMPORT_VERSION: Final = 3
EXPORT_VERSION: Final = 8
QUALITY_VERSION: Final = 3

_DISTRIBUTIONS: Final = ("iree-base-compiler", "iree-turbine", "torch", "torch-mlir", "transformers")


def toolchain_versions() -> dict[str, str]:
    """Everything whose change may change a variant."""
    return {
        **{name: version(name) for name in _DISTRIBUTIONS},
        "tradewind-import": str(IMPORT_VERSION),
        "tradewind-export": str(EXPORT_VERSION),
        "tradewind-quality": str(QUALITY_VERSION),
    }


def find_iree_compile() -> str:
    """The compiler beside this Python, or on PATH.

    Raises:
        FileNotFoundError: there is none.
    """
    beside = Path(sys.executable).parent / "iree-compile"
    found = str(beside) if beside.exists() else shutil.which("iree-compile")
    if found is None:
        raise FileNotFoundError("iree-compile is not installed; install Tradewind with its extra 'compiler'")
    return found
