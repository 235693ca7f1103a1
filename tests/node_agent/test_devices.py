"""The contract of devices, run over every back-end; meters; what a CPU is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.node_agent.core.energy import LinearPower, counter_growth, linear_power, measured_rate, modelled_rate
from services.node_agent.core.mig.model import Placement
from services.node_agent.devices.cpu import CpuDevice
from services.node_agent.devices.cpu_name import device_class, parse_cpuinfo, targets
from services.node_agent.devices.discovery import discover_cpu, offered_cpus
from services.node_agent.devices.inventory import Inventory
from services.node_agent.devices.port import Device, Partition, Reading
from services.node_agent.devices.simulated import SimulatedDevice
from services.node_agent.gpu.board_watch import BoardWatch
from services.node_agent.gpu.device import GpuDevice
from services.node_agent.gpu.simulated import SimulatedGpus, simulated_machine
from services.node_agent.meters.linear import LinearMeter
from services.node_agent.meters.rapl import open_rapl
from tradewind.domain.errors import InUse, InvalidField, UnsupportedModel
from tradewind.domain.figures import FigureSource


class Clock:
    """Time and CPU use that tests move."""

    def __init__(self) -> None:
        self.now_s, self.busy_s = 100.0, 50.0

    def time(self) -> float:
        return self.now_s

    def busy_core_s(self) -> float:
        return self.busy_s

    def memory_used_bytes(self) -> int:
        return 1 << 30

    def advance(self, seconds: float, busy_s: float) -> None:
        self.now_s += seconds
        self.busy_s += busy_s


MODEL = LinearPower(idle_w=2.0, core_w=4.0, basis="test")


def modelled(clock: Clock) -> Device:
    meter = LinearMeter(MODEL, clock.time, clock.busy_core_s)
    return CpuDevice((0, 1, 2, 3), 4, ("cpu:test", "Test", ("cpu:host",)), 8 << 30, meter, MODEL, clock, clock.time)


def simulated(clock: Clock) -> Device:
    return SimulatedDevice("sim0", 4, seed=7, now_s=clock.time)


def board(clock: Clock) -> Device:
    """A simulated H100 with slices of each size, behind the device that real boards have."""
    machine = simulated_machine("h100-80", 1, clock.time)
    gpus = SimulatedGpus(machine)
    facts = gpus.boards()[0]
    gpus.set_mig_mode(facts.uuid, True)
    for profile_id, start, size in ((9, 4, 4), (14, 2, 2), (19, 0, 1), (19, 1, 1)):
        gi_id = gpus.create_gpu_instance(facts.uuid, profile_id, Placement(start, size))
        gpus.create_compute_instance(facts.uuid, gi_id)
        machine.set_load(facts.uuid, gi_id, 0.5)
    watch = BoardWatch(gpus, facts, gpus.table(facts.uuid), clock.time, FigureSource.SIMULATED)
    watch.look()
    return WatchedBoard(watch)


class WatchedBoard(GpuDevice):
    """Looks before each reading, as telemetry does each second."""

    def __init__(self, watch: BoardWatch) -> None:
        super().__init__(watch, simulated=True)
        self.watch = watch

    def read(self) -> Reading:
        self.watch.look()
        return super().read()


BACK_ENDS: list[Callable[[Clock], Device]] = [modelled, simulated, board]


def kinds(device: Device) -> list[str]:
    """Kinds that can be cut now: of a board those that stand, two of the smallest first."""
    standing = Counter(one.kind for one in device.partitions())
    return [kind for kind, _ in standing.most_common()] or list(device.facts.partition_kinds)


def same(device: Device, partition: Partition) -> None:
    device.check(partition.device_id, partition.kind, partition.cpu_ids, partition.uuid)


@pytest.mark.parametrize("make", BACK_ENDS)
class TestContract:
    def test_facts_are_whole_and_stay(self, make: Callable[[Clock], Device]) -> None:
        clock = Clock()
        device = make(clock)
        facts = device.facts
        assert facts.device_id and facts.device_class and facts.targets and facts.memory_bytes > 0
        assert facts.energy_source and facts.energy_method and facts.idle_power_mw > 0
        clock.advance(5, 3)
        device.read()
        assert device.facts == facts

    def test_every_kind_can_be_cut_and_is_its_own(self, make: Callable[[Clock], Device]) -> None:
        device = make(Clock())
        seen = set()
        assert set(kinds(device)) <= set(device.facts.partition_kinds)
        for kind in kinds(device):
            partition = device.cut(kind)
            assert (partition.kind, partition.device_id) == (kind, device.facts.device_id)
            assert partition.memory_bytes > 0
            same(device, partition)
            assert device.cut(kind) == partition, "the same question, the same answer"
            seen.add(partition.partition_id)
        assert len(seen) == len(kinds(device))

    def test_cutting_stays_off_what_is_busy(self, make: Callable[[Clock], Device]) -> None:
        device = make(Clock())
        kind = kinds(device)[0]
        first = device.cut(kind)
        had = {*first.cpu_ids, first.uuid}
        second = device.cut(kind, had)
        assert not set(first.cpu_ids) & set(second.cpu_ids) and first != second
        everything = {*device.facts.cpu_ids, *(one.uuid for one in device.partitions())}
        if device.facts.cpu_ids:
            assert device.cut(kind, everything).cpu_ids, "all busy: it still gets some"
        else:
            with pytest.raises(InUse):
                device.cut(kind, everything)

    def test_strange_partitions_are_refused(self, make: Callable[[Clock], Device]) -> None:
        device = make(Clock())
        kind = device.facts.partition_kinds[0]
        for wrong in (("other", kind, (0,)), ("", kind, (0, 1)), ("", kind, (99,)), ("", "x/1", (0,)), ("", kind, ())):
            with pytest.raises(InvalidField):
                device.check(*wrong)
        with pytest.raises(InvalidField):
            device.cut("nothing/3")

    def test_energy_only_grows_and_power_goes_with_it(self, make: Callable[[Clock], Device]) -> None:
        clock = Clock()
        device = make(clock)
        before = device.read()
        for seconds, busy_s in ((1.0, 2.0), (0.5, 0.0), (2.0, 8.0), (1.0, -0.5), (3.0, 1.0)):
            clock.advance(seconds, busy_s)
            now = device.read()
            assert now.energy.energy_mj >= before.energy.energy_mj
            assert now.energy.source == device.facts.energy_source
            grown_mj = now.energy.energy_mj - before.energy.energy_mj
            if now.board is None:
                assert now.power_mw == pytest.approx(grown_mj / seconds)
            else:
                assert now.power_mw > 0, "a mean over a longer window"
            assert 0 <= now.utilization <= 1
            before = now
        rate = device.rate()
        assert rate.source >= FigureSource.ATTRIBUTED
        assert rate.mj_per_core_s > 0 or rate.source is FigureSource.UNAVAILABLE


def test_the_model_is_a_straight_line() -> None:
    clock = Clock()
    device = modelled(clock)
    clock.advance(10, 5)
    reading = device.read()
    assert reading.energy.energy_mj == pytest.approx((2.0 * 10 + 4.0 * 5) * 1e3)
    assert reading.utilization == pytest.approx(5 / 40)
    assert reading.energy.source is FigureSource.MODELLED and "idle=2W" in reading.energy.method
    assert device.rate() == modelled_rate(MODEL)


def rapl_zone(root: Path, name: str, zone: str, energy_uj: int, wraps_at_uj: int = 1_000_000) -> Path:
    folder = root / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(name)
    (folder / "max_energy_range_uj").write_text(str(wraps_at_uj))
    (folder / "energy_uj").write_text(str(energy_uj))
    return folder / "energy_uj"


def test_rapl_sums_packages_and_memory_once_and_over_wraps(tmp_path: Path) -> None:
    package = rapl_zone(tmp_path, "package-0", "intel-rapl:0", 999_000)
    core = rapl_zone(tmp_path, "core", "intel-rapl:0:0", 5)
    memory = rapl_zone(tmp_path, "dram", "intel-rapl:0:1", 10)
    rapl_zone(tmp_path, "psys", "intel-rapl:1", 7)
    meter = open_rapl(tmp_path)
    assert meter is not None and meter.method == "rapl@1(dram+package-0)"
    assert meter.energy_mj() == 0
    package.write_text("500")
    core.write_text("900000")
    memory.write_text("2010")
    assert meter.energy_mj() == pytest.approx((1_501 + 2_000) / 1e3)
    memory.unlink()
    assert meter.energy_mj() == pytest.approx((1_501 + 2_000) / 1e3), "an unreadable zone does not fall"


def test_without_packages_there_is_no_rapl(tmp_path: Path) -> None:
    assert open_rapl(tmp_path / "none") is None
    rapl_zone(tmp_path, "psys", "intel-rapl:1", 7)
    assert open_rapl(tmp_path) is None


def test_a_counter_of_the_whole_package_is_shared_by_cores(tmp_path: Path) -> None:
    counter = rapl_zone(tmp_path, "package-0", "intel-rapl:0", 0, 10**12)
    meter = open_rapl(tmp_path)
    assert meter is not None
    clock = Clock()
    names = ("cpu:test", "Test", ("cpu:host",))
    device = CpuDevice((0, 1), 4, names, 1 << 30, meter, MODEL, clock, clock.time)
    assert device.facts.energy_source is FigureSource.ATTRIBUTED
    clock.advance(1, 0)
    counter.write_text("2000000")
    device.read()
    clock.advance(1, 1)
    counter.write_text("8000000")
    reading = device.read()
    assert reading.energy.energy_mj == pytest.approx(4000)
    assert "by-cores" in reading.energy.method
    # Above the 1 W that were drawn idle, 2 J for one busy core-second.
    assert device.rate().mj_per_core_s == pytest.approx(2000)
    assert device.rate().source is FigureSource.ATTRIBUTED


@given(before=st.integers(0, 1000), growth=st.integers(0, 1000))
def test_a_counter_that_wrapped_once_lost_nothing(before: int, growth: int) -> None:
    assert counter_growth(before, (before + growth) % 1001, 1000) == growth % 1001


def test_a_counter_that_was_reset_counts_from_zero() -> None:
    assert counter_growth(500, 20, 0) == 20


def test_rates_need_something_busy_and_something_drawn() -> None:
    assert measured_rate(1000, 1, 0, 0.5, "m") is None
    assert measured_rate(400, 1, 1, 0.5, "m") is None
    rate = measured_rate(1500, 1, 2, 0.5, "m")
    assert rate is not None and rate.mj_per_core_s == 500


def test_a_known_tdp_gives_the_parameters() -> None:
    assert linear_power(2, 4, 100).core_w == pytest.approx(18.75)
    assert "tdp=100W" in linear_power(2, 4, 100).method
    assert linear_power(2, 4, 0).idle_w == pytest.approx(2.4)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"model name": "AMD EPYC", "vendor_id": "AuthenticAMD", "cpu family": "25", "model": "1"}, "amd-epyc-milan"),
        ({"model name": "AMD EPYC 7763 64-Core Processor"}, "amd-epyc-7763"),
        ({"model name": "Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz"}, "intel-xeon-platinum-8480"),
        (
            {"model name": "AMD EPYC", "vendor_id": "AuthenticAMD", "cpu family": "99", "model": "7"},
            "amd-epyc-family99-model7",
        ),
        ({"CPU part": "0xd0c"}, "aarch64-0xd0c"),
    ],
)
def test_device_classes_are_plain_words(info: dict[str, str], expected: str) -> None:
    assert device_class(info, "aarch64") == f"cpu:{expected}"


def test_targets_follow_the_flags() -> None:
    level3 = "avx2 bmi1 bmi2 f16c fma abm movbe"
    level4 = f"{level3} avx512f avx512bw avx512cd avx512dq avx512vl"
    assert targets({"flags": ""}) == ("cpu:host", "vmvx:portable")
    assert targets({"flags": level3}) == ("cpu:host", "cpu:x86-64-v3", "vmvx:portable")
    assert targets({"flags": level4}) == ("cpu:host", "cpu:x86-64-v4", "cpu:x86-64-v3", "vmvx:portable")
    assert targets(parse_cpuinfo("processor: 0\nflags\t: avx2\n\nprocessor: 1\n")) == ("cpu:host", "vmvx:portable")


def test_this_machine_is_a_device() -> None:
    device = discover_cpu((0,), 0.0)
    assert device.facts.device_class.startswith("cpu:") and device.facts.partition_kinds == ("cpu/1",)


@pytest.mark.parametrize(
    ("wanted", "offered"), [("", (0, 1, 2, 3)), ("0,2", (0, 2)), ("1-3", (1, 2, 3)), ("0, 2-3", (0, 2, 3))]
)
def test_cpus_offered(wanted: str, offered: tuple[int, ...]) -> None:
    assert offered_cpus(wanted, {0, 1, 2, 3}) == offered


@pytest.mark.parametrize("wrong", ["x", "0-", "9", "0,9"])
def test_cpus_that_cannot_be_offered(wrong: str) -> None:
    with pytest.raises(InvalidField, match="cpu_ids"):
        print(offered_cpus(wrong, {1, 2, 3}))


def test_an_inventory_finds_by_id_and_target() -> None:
    clock = Clock()
    inventory = Inventory([modelled(clock), simulated(clock)])
    assert inventory.find("").facts.device_id == "cpu0"
    assert inventory.for_target("sim:any", "").facts.device_id == "sim0"
    with pytest.raises(InvalidField):
        inventory.find("gpu0")
    with pytest.raises(UnsupportedModel, match="cpu:host, sim:any"):
        inventory.for_target("cuda:sm_80", "")
    with pytest.raises(UnsupportedModel):
        inventory.for_target("sim:any", "cpu0")
