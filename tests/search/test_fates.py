"""Children of a trial that really crash, hang and grow: each becomes a fate of its candidate, and leaves nothing."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from services.compiler.jobs.limits import JobLimits
from services.compiler.jobs.runner import JobRunner
from services.compiler.making import Maker
from services.compiler.order import Order
from services.compiler.search.bench import Bench, Wish
from services.compiler.search.core.facts import Fate, Trial
from services.compiler.search.lending import Lender
from services.compiler.search.probing import Prober, Try
from services.compiler.store.index import Index
from services.compiler.store.signing import open_signing_key
from services.compiler.workshop import Workshop
from tests.compiler.conftest import LIMITS, silent
from tests.tiny_variant import TINY_RECIPE
from tradewind.domain.quality_floor import QualityFloor

WISH = Wish(QualityFloor(), "a search", {})
GROW = f"exec {sys.executable} -c 'data = [bytearray(1 << 24) for _ in iter(int, 1)]'"


@pytest.mark.parametrize(
    ("program", "limits", "fate", "words"),
    [
        ("kill -SEGV $$", LIMITS, Fate.CRASH, "signal 11"),
        ("exec sleep 600", JobLimits(1.0, 1 << 30), Fate.HANG, "limit of 1 s"),
        (GROW, JobLimits(60.0, 200 << 20), Fate.OUT_OF_MEMORY, "200 MiB are allowed"),
        ("echo 'error: no such operation' >&2; exit 1", LIMITS, Fate.COMPILE_ERROR, "no such operation"),
    ],
)
async def test_a_child_that_fails_is_a_fate(
    imported_state: Path,
    tiny_folder: Path,
    tmp_path: Path,
    program: str,
    limits: JobLimits,
    fate: Fate,
    words: str,
) -> None:
    state = Path(shutil.copytree(imported_state, tmp_path / "state"))
    workshop = Workshop(state, LIMITS)
    stored = await workshop.importer.import_model(tiny_folder, silent)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    python.chmod(0o755)
    runner, index = JobRunner(tmp_path / "work", limits, str(python)), Index(state / "index")
    maker = Maker(workshop.blobs, index, runner)
    lender = Lender(workshop.blobs, open_signing_key(state / "keys"))
    prober = Prober(runner, workshop.places, maker, Bench(runner, workshop.places), lender)
    order = Order(stored, replace(TINY_RECIPE, name="doomed"), workshop.targets[0])
    trials: list[Trial] = []
    await prober.probe([Try(order, silent), Try(order, silent)], 1, WISH, trials.append)
    for trial in trials:
        assert (trial.fate, trial.measured) == (fate, None)
        assert words in trial.words
    assert len(trials) == 2
    assert list((tmp_path / "work").iterdir()) == []
    workshop.close()
