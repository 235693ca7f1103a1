"""Several probes in one child, each a fork with its own fate: real exports, and forks that crash and hang (ADR 52)."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.compiler.jobs.limits import JobLimits
from services.compiler.jobs.runner import JobRunner, Outcome, Report
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


class Told(JobRunner):
    """Knows how many exports were asked of each child, and that nothing was tried apart."""

    def __init__(self, work_root: Path, limits: JobLimits) -> None:
        super().__init__(work_root, limits)
        self.children: list[int] = []

    async def export_each(
        self, jobs: Sequence[tuple[dict[str, Any], Path]], folder: Path, on_ended: Callable[[int, Outcome], None]
    ) -> None:
        self.children.append(len(jobs))
        await super().export_each(jobs, folder, on_ended)

    async def work(self, kind: str, job: dict[str, Any], folder: Path, report: Report) -> dict[str, Any]:
        assert kind != "export", "all were exported together"
        return await super().work(kind, job, folder, report)


async def test_real_exports_share_a_child_and_one_that_fails_takes_nobody_along(
    asked_state: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    state = Path(shutil.copytree(asked_state, tmp_path / "state"))
    workshop = Workshop(state, LIMITS)
    stored = await workshop.importer.import_model(tiny_folder, silent)
    orders = [Order(stored, recipe, workshop.targets[0]) for recipe in (SMALL, BROKEN, BROADER)]
    runner = Told(tmp_path / "runner", LIMITS)
    maker = Maker(workshop.blobs, Index(state / "index"), runner)
    lender = Lender(workshop.blobs, open_signing_key(state / "keys"))
    prober = Prober(runner, workshop.places, maker, Bench(runner, workshop.places), lender)
    trials: list[Trial] = []
    wish = Wish(QualityFloor(), "a search", await workshop.trier.references(orders[0], (1,), silent))
    await prober.probe([Try(order, silent) for order in orders], 1, wish, trials.append)
    assert runner.children == [3]
    fates = {trial.recipe: trial.fate for trial in trials}
    assert fates == {SMALL.name: None, "broken": Fate.COMPILE_ERROR, "broader": None}
    assert all("f12" in trial.words for trial in trials if trial.fate)
    assert all(t.measured and t.measured.memory_bytes > 0 for t in trials if t.fate is None)
    assert all(t.measured and (t.measured.kl_nats or 0) < 1e-3 for t in trials if t.fate is None)
    assert list((tmp_path / "runner").iterdir()) == []
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
