"""Further node agents on this machine for the time of a run, each on cores of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tradewind.client.endpoints import Endpoints
from tradewind.embedded.layout import Layout
from tradewind.embedded.ports import choose
from tradewind.embedded.process import die_with_parent

# In the state folder of the instance.
FOLDER: Final = "further-agents"
# An agent drains for as long as its settings say; here nothing is left to drain after the last answer.
_STOP_LIMIT_S: Final = 20.0


@contextlib.contextmanager
def further_agents(cores: Sequence[str], endpoints: Endpoints, layout: Layout) -> Iterator[tuple[str, ...]]:
    """Starts an agent for each set of cores ("1", "2-3") and ends it afterwards. Yields their node ids.

    Args:
        cores: the instance's own agent must leave them free.
        endpoints: of the running instance.
        layout: its state folder; agents keep what they fetched there for the next run.
    """
    with contextlib.ExitStack() as stack:
        names = []
        for number, cpu_ids in enumerate(cores):
            name = f"agent-{number + 2}"
            folder = layout.root / FOLDER / name
            stack.callback(_stop, _start(name, cpu_ids, endpoints, layout.keys, folder))
            names.append(name)
        yield tuple(names)


def _start(name: str, cpu_ids: str, endpoints: Endpoints, keys: Path, folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
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
    command = [sys.executable, "-m", "services.node_agent"]
    with (folder / "agent.log").open("wb") as log:
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=die_with_parent,
        )  # fmt: skip


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
