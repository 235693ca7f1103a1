"""The fake library, built once; rigs of every back-end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .fake_nvml.library import build
from .rigs import BACK_ENDS, Rig, loaded_library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake `libnvidia-ml.so.1`."""
    return build(tmp_path_factory.mktemp("fake_nvml"))


MakeRig = Callable[..., Rig]


@pytest.fixture(params=BACK_ENDS)
def make_rig(request: pytest.FixtureRequest, library: Path, tmp_path: Path) -> Iterator[MakeRig]:
    """Makes a rig of a machine: `make_rig("h100-80", "a30")`. Once for each test."""
    with ExitStack() as stack:
        own = stack.enter_context(loaded_library(library, tmp_path))

        def make(*products: str) -> Rig:
            return BACK_ENDS[request.param](products, tmp_path, own)

        yield make
