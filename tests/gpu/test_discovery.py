"""Discovery: what a machine has, what is wrong with its driver, what differs from known boards; replicas on boards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.node_agent.core.mig.model import DeviceTable, Placement
from services.node_agent.gpu.board_name import device_class, profile_name, targets
from services.node_agent.gpu.differences import differences
from services.node_agent.gpu.discovery import discover_boards, discover_in_time
from services.node_agent.gpu.known_boards import H100_80
from services.node_agent.gpu.nvml import NvmlReader, open_nvml
from services.node_agent.gpu.simulated import Fault, FaultKind
from services.node_agent.gpu.simulated.slices import SimulatedProcess
from services.node_agent.replica.device import open_device
from tradewind.domain.errors import DeviceFault, InvalidField
from tradewind.domain.figures import FigureSource

from .rigs import Rig, loaded_library, nvml

SYMBOLS = "nvmlDeviceGetCount_v2"


def own_nvml() -> NvmlReader | None:
    """The library of this process, which each test has for itself; the agent's own child is under `reading/`."""
    session = open_nvml()
    return NvmlReader(session) if session is not None else None


@pytest.fixture
def rig(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """The fake library under this process."""
    with loaded_library(library, tmp_path) as own:
        made = nvml(("h100-80", "a100-40"), tmp_path, own)
        monkeypatch.setenv("FAKE_NVML_MACHINE", str(made.machine.file))
        yield made


def test_boards_are_found_and_told(rig: Rig) -> None:
    uuid = rig.machine.uuids[0]
    rig.admin.set_mig_mode(uuid, True)
    rig.admin.create_compute_instance(uuid, rig.admin.create_gpu_instance(uuid, 9, Placement(4, 4)))
    rig.machine.start_process(rig.machine.uuids[1], SimulatedProcess(4242, None))
    with capture_logs() as logs:
        found = discover_boards("", open_reader=own_nvml)
    assert found.faults == () and not found.simulated
    hopper, ampere = (device.facts for device in found.devices)
    assert (hopper.device_class, ampere.device_class) == ("gpu:h100-80", "gpu:a100-40")
    assert hopper.targets == ("cuda:sm_89", "cuda:sm_86", "cuda:sm_80") and ampere.targets == ("cuda:sm_80",)
    assert [p.kind for p in found.devices[0].partitions()] == ["mig/3g.40gb"]
    assert found.devices[0].partitions()[0].uuid.startswith("MIG-")
    whole = found.devices[1].partitions()
    assert [(p.kind, p.uuid, p.memory_bytes) for p in whole] == [("gpu/whole", ampere.device_id, ampere.memory_bytes)]
    words = [log["event"] for log in logs]
    assert words.count("board found") == 2 and "other processes are on it" in words
    assert not any("differs" in text for text in words)


def test_without_rights_a_board_is_whole_or_out_in_words(rig: Rig) -> None:
    cut = rig.machine.uuids[0]
    rig.admin.set_mig_mode(cut, True)
    rig.admin.create_compute_instance(cut, rig.admin.create_gpu_instance(cut, 9, Placement(4, 4)))
    rig.machine.set(cut, "unprivileged", 1)
    first, second = discover_boards("", open_reader=own_nvml).devices
    assert first.partitions() == () and "its profiles could not be read" in first.read().fault
    assert first.read().energy.source is FigureSource.MEASURED_COUNTER, "it is metered all the same"
    assert [p.kind for p in second.partitions()] == ["gpu/whole"] and not second.read().fault
    with pytest.raises(DeviceFault, match=cut):
        first.check(cut, "gpu/whole", (), cut)


def test_a_lost_board_is_a_fault_and_others_are_offered(rig: Rig) -> None:
    rig.machine.lose(rig.machine.uuids[0])
    found = discover_boards("", open_reader=own_nvml)
    assert len(found.devices) == 1 and len(found.faults) == 1 and "does not answer" in found.faults[0]


@pytest.mark.parametrize(("code", "words"), [(9, "modprobe"), (18, "differ in version")])
def test_a_driver_that_cannot_be_used_is_said_in_words(rig: Rig, code: int, words: str) -> None:
    rig.machine.set(rig.machine.uuids[0], "driver_gone", code)
    found = discover_boards("", open_reader=own_nvml)
    assert found.devices == () and words in found.faults[0]


async def test_a_driver_that_hangs_does_not_hold_the_agent_up(rig: Rig) -> None:
    rig.machine.inject(Fault(FaultKind.HANG, SYMBOLS, number=1))
    found = await discover_in_time("", limit_s=0.2, open_reader=own_nvml)
    assert found.devices == () and "no answer within 0.2 s" in found.faults[0]
    # The thread comes out of the driver later: it must not meet the library of the next test.
    for thread in threading.enumerate():
        if thread.name == "gpu-discovery":
            await asyncio.to_thread(thread.join, 30)


def test_a_machine_that_cannot_be_simulated_is_refused() -> None:
    for text in ("h100-8", "h100-80x", "h100-80x99", "h100-80x0", "a30,"):
        with pytest.raises(InvalidField, match="simulated_machine"):
            discover_boards(text)


def test_differences_from_known_boards_are_named() -> None:
    known = H100_80.table
    assert differences("gpu:h100-80-pcie", known) == () == differences("gpu:x900-7", known)
    first, second, *rest = known.profiles
    strange = replace(first, profile_id=77, memory_bytes=first.memory_bytes * 2, instance_limit=9)
    table = DeviceTable("H100-80", (strange, replace(second, name="1g.10gb+new"), *rest))
    found = "; ".join(differences("gpu:h100-80", table))
    for words in ("id 77, known as 19", "most instances 9", "MiB", "1g.10gb+me is not offered", "1g.10gb+new is new"):
        assert words in found


@pytest.mark.parametrize(
    ("name", "mib", "expected"),
    [
        ("NVIDIA A100-SXM4-40GB", 40960, "gpu:a100-40"),
        ("NVIDIA A100 80GB PCIe", 81920, "gpu:a100-80-pcie"),
        ("NVIDIA H100 80GB HBM3", 81559, "gpu:h100-80"),
        ("NVIDIA H100 PCIe", 81559, "gpu:h100-80-pcie"),
        ("NVIDIA H100 NVL", 95830, "gpu:h100-94"),
        ("NVIDIA H200", 143771, "gpu:h200-141"),
        ("NVIDIA GH200 480GB", 97871, "gpu:gh200-96"),
        ("NVIDIA GeForce RTX 4090", 24564, "gpu:rtx-4090-24"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, "gpu:rtx-pro-6000-blackwell-server-edition-96"),
        ("Tesla T4", 15360, "gpu:t4-15"),
    ],
)
def test_boards_are_named_by_chip_and_memory(name: str, mib: int, expected: str) -> None:
    assert device_class(name, mib << 20) == expected


def test_names_of_profiles_that_the_library_does_not_give() -> None:
    gib = 1 << 30
    for slices, slice_gib, board_mib, expected in (
        (1, 5.81, 24576, "1g.6gb"),
        (3, 46.38, 95830, "3g.47gb"),
        (1, 16.0, 143771, "1g.18gb"),
        (3, 69.5, 143771, "3g.71gb"),
        (1, 22.0, 183359, "1g.23gb"),
    ):
        assert profile_name(slices, int(slice_gib * gib), board_mib << 20, "") == expected
    assert profile_name(1, 5 * gib, 40 * gib, "me") == "1g.5gb+me"


def test_code_runs_on_its_own_and_later_architectures() -> None:
    assert targets((7, 5)) == ()
    assert targets((8, 6)) == ("cuda:sm_86", "cuda:sm_80")
    assert targets((10, 0)) == targets((8, 9)) == ("cuda:sm_89", "cuda:sm_86", "cuda:sm_80")


@pytest.mark.parametrize(
    ("driver", "uuid", "words"),
    [
        ("cuda", "MIG-1", "opens no device here"),
        ("cuda", "", "placed on none"),
        ("local-task", "MIG-1", "runs on the CPU"),
        ("nonsense", "MIG-1", "opens no device here"),
    ],
)
def test_a_variant_without_its_device_is_refused(
    monkeypatch: pytest.MonkeyPatch, driver: str, uuid: str, words: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", uuid)
    with pytest.raises(DeviceFault, match=words):
        open_device(driver, 1)
