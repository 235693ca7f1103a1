"""What only the NVML back-end meets: the library's binary interface, its traps, old drivers, missing rights."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.faults import DriverTrouble, NoDriver, NoPermission
from services.node_agent.gpu.nvml import NvmlAdmin, NvmlReader, open_nvml
from services.node_agent.gpu.nvml.errors import fault_of
from services.node_agent.gpu.port import Activation
from services.node_agent.gpu.simulated import Fault, FaultKind
from services.node_agent.gpu.simulated.slices import SimulatedProcess

from .fake_nvml.library import build
from .fake_nvml.machine import FakeMachine
from .rigs import Rig, loaded_library, nvml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rig(library: Path, tmp_path: Path) -> Iterator[Rig]:
    """Two H100 and an A100."""
    with loaded_library(library, tmp_path) as own:
        yield nvml(("h100-80", "h100-80", "a100-40"), tmp_path, own)


def test_structs_are_those_of_pynvml(rig: Rig) -> None:
    names = (
        "GpuInstancePlacement_t", "GpuInstanceProfileInfo_t", "GpuInstanceProfileInfo_v2_t", "GpuInstanceInfo_t",
        "ComputeInstanceProfileInfo_t", "ComputeInstanceProfileInfo_v2_t", "ComputeInstanceInfo_t", "DeviceAttributes",
        "Memory_t", "Utilization_t", "ProcessInfo_v3_t", "FieldValue_t", "EventData_t", "GpmMetric_t", "GpmSupport_t",
    )  # fmt: skip
    for name in (*(f"c_nvml{name}" for name in names), "nvmlPciInfo_t"):
        assert rig.machine.size_of(name) == ctypes.sizeof(getattr(pynvml, name)), name


def test_handles_that_went_stale_are_renewed(rig: Rig) -> None:
    first, second, _ = (b.uuid for b in rig.reader.boards())
    other = rig.reopen()
    rig.machine.set(first, "shuffle", 1)
    assert other.admin.set_mig_mode(first, True) is Activation.ACTIVE
    gi_id = rig.admin.create_gpu_instance(first, 19, Placement(3, 1))
    assert rig.reader.instances(first)[0].gi_id == gi_id, "the board is the one meant, whatever its index is now"
    assert not rig.reader.mig_mode(second).current
    assert other.admin.create_compute_instance(first, gi_id).uuid.startswith("MIG-")


def test_slices_made_by_another_process_are_seen_by_event_or_in_time(rig: Rig) -> None:
    uuid = rig.reader.boards()[0].uuid
    rig.admin.set_mig_mode(uuid, True)
    other = rig.reopen()
    rig.reader.events(0.0)
    assert rig.reader.read_slices(uuid) == ()
    gi_id = other.admin.create_gpu_instance(uuid, 19, Placement(0, 1))
    other.admin.create_compute_instance(uuid, gi_id)
    rig.reader.events(0.0)
    assert [s.gi_id for s in rig.reader.read_slices(uuid)] == [gi_id]
    other.admin.destroy_compute_instance(uuid, gi_id, 0)
    other.admin.destroy_gpu_instance(uuid, gi_id)
    assert rig.reader.read_slices(uuid) == (), "one that vanished is no error"
    other.admin.create_compute_instance(uuid, other.admin.create_gpu_instance(uuid, 19, Placement(1, 1)))
    rig.advance(5.0)
    assert len(rig.reader.read_slices(uuid)) == 1, "without events, after five seconds"


def test_activity_begins_anew_when_an_id_comes_back(rig: Rig) -> None:
    uuid = rig.reader.boards()[0].uuid
    rig.admin.set_mig_mode(uuid, True)
    for expected in (0.75, 0.25):
        gi_id = rig.admin.create_gpu_instance(uuid, 9, Placement(4, 4))
        rig.admin.create_compute_instance(uuid, gi_id)
        rig.machine.set_load(uuid, gi_id, expected)
        assert rig.reader.read_slices(uuid)[0].sm_activity is None, "one sample says nothing"
        rig.advance(1.0)
        assert rig.reader.read_slices(uuid)[0].sm_activity == pytest.approx(expected)
        rig.advance(0.05)
        assert rig.reader.read_slices(uuid)[0].sm_activity == pytest.approx(expected), "too soon for another"
        rig.admin.destroy_compute_instance(uuid, gi_id, 0)
        rig.admin.destroy_gpu_instance(uuid, gi_id)


def test_without_rights_reading_goes_on_and_changing_does_not(rig: Rig) -> None:
    uuid = rig.reader.boards()[0].uuid
    rig.admin.set_mig_mode(uuid, True)
    gi_id = rig.admin.create_gpu_instance(uuid, 19, Placement(0, 1))
    rig.admin.create_compute_instance(uuid, gi_id)
    rig.machine.start_process(uuid, SimulatedProcess(9, gi_id, 1 << 20))
    rig.machine.set(uuid, "unprivileged", 1)
    assert rig.reader.read(uuid).power_mw and rig.reader.read_slices(uuid)[0].gi_id == gi_id
    assert [(p.pid, p.gi_id) for p in rig.reader.processes(uuid)] == [(9, gi_id)], "by slice, where not by board"
    for call in (
        lambda: rig.admin.set_mig_mode(uuid, False),
        lambda: rig.admin.create_gpu_instance(uuid, 19, Placement(1, 1)),
        lambda: rig.admin.set_power_cap(uuid, 300_000),
        lambda: rig.reader.instances(uuid),
    ):
        with pytest.raises(NoPermission, match="root"):
            call()


def test_an_old_drivers_library_lacks_functions(tmp_path: Path) -> None:
    missing = (
        "nvmlDeviceGetTotalEnergyConsumption", "nvmlGpmQueryDeviceSupport", "nvmlDeviceGetGpuInstanceProfileInfoV",
        "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetNumGpuCores", "nvmlDeviceGetNvLinkState",
    )  # fmt: skip
    (tmp_path / "old").mkdir()
    with loaded_library(build(tmp_path / "old", missing), tmp_path) as own:
        rig = nvml(("h100-80",), tmp_path, own)
        facts = rig.reader.boards()[0]
        assert facts.multiprocessor_count == 0 and facts.peers == ()
        rig.admin.set_mig_mode(facts.uuid, True)
        names = {p.name for p in rig.reader.table(facts.uuid).profiles}
        assert names == {"1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"}
        rig.admin.create_compute_instance(facts.uuid, rig.admin.create_gpu_instance(facts.uuid, 19, Placement(0, 1)))
        reading = rig.reader.read(facts.uuid)
        assert reading.energy_mj is None and reading.clock_reasons == () and reading.power_mw
        assert rig.reader.read_slices(facts.uuid)[0].sm_activity is None


@pytest.mark.parametrize(("code", "words"), [(9, "modprobe"), (18, "reboot")])
def test_a_library_without_its_driver_says_so(rig: Rig, code: int, words: str) -> None:
    rig.machine.set(rig.machine.uuids[0], "driver_gone", code)
    with pytest.raises(NoDriver, match=words):
        open_nvml()


def test_a_machine_without_the_library_has_no_boards() -> None:
    program = "from services.node_agent.gpu.nvml import open_nvml; assert open_nvml() is None"
    clean = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=clean, check=True, timeout=60)


def test_a_board_lost_before_the_start_is_named(rig: Rig) -> None:
    uuid = rig.machine.uuids[1]
    rig.machine.lose(uuid)
    fresh = rig.reopen()
    assert len(fresh.reader.boards()) == 2 and fresh.reader.lost() == ("index 1",)
    rig.reader.boards()
    assert rig.reader.lost() == (uuid,)


def test_an_activation_that_nobody_knows_is_trouble(rig: Rig) -> None:
    uuid = rig.reader.boards()[0].uuid
    rig.machine.inject(Fault(FaultKind.NOT_ACTIVE, "set_mig_mode", number=27))
    with pytest.raises(DriverTrouble, match="NVML 27"):
        rig.admin.set_mig_mode(uuid, True)


def test_codes_that_are_not_known_are_trouble() -> None:
    fault = fault_of(pynvml.NVMLError(17), "GPU-x")
    assert isinstance(fault, DriverTrouble) and (fault.code, fault.uuid) == (17, "GPU-x")


KILLED = """
import sys
from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.nvml import NvmlAdmin, NvmlReader, open_nvml
session = open_nvml()
NvmlAdmin(session).create_gpu_instance(sys.argv[1], 19, Placement(0, 1))
"""


@pytest.mark.parametrize("before", [True, False])
def test_the_machine_outlives_a_process_killed_inside_a_call(library: Path, tmp_path: Path, before: bool) -> None:
    with loaded_library(library, tmp_path) as own:
        rig = nvml(("h100-80",), tmp_path, own)
        uuid = rig.reader.boards()[0].uuid
        rig.admin.set_mig_mode(uuid, True)
        machine = rig.machine
        assert isinstance(machine, FakeMachine)
        machine.die(Fault(FaultKind.IN_USE, "create_gpu_instance"), before)
        env = {**os.environ, "LD_LIBRARY_PATH": str(library.parent), "FAKE_NVML_MACHINE": str(machine.file)}
        done = subprocess.run([sys.executable, "-c", KILLED, uuid], cwd=ROOT, env=env, timeout=60, check=False)
        assert done.returncode == -9
        assert len(rig.reader.instances(uuid)) == (0 if before else 1)


def test_admin_tells_the_reader_of_its_changes(rig: Rig) -> None:
    assert isinstance(rig.reader, NvmlReader)
    told: list[str] = []
    session = open_nvml()
    assert session is not None
    uuid = rig.reader.boards()[0].uuid
    NvmlAdmin(session, told.append).set_mig_mode(uuid, True)
    assert told == [uuid]
