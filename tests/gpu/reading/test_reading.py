"""NVML in the agent's child, over the fake library: what crashes or hangs there is one failed look here."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.faults import DriverTrouble
from services.node_agent.gpu.port import EventKind
from services.node_agent.gpu.reading.process import RESTART_PAUSE_S, ReaderProcess
from services.node_agent.gpu.simulated import Fault, FaultKind
from tests.gpu.helper.process import until
from tests.gpu.rigs import Rig, loaded_library, nvml

LIMIT_S = 1.5
BACK_S = 10.0


@pytest.fixture
def rig(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A machine that this process drives and the child reads."""
    with loaded_library(library, tmp_path) as own:
        made = nvml(("h100-80", "h100-80"), tmp_path, own)
        made.machine.run_in_real_time()
        monkeypatch.setenv("FAKE_NVML_MACHINE", str(made.machine.file))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
        yield made


@pytest.fixture
def reader(rig: Rig) -> Iterator[ReaderProcess]:
    made = ReaderProcess(LIMIT_S)
    assert made.open()
    yield made
    made.close()


def test_it_reads_what_stands_and_changes_nothing(rig: Rig, reader: ReaderProcess) -> None:
    uuid = rig.machine.uuids[0]
    rig.admin.set_mig_mode(uuid, True)
    gi_id = rig.admin.create_gpu_instance(uuid, 9, Placement(4, 4))
    rig.admin.create_compute_instance(uuid, gi_id)
    assert [one.uuid for one in reader.boards()] == list(rig.machine.uuids)
    assert reader.table(uuid) == rig.reader.table(uuid)
    assert reader.instances(uuid) == rig.reader.instances(uuid)
    assert [one.gi_id for one in reader.read_slices(uuid)] == [gi_id]
    # The driver tells of what comes after somebody began to listen.
    reader.events(1.0)
    rig.machine.xid(uuid, 48)
    assert [(one.kind, one.number) for one in reader.events(1.0)] == [(EventKind.XID, 48)]
    assert reader._child is not None
    _, answer = reader._child.send("destroy_gpu_instance", {"uuid": uuid, "gi_id": gi_id})
    assert b"this process only reads" in answer.result(BACK_S)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_child_that_crashes_is_back_soon(rig: Rig, reader: ReaderProcess, number: signal.Signals) -> None:
    uuid = rig.machine.uuids[0]
    first = reader.pid
    assert first is not None
    os.kill(first, number)
    with pytest.raises(DriverTrouble, match="started again"):
        for _ in range(100):
            reader.read(uuid)
    took_s = until(lambda: _answers(reader, uuid), BACK_S)
    assert reader.pid != first and took_s < RESTART_PAUSE_S + 5


def test_a_library_that_dies_in_a_call_takes_one_look(rig: Rig, reader: ReaderProcess) -> None:
    uuid = rig.machine.uuids[0]
    rig.machine.die(Fault(FaultKind.TROUBLE, "read", uuid), before=True)
    with pytest.raises(DriverTrouble, match="started again"):
        reader.read(uuid)
    until(lambda: _answers(reader, uuid), BACK_S)


def test_a_board_that_hangs_holds_up_no_other_and_not_for_ever(rig: Rig, reader: ReaderProcess) -> None:
    hung, well = rig.machine.uuids
    rig.machine.inject(Fault(FaultKind.HANG, "read", hung, number=30))
    errors: list[DriverTrouble] = []

    def look() -> None:
        with pytest.raises(DriverTrouble) as caught:
            reader.read(hung)
        errors.append(caught.value)

    begun_s = time.monotonic()
    thread = threading.Thread(target=look)
    thread.start()
    assert reader.read(well).power_mw, "meanwhile"
    assert not errors
    thread.join(LIMIT_S + BACK_S)
    assert "no answer from the driver in 1.5 s" in errors[0].message and time.monotonic() - begun_s < LIMIT_S + 2
    until(lambda: _answers(reader, well), BACK_S)


def test_the_child_ends_with_its_parent(rig: Rig, reader: ReaderProcess) -> None:
    """Also when the parent is killed: its end of the pipe is closed by the kernel."""
    child = psutil.Process(reader.pid)
    assert reader._child is not None and reader._child.process.stdin is not None
    reader._child.process.stdin.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, BACK_S)


def _answers(reader: ReaderProcess, uuid: str) -> bool:
    try:
        return reader.read(uuid).power_mw is not None
    except DriverTrouble:
        return False
