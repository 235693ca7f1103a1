"""Finds this machine's NVIDIA boards. A machine without them, which is most, hears nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from services.node_agent.core.mig.model import DeviceTable
from services.node_agent.gpu.board_watch import BoardWatch
from services.node_agent.gpu.device import GpuDevice
from services.node_agent.gpu.differences import differences
from services.node_agent.gpu.faults import GpuError, NotSupported
from services.node_agent.gpu.helper.client import HelperClient
from services.node_agent.gpu.known_boards import known_board
from services.node_agent.gpu.port import BoardFacts, GpuReader
from services.node_agent.gpu.reading.process import open_reader_process
from services.node_agent.gpu.simulated import SimulatedGpus, simulated_machine
from tradewind.domain.figures import FigureSource

# A driver that does not answer within this at the start is in trouble; the agent starts without it.
DISCOVERY_LIMIT_S: Final = 30.0
# What a simulated machine says of its driver.
SIMULATED_DRIVER: Final = "simulated"
# Simulated machines of one description are the same at each start.
_SEED: Final = 1


Opener = Callable[[], GpuReader | None]


@dataclass(frozen=True, slots=True)
class Boards:
    """What was found.

    Attributes:
        reader: of the boards; None when there are none. That of a simulated machine is its `GpuAdmin`, too.
        watches: one for each board.
        devices: one for each board.
        faults: what is wrong with the driver or with boards that are lost already, in words.
        simulated: whether the boards are not there.
    """

    reader: GpuReader | None = None
    watches: tuple[BoardWatch, ...] = ()
    devices: tuple[GpuDevice, ...] = ()
    faults: tuple[str, ...] = ()
    simulated: bool = False


async def discover_in_time(
    simulated: str,
    helper: str = "",
    limit_s: float = DISCOVERY_LIMIT_S,
    open_reader: Opener = open_reader_process,
) -> Boards:
    """As `discover_boards`, off the event loop; a driver that does not answer in time is a fault of the node.

    The thread is a daemon: one that hangs in a driver does not keep the agent from ending.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Boards] = loop.create_future()

    def tell(boards: Boards | None, error: BaseException | None) -> None:
        if not found.done():
            found.set_exception(error) if error else found.set_result(boards or Boards())

    def look() -> None:
        boards, failed = None, None
        try:
            boards = discover_boards(simulated, helper, open_reader)
        except BaseException as error:  # noqa: BLE001  it is raised where this is awaited
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, boards, failed)

    threading.Thread(target=look, name="gpu-discovery", daemon=True).start()
    try:
        async with asyncio.timeout(limit_s):
            return await found
    except TimeoutError:
        return Boards(faults=(f"NVIDIA driver: no answer within {limit_s:g} s; see its kernel log (dmesg)",))


def discover_boards(simulated: str, helper: str = "", open_reader: Opener = open_reader_process) -> Boards:
    """The machine's boards; blocks for as long as the driver does.

    Args:
        simulated: description of a machine to simulate instead, for instance "h100-80x2"; "" for the real one.
        helper: socket of the privileged helper, which lists slices for an agent that may not, and reads everything
            where this process has no NVML; "" for none.
        open_reader: how NVML is reached.

    Raises:
        InvalidField: the description is not understood.
    """
    if simulated:
        machine = simulated_machine(simulated, _SEED, time.monotonic, lambda s: _pause(s))
        return _look_at(SimulatedGpus(machine), FigureSource.SIMULATED, managed=True)
    try:
        reader = open_reader()
    except GpuError as error:
        structlog.get_logger("gpu").error("the NVIDIA driver cannot be used", error=error.message)
        return Boards(faults=(f"NVIDIA driver: {error.message}",))
    lister = HelperClient(Path(helper)) if helper else None
    if reader is not None:
        return _look_at(reader, FigureSource.MEASURED_COUNTER, managed=lister is not None, lister=lister)
    return _through(lister) if lister else Boards()


def _through(helper: GpuReader) -> Boards:
    """Boards that the helper has: those of its host, read from a container, or those that it simulates."""
    try:
        simulated = helper.system().driver_version == SIMULATED_DRIVER
    except GpuError as error:
        structlog.get_logger("gpu").warning("no NVML here, and no helper to read boards through", error=error.message)
        return Boards()
    label = FigureSource.SIMULATED if simulated else FigureSource.MEASURED_COUNTER
    return _look_at(helper, label, managed=True)


def _look_at(reader: GpuReader, label: FigureSource, managed: bool, lister: GpuReader | None = None) -> Boards:
    log = structlog.get_logger("gpu")
    try:
        found, system = reader.boards(), reader.system()
    except GpuError as error:
        log.error("the NVIDIA driver cannot be used", error=error.message)
        return Boards(faults=(f"NVIDIA driver: {error.message}",))
    watches = tuple(
        BoardWatch(reader, board, _table(lister or reader, board), time.monotonic, label, lister) for board in found
    )
    for watch in watches:
        watch.look()
        _tell(reader, watch, system.driver_version)
    faults = tuple(f"board {name} does not answer; reset it or reboot the machine" for name in reader.lost())
    for words in faults:
        log.error("board is lost", fault=words)
    devices = tuple(GpuDevice(watch, managed, managed, label is FigureSource.SIMULATED) for watch in watches)
    return Boards(reader, watches, devices, faults, label is FigureSource.SIMULATED)


def _table(reader: GpuReader, board: BoardFacts) -> DeviceTable | None:
    """Its profiles; None when it cannot be cut, or does not say how."""
    if not board.mig_capable:
        return None
    log = structlog.get_logger("gpu")
    try:
        table = reader.table(board.uuid)
    except NotSupported:
        return None
    except GpuError as error:
        log.warning("profiles cannot be read; the board is offered whole", uuid=board.uuid, error=error.message)
        return None
    if known_board(board.device_class) is None:
        log.info("no such board is known; what it reports is taken", device_class=board.device_class)
    for words in differences(board.device_class, table):
        log.warning("the board differs from what is known of it; the board is right", uuid=board.uuid, what=words)
    return table


def _tell(reader: GpuReader, watch: BoardWatch, driver: str) -> None:
    board, state = watch.facts, watch.state
    log = structlog.get_logger("gpu").bind(uuid=board.uuid)
    facts = {"mig": state.mode_on, "slices": len(state.slices), "driver": driver, "energy": state.energy.source.label}
    log.info("board found", product=board.product_name, device_class=board.device_class, **facts)
    if board.exclusive:
        log.warning("its compute mode lets one process in, or none; slices need the default mode (nvidia-smi -c 0)")
    try:
        others = [process.pid for process in reader.processes(board.uuid)]
    except GpuError as error:
        log.info("processes on it cannot be seen", error=error.message)
        return
    if others:
        log.warning("other processes are on it", pids=others)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
