"""The helper's server in a thread of the test, over a back-end of the test's: all but the worker process is real."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from services.node_agent.gpu.helper.audit import Audit
from services.node_agent.gpu.helper.backend import Backend
from services.node_agent.gpu.helper.client import HelperClient
from services.node_agent.gpu.helper.leases import Leases
from services.node_agent.gpu.helper.server import Server, listen
from services.node_agent.gpu.helper.verbs import VERBS
from services.node_agent.gpu.port import GpuAdmin, GpuReader


def client_of_helper(reader: GpuReader, admin: GpuAdmin, folder: Path) -> HelperClient:
    """A client connected to a helper over these."""
    place = Path(tempfile.mkdtemp(dir=folder))
    backend = Backend(reader, admin)

    async def ask(verb: str, **arguments: Any) -> Any:
        checked = VERBS[verb].arguments.model_validate(arguments)
        return await asyncio.to_thread(backend.call, verb, checked)

    listening = listen(place / "s", None)
    listening.listen()

    async def serve() -> None:
        audit = Audit(None, time.time)
        leases = Leases(ask, place / "leases", "boot", time.monotonic, lambda *_: None)
        leases.start()
        await Server(ask, leases, audit, {os.getuid()}).start(listening)
        await asyncio.Event().wait()

    threading.Thread(target=asyncio.run, args=(serve(),), daemon=True).start()
    return HelperClient(place / "s")
