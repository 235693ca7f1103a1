"""The agent as a real process on a machine with NVIDIA boards (fake library): what it reports, and faults."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.reading.process import RESTART_PAUSE_S, WORKER
from services.node_agent.gpu.simulated import Fault, FaultKind
from tests.node_agent.agent_process import Agent
from tradewind.v1 import common_pb2, node_pb2

from .rigs import Rig, loaded_library, nvml

BY_COUNTER, ATTRIBUTED = common_pb2.FIGURE_SOURCE_MEASURED_COUNTER, common_pb2.FIGURE_SOURCE_ATTRIBUTED


@pytest.fixture
def rig(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A machine that this process drives and the agent reads."""
    with loaded_library(library, tmp_path) as own:
        made = nvml(("h100-80", "h100-80"), tmp_path, own)
        made.machine.run_in_real_time()
        monkeypatch.setenv("FAKE_NVML_MACHINE", str(made.machine.file))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
        yield made


@pytest.fixture
async def agent(rig: Rig, tmp_path: Path) -> AsyncIterator[Agent]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = "127.0.0.1:1"
    made = Agent(tmp_path / "state", nobody, nobody, tmp_path, metrics_listen=f"127.0.0.1:{port}", cpu_ids="0")
    made.metrics = f"http://127.0.0.1:{port}/metrics"  # type: ignore[attr-defined]
    uuid = rig.reader.boards()[0].uuid
    rig.admin.set_mig_mode(uuid, True)
    rig.admin.create_compute_instance(uuid, rig.admin.create_gpu_instance(uuid, 9, Placement(4, 4)))
    yield await made.start()
    await made.close()


def reading(report: node_pb2.NodeReport, device_id: str) -> node_pb2.DeviceReading:
    return next(one for one in report.readings if one.device_id == device_id)


async def metrics_of(agent: Agent) -> str:
    return (await asyncio.to_thread(httpx.get, agent.metrics, timeout=5)).text  # type: ignore[attr-defined]


async def hears(rig: Rig, agent: Agent, uuid: str) -> None:
    """Waits until the agent hears the driver, which tells nobody of what came before: by an XID that is a program's."""
    deadline_s = time.monotonic() + 15
    while 'event="xid 13"' not in await metrics_of(agent):
        assert time.monotonic() < deadline_s
        rig.machine.xid(uuid, 13)
        await asyncio.sleep(0.1)


async def test_boards_slices_and_faults_are_reported(rig: Rig, agent: Agent) -> None:
    cut, whole = rig.machine.uuids
    report = await agent.describe()
    assert [d.device_id for d in report.devices] == ["cpu0", cut, whole]
    assert report.devices[1].device_class == "gpu:h100-80" and "mig/3g.40gb" in report.devices[1].partition_kinds
    assert {p.kind for p in report.partitions} == {"mig/3g.40gb", "gpu/whole"}

    # Another tool makes a slice while the agent runs; the first one works. Seen once a whole look has passed with both.
    await hears(rig, agent, cut)
    first = rig.reader.instances(cut)[0]
    rig.admin.create_compute_instance(cut, rig.admin.create_gpu_instance(cut, 19, Placement(0, 1)))
    rig.machine.set_load(cut, first.gi_id, 0.5, 0.2)

    def both_seen(report: node_pb2.NodeReport) -> bool:
        slices = {one.partition.uuid: one for one in reading(report, cut).slices}
        busy = slices[first.compute[0].uuid].sm_activity == pytest.approx(0.5, abs=0.05)
        return busy and len(slices) == 2 and all(one.power_mw > 0 for one in slices.values())

    seen = await until(agent, both_seen)
    board = reading(seen, cut)
    assert board.energy.source == BY_COUNTER and board.temperature_c and board.sm_clock_mhz and not board.fault
    one = next(s for s in board.slices if s.partition.uuid == first.compute[0].uuid)
    assert one.energy.source == ATTRIBUTED
    assert {"mig/3g.40gb", "mig/1g.10gb", "gpu/whole"} == {p.kind for p in seen.partitions}

    # A board falls off the bus: out within five seconds, the others and the agent go on.
    began_s = time.monotonic()
    rig.machine.lose(whole)
    lost = await until(agent, lambda r: reading(r, whole).fault != "")
    assert time.monotonic() - began_s <= 5
    assert not reading(lost, cut).fault and not reading(lost, "cpu0").fault
    text = await metrics_of(agent)
    for words in (
        f'tradewind_device_fault{{device="{whole}"}} 1.0',
        f'tradewind_device_fault{{device="{cut}"}} 0.0',
        'tradewind_gpu_slice_energy_joules_total{device="' + cut,
        'tradewind_gpu_temperature_celsius{device="' + cut,
        'tradewind_gpu_events_total{device="' + cut + '",event="mig_changed"}',
    ):
        assert words in text


async def test_a_reading_process_that_hangs_or_dies_stops_no_heartbeat(rig: Rig, agent: Agent) -> None:
    """The agent answers all the while, the CPU is offered, the boards are out, and come back by themselves."""
    cut, _ = rig.machine.uuids
    first = reading_process(agent)
    first.suspend()
    silent = await until(agent, lambda r: "has not answered" in reading(r, cut).fault, limit_s=6)
    assert not reading(silent, "cpu0").fault
    first.send_signal(signal.SIGSEGV)
    first.resume()
    began_s = time.monotonic()
    await until(agent, lambda r: len(others(agent, first.pid)) == 1 and not reading(r, cut).fault)
    assert time.monotonic() - began_s < RESTART_PAUSE_S + 6
    rig.machine.die(Fault(FaultKind.TROUBLE, "read", cut), before=True)
    second = reading_process(agent).pid
    await until(agent, lambda r: len(others(agent, second)) == 1 and not reading(r, cut).fault)


def reading_processes(agent: Agent) -> list[psutil.Process]:
    """Children of the agent that read NVML."""
    children = agent.children()
    return [one for one in children if one.status() != psutil.STATUS_ZOMBIE and WORKER[-1] in one.cmdline()]


def reading_process(agent: Agent) -> psutil.Process:
    (one,) = reading_processes(agent)
    return one


def others(agent: Agent, pid: int) -> list[psutil.Process]:
    return [one for one in reading_processes(agent) if one.pid != pid]


async def until(
    agent: Agent, condition: Callable[[node_pb2.NodeReport], bool], limit_s: float = 15
) -> node_pb2.NodeReport:
    """The first report for which the condition holds."""
    deadline_s = time.monotonic() + limit_s
    while True:
        report = await agent.describe()
        if condition(report):
            return report
        assert time.monotonic() < deadline_s, report
        await asyncio.sleep(0.1)
