"""Several probes in one child, each a fork with its own fate: real exports, and forks that crash and hang (ADR 52)."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from services.compiler.jobs.runner import JobRunner, Outcome
from services.compiler.making import Maker
from services.compiler.order import Order
from services.compiler.search.bench import Wish
from services.compiler.search.core.facts import Fate, Trial
from services.compiler.search.probing import Try
from services.compiler.store.index import Index
from services.compiler.workshop import Workshop
from tests.compiler.conftest import LIMITS, imported_state, silent, tiny_folder  # noqa: F401  fixtures
from tests.tiny_variant import TINY_RECIPE
from tradewind.domain.errors import CompileFailed
from tradewind.domain.passes import FLAT_LINEAR
from tradewind.domain.quality_floor import QualityFloor

SMALL = replace(TINY_RECIPE, prefill_chunks=(16,), decode_batches=(2,), context_buckets=(64,), slots=2)
# A precision that the exporter has never heard of: its fork ends with a traceback.
BROKEN = replace(SMALL, name="broken", precision="f12")
BROADER = replace(SMALL, name="broader", passes=tuple(name for name in SMALL.passes if name != FLAT_LINEAR))
FORKS = """
import json, os, signal, sys, time
from pathlib import Path
from services.compiler.jobs.forks import run_each

def run(path):
    what = json.loads(path.read_text())
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        signal.pause()
    print("a library's chatter")
    print(json.dumps({"result": {"pid": os.getpid(), "parent": os.getppid()}}))
    return 0

run_each([Path(p) for p in sys.argv[1:]], 1.0, run, lambda told: print(json.dumps(told), flush=True))
print(json.dumps({"pid": os.getpid()}))
"""


async def test_real_exports_share_a_child_and_one_that_fails_takes_nobody_along(
    imported_state: Path,  # noqa: F811
    tiny_folder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    state = Path(shutil.copytree(imported_state, tmp_path / "state"))
    workshop = Workshop(state, LIMITS)
    stored = await workshop.importer.import_model(tiny_folder, silent)
    orders = [Order(stored, recipe, workshop.targets[0]) for recipe in (SMALL, BROKEN, BROADER)]
    runner = JobRunner(tmp_path / "runner", LIMITS)
    maker = Maker(workshop.blobs, Index(state / "index"), runner)
    outcomes: dict[int, Outcome] = {}
    async with runner.folder() as folder:
        jobs = []
        for number, order in enumerate(orders):
            (own := folder / str(number)).mkdir()
            jobs.append((maker.export_job(order, own, 1), own))
        await runner.export_each(jobs, folder, outcomes.__setitem__)
        modules = [(folder / str(number) / "generate.mlir").exists() for number in range(3)]
    assert modules == [True, False, True]
    assert isinstance(outcomes[1].error, CompileFailed) and "f12" in outcomes[1].error.message
    assert outcomes[0].result and outcomes[2].result and outcomes[0].result["cache_bytes"] > 0

    trials: list[Trial] = []
    wish = Wish(QualityFloor(), "a search", await workshop.trier.references(orders[0], (1,), silent))
    await workshop.prober.probe([Try(order, silent) for order in orders], 1, wish, trials.append)
    fates = {trial.recipe: trial.fate for trial in trials}
    assert fates == {SMALL.name: None, "broken": Fate.COMPILE_ERROR, "broader": None}
    assert all(t.measured and (t.measured.kl_nats or 0) < 1e-3 for t in trials if t.fate is None)
    assert list((state / "work").iterdir()) == []
    workshop.close()


def test_a_fork_that_crashes_or_hangs_is_told_of_and_the_next_one_runs(tmp_path: Path) -> None:
    paths = []
    for number, what in enumerate(("crash", "fine", "hang", "fine")):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(what))
    ran = subprocess.run([sys.executable, "-c", FORKS, *paths], capture_output=True, text=True, check=True, timeout=60)
    *told, child = (json.loads(line) for line in ran.stdout.splitlines())
    assert [one["ended"] for one in told] == [0, 1, 2, 3]
    assert [one["status"] for one in told] == [-signal.SIGSEGV, 0, -signal.SIGALRM, 0]
    assert [one["timed_out"] for one in told] == [False, False, True, False]
    assert 1 <= told[2]["spent_s"] < 10
    results = [one["said"]["result"] for one in told if one["said"]]
    assert len({result["pid"] for result in results}) == 2
    assert {result["parent"] for result in results} == {child["pid"]}
