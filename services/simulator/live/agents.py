"""Further node agents on this machine for the time of a run, each on cores of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tradewind.client.endpoints import Endpoints
from tradewind.embedded.ports import choose

# An agent drains for as long as its settings say; here nothing is left to drain after the last answer.
_STOP_LIMIT_S: Final = 20.0


@contextlib.contextmanager
def further_agents(cores: Sequence[str], endpoints: Endpoints, keys: Path) -> Iterator[tuple[str, ...]]:
    """Starts an agent for each set of cores ("1", "2-3") and ends it afterwards. Yields their node ids.

    Args:
        cores: the embedded instance must leave them free: `TRADEWIND_NODE_AGENT_CPU_IDS=0 tradewind up`.
        endpoints: of the running instance.
        keys: folder of the keys whose signatures count.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tradewind-agents-")))
        names = []
        for number, cpu_ids in enumerate(cores):
            name = f"agent-{number + 2}"
            stack.callback(_stop, _start(name, cpu_ids, endpoints, keys, folder / name))
            names.append(name)
        yield tuple(names)


def _start(name: str, cpu_ids: str, endpoints: Endpoints, keys: Path, folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir()
    prefix, ports = "TRADEWIND_NODE_AGENT_", choose(free=True)
    settings = {
        "LISTEN": ports.address("node_agent"),
        "METRICS_LISTEN": ports.address("node_agent-metrics"),
        "NODE_ID": name,
        "ORCHESTRATOR_ADDRESS": endpoints.orchestrator,
        "COMPILER_ADDRESS": endpoints.compiler,
        "TRUSTED_KEYS": str(keys),
        "CPU_IDS": cpu_ids,
        "STATE_DIR": str(folder),
    }
    environment = os.environ | {prefix + key: value for key, value in settings.items()}
    log = (folder / "agent.log").open("wb")
    command = [sys.executable, "-m", "services.node_agent"]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
