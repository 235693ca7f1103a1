"""More text than the first pieces: the source is asked about it when the first variant of few bits wants it, once."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.compiler.jobs.runner import JobRunner
from services.compiler.order import Order
from services.compiler.quality.text import WINDOW_TOKENS, WINDOWS_OF, Part
from services.compiler.quality.thresholds import TABLE, reads_windows
from services.compiler.quality.windows import Windows
from services.compiler.sources.normal_form import GRAPH
from services.compiler.store.index import Index
from services.compiler.window_files import WindowFiles, wants_windows
from services.compiler.workshop import Workshop
from tests.compiler.conftest import LIMITS, silent
from tests.tiny_variant import TINY_RECIPE

pytestmark = pytest.mark.timeout(300)


def files_under(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


async def test_two_builds_share_one_asking_and_one_that_is_cut_short_leaves_nothing(
    imported_state: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    state = Path(shutil.copytree(imported_state, tmp_path / "state"))
    workshop = Workshop(state, LIMITS)
    model = await workshop.importer.import_model(tiny_folder, silent)
    w4, w8 = (Order(model, replace(TINY_RECIPE, precision=name), workshop.targets[0]) for name in ("w4", "w8"))
    files = WindowFiles(workshop.blobs, Index(state / "index"), JobRunner(tmp_path / "work", LIMITS))
    before, asked, stages = files_under(state), asyncio.Event(), list[str]()

    def hear(stage: str, _share: float) -> None:
        stages.append(stage)
        asked.set()

    first = asyncio.create_task(files.of(w4, Part.CHOOSING, hear))
    await asyncio.wait({first, asyncio.ensure_future(asked.wait())}, return_when=asyncio.FIRST_COMPLETED)
    second = asyncio.create_task(files.of(w8, Part.CHOOSING, hear))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert files_under(state) == before
    path = await second
    assert path is not None and files_under(state) - before == {
        path,
        *(state / "index" / "windows").iterdir(),
    }
    assert list((tmp_path / "work").iterdir()) == []
    assert stages[-1].startswith("asking the source about more text, ")

    heard = len(stages)
    assert await files.of(w4, Part.CHOOSING, hear) == path and len(stages) == heard, "made before"
    windows = Windows.load(path)
    assert windows.tokens.shape == windows.best.shape == (WINDOWS_OF[Part.CHOOSING], WINDOW_TOKENS)
    assert np.isfinite(windows.log_likelihoods).all() and (windows.log_likelihoods < 0).all()
    assert await files.of(replace(w4, recipe=TINY_RECIPE), Part.CHOOSING, hear) is None
    assert not wants_windows(replace(w4, target=replace(w4.target, runnable_here=False)))
    assert not wants_windows(replace(w4, model=replace(model, build_files={GRAPH: "sha256:"})))
    workshop.close()


def test_only_rounded_weights_read_windows() -> None:
    assert {precision for precision in TABLE if reads_windows(precision)} == {"w8", "w8a8", "w4"}
