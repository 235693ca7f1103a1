"""Child processes: limits hold, whole trees end, nothing stays behind, secrets stay outside."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from services.compiler.jobs.child import run_child
from services.compiler.jobs.keyed import KeyedLocks
from services.compiler.jobs.limits import JobLimits
from services.compiler.jobs.runner import JobRunner
from tradewind.domain.errors import BadModelSource, CompileFailed, JobOutOfMemory, JobTimeout

AMPLE = JobLimits(time_s=60, memory_bytes=2 << 30)
# A child that has a child of its own, says both pids, and hangs.
HANGS = (
    "import subprocess, sys, time, os;"
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(os.getpid(), p.pid, flush=True); time.sleep(600)"
)
# The same, but the leader ends at once, and its child lives on.
ABANDONS = HANGS.rpartition(";")[0]
GROWS = "import os\ndata = []\nwhile True: data.append(bytearray(os.urandom(1 << 20)) * 16)"


async def run_python(code: str, folder: Path, limits: JobLimits = AMPLE) -> tuple[int, list[str]]:
    lines: list[str] = []
    ended = await run_child(
        [sys.executable, "-c", code], folder, limits, lambda line: lines.append(line.decode()), folder / "log"
    )
    return ended.status, lines


async def test_a_child_that_hangs_ends_with_its_tree_in_time(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(JobTimeout, match="past its limit of 2 s"):
        await run_child(
            [sys.executable, "-c", HANGS],
            tmp_path,
            JobLimits(2, 2 << 30),
            lambda line: lines.append(line.decode()),
            tmp_path / "log",
        )
    assert [pid for pid in map(int, lines[0].split()) if _alive(pid)] == []


async def test_a_child_that_grows_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(JobOutOfMemory) as caught:
        await run_python(GROWS, tmp_path, JobLimits(60, 256 << 20))
    assert int(caught.value.metadata["used_bytes"]) > 256 << 20
    assert "256 MiB are allowed" in caught.value.message


async def test_cancelling_ends_the_tree(tmp_path: Path) -> None:
    said = asyncio.Event()
    lines: list[str] = []

    def hear(line: bytes) -> None:
        lines.append(line.decode())
        said.set()

    job = asyncio.create_task(run_child([sys.executable, "-c", HANGS], tmp_path, AMPLE, hear, tmp_path / "log"))
    await asyncio.wait_for(said.wait(), 30)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert [pid for pid in map(int, lines[0].split()) if _alive(pid)] == []


async def test_a_child_that_outlives_its_parent_is_ended_too(tmp_path: Path) -> None:
    status, lines = await run_python(ABANDONS, tmp_path)
    assert status == 0
    assert not _alive(int(lines[0].split()[1]))


async def test_a_child_sees_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEWIND_DATABASE_URL", "postgresql://user:hunter2@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    _, lines = await run_python("import os, json; print(json.dumps(dict(os.environ)))", tmp_path)
    seen = json.loads(lines[0])
    assert "hunter2" not in json.dumps(seen)
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert seen["HOME"] == str(tmp_path)


async def test_a_worker_gives_typed_errors_and_leaves_no_folder(tmp_path: Path) -> None:
    runner = JobRunner(tmp_path / "work", AMPLE)
    async with runner.folder() as folder:
        job = {"form": "gguf", "source": str(tmp_path / "gone.gguf"), "output": str(folder), "reference": ""}
        with pytest.raises(BadModelSource, match=r"gone\.gguf cannot be read as a model"):
            await runner.work("import", job, folder, lambda _stage, _share: None)
        with pytest.raises(CompileFailed, match="ended with status 1"):
            await runner.work("nonsense", {}, folder, lambda _stage, _share: None)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_new_runner_clears_what_an_earlier_life_left(tmp_path: Path) -> None:
    (tmp_path / "work" / "left").mkdir(parents=True)
    (tmp_path / "work" / "left" / "half.vmfb").write_bytes(b"x")
    JobRunner(tmp_path / "work", AMPLE)
    assert list((tmp_path / "work").iterdir()) == []


async def test_keyed_locks_hold_one_at_a_time_and_forget() -> None:
    locks, inside, most = KeyedLocks(), 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with locks.of("key"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(5)))
    assert most == 1
    assert vars(locks)["_locks"] == {}


def _alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected by its parent does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def test_this_process_is_alive_by_that_measure() -> None:
    assert _alive(os.getpid())
