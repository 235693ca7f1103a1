"""Composition root of the privileged helper: audit → worker → leases → socket; stopped in the reverse order."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

import structlog

from services.node_agent.gpu.helper.audit import Audit
from services.node_agent.gpu.helper.hand import Hand
from services.node_agent.gpu.helper.leases import Leases
from services.node_agent.gpu.helper.server import Server, listen
from services.node_agent.gpu.helper.settings import HelperSettings
from services.node_agent.report import read_boot_id
from tradewind import logs
from tradewind.domain.errors import InvalidField
from tradewind.rpc.service import Lifecycle, run
from tradewind.settings import read_or_exit

# A change of a board waits for the driver; what serves beside it goes first on the host's cores.
NICE: Final = 5


def main() -> None:
    """Runs the helper until a signal comes."""
    os.nice(NICE)
    settings = read_or_exit(HelperSettings)
    logs.configure("gpu_helper", settings.log_format, settings.log_level)
    run("gpu-helper", lambda life: start(settings, life))


async def start(settings: HelperSettings, life: Lifecycle) -> None:
    """Starts everything; registers what stops it.

    Raises:
        TradewindError: a setting cannot be met, or another helper is there.
    """
    log = structlog.get_logger("gpu-helper")
    try:
        allowed, gid = settings.allowed_uids, settings.gid
    except ValueError as error:
        raise InvalidField("settings", str(error)) from error
    log.info("settings", socket=str(settings.socket), backend=settings.backend, allowed_uids=sorted(allowed))
    listening = await asyncio.to_thread(listen, settings.socket, gid)
    life.on_stop(lambda: asyncio.to_thread(_remove, settings.socket))
    audit = Audit(settings.audit_log, time.time)
    life.on_stop(lambda: asyncio.to_thread(audit.close))
    hand = Hand(settings.backend, settings.call_limit_s)
    hand.start()
    life.on_stop(hand.stop)
    leases = Leases(
        hand.ask,
        settings.state_dir / "leases.json",
        read_boot_id(),
        lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        lambda verb, arguments, result: audit.call(None, verb, arguments, result, 0.0),
    )
    leases.start()
    life.on_stop(leases.stop)
    server = Server(hand.ask, leases, audit, allowed)
    await server.start(listening)
    life.on_stop(server.stop)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
