"""The push of layouts and power takes effect: orchestrator → real gRPC → agent process → helper process → boards.

The boards are simulated, in the helper's worker; everything else is what runs in production.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.gpu.helper.process import Helper
from tests.node_agent.agent_process import NODE_ID, Agent
from tests.node_agent.neighbours import Orchestrator, serve_orchestrator
from tests.node_agent.wait import until
from tradewind.v1 import common_pb2, node_pb2

REACHED, REFUSED = node_pb2.LAYOUT_OUTCOME_REACHED, node_pb2.LAYOUT_OUTCOME_REFUSED
# Promise 5, with a process that has to start.
RECOVERY_LIMIT_S = 10.0


@dataclass
class World:
    """The neighbours of a board."""

    orchestrator: Orchestrator
    agent: Agent
    helper: Helper
    boards: tuple[str, ...]

    def push(self, generation: int, names: dict[str, str], caps_mw: dict[str, int] | None = None) -> None:
        """A target: partitions by id and kind, and caps by board."""
        partitions = [
            common_pb2.Partition(partition_id=name, device_id=name.partition(":")[0], kind=kind)
            for name, kind in names.items()
        ]
        power = {uuid: common_pb2.PowerSetting(power_cap_mw=cap) for uuid, cap in (caps_mw or {}).items()}
        target = node_pb2.NodeTarget(
            node_id=NODE_ID, generation=generation, fencing=1, partitions=partitions, power_settings=power
        )
        self.orchestrator.push(target)

    def layout(self, board: int = 0) -> node_pb2.LayoutStatus:
        uuid = self.boards[board]
        found = [one for one in self.orchestrator.report.layouts if one.device_id == uuid]
        return found[0] if found else node_pb2.LayoutStatus()

    def slices(self, board: int = 0) -> dict[str, str]:
        """UUID by partition id."""
        uuid = self.boards[board]
        return {one.partition_id: one.uuid for one in self.orchestrator.report.partitions if one.device_id == uuid}

    async def reached(self, generation: int, *names: str, limit_s: float = 30) -> dict[str, str]:
        """The report says that exactly these slices stand; UUID by name."""

        def there() -> bool:
            layout = self.layout()
            return (layout.generation, layout.outcome) == (generation, REACHED) and set(self.slices()) == set(names)

        await until(there, limit_s, lambda: f"{self.layout()} {self.slices()}")
        return self.slices()

    async def told(self, condition: Callable[[node_pb2.NodeReport], bool]) -> None:
        await until(lambda: condition(self.orchestrator.report), 30, lambda: str(self.orchestrator.report))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    orchestrator = Orchestrator()
    server = await serve_orchestrator(orchestrator)
    with tempfile.TemporaryDirectory() as folder, Helper(Path(folder) / "run") as helper:
        boards = tuple(board.uuid for board in helper.client.boards())
        helper.client.close()
        settings = {"gpu_helper": str(helper.socket), "cpu_ids": "0"}
        agent = Agent(tmp_path / "state", "127.0.0.1:1", server.address, tmp_path, **settings)
        await agent.start()
        world = World(orchestrator, agent, helper, boards)
        await until(lambda: bool(orchestrator.reports) and len(orchestrator.report.layouts) == 2)
        yield world
        await agent.close()
    await server.stop(0)


async def test_a_pushed_layout_stands_also_when_the_agent_is_killed_on_the_way(world: World) -> None:
    board = world.boards[0]
    large, small, double = f"{board}:mig:9@4", f"{board}:mig:19@0", f"{board}:mig:14@0"
    await until(lambda: set(world.slices()) == {f"{board}:whole"})
    device = next(one for one in world.orchestrator.report.devices if one.device_id == board)
    assert (device.kind, device.can_partition, device.can_set_power) == (node_pb2.DEVICE_KIND_SIMULATED, True, True)
    assert {one.profile_id: list(one.starts) for one in device.slice_kinds}[9] == [0, 4]
    clocks = [(one.sm_clock_mhz, one.eased_sm_clock_mhz) for one in device.power_settings]
    assert clocks == [(0, 1080), (1080, 0), (1380, 0), (1680, 0)]
    world.push(1, {large: "mig/3g.40gb", small: ""}, {world.boards[1]: 300_000})
    first = await world.reached(1, large, small)
    assert all(uuid.startswith("MIG-") for uuid in first.values())
    assert [one.memory_bytes for one in world.orchestrator.report.partitions if one.partition_id == large] != [0]
    # The other board was not named: it is left as it is.
    assert set(world.slices(1)) == {f"{world.boards[1]}:whole"}

    world.push(2, {large: "mig/3g.40gb", double: "mig/2g.20gb", f"{board}:mig:19@2": "mig/1g.10gb"})
    await until(lambda: world.layout().generation == 2 or len(world.helper.audited()) > 12)
    await world.agent.signal(signal.SIGKILL)
    await world.agent.start()
    after = await world.reached(2, large, double, f"{board}:mig:19@2", limit_s=RECOVERY_LIMIT_S)
    assert after[large] == first[large], "a slice that stays keeps its UUID"


async def test_power_is_held_reported_and_given_back(world: World) -> None:
    uuid = world.boards[0]

    def power() -> node_pb2.PowerStatus:
        found = [one for one in world.orchestrator.report.power_states if one.device_id == uuid]
        return found[0] if found else node_pb2.PowerStatus()

    world.push(1, {}, {uuid: 300_000})
    await until(lambda: power().enforced_cap_mw == 300_000, 30, lambda: str(power()))
    assert (power().requested.power_cap_mw, power().admitted.power_cap_mw, power().not_in_force) == (
        300_000,
        300_000,
        "",
    )
    world.push(2, {}, {uuid: 100})
    await until(lambda: power().refusal != "", 30, lambda: str(power()))
    assert "200000 to 700000 mW" in power().refusal
    world.push(3, {})
    await until(lambda: power().enforced_cap_mw == 700_000, 30, lambda: str(power()))


async def test_what_cannot_be_is_refused_in_the_report(world: World) -> None:
    board = world.boards[0]
    world.push(1, {f"{board}:mig:9@1": ""})
    await world.told(lambda _: world.layout().outcome == REFUSED)
    assert "is no place on" in world.layout().outcome_words
    world.push(2, {f"{board}:a": "mig/9g.1tb"})
    await world.told(lambda _: "mig/3g.40gb" in world.layout().outcome_words)
    world.push(3, {f"{board}:a": "mig/4g.40gb", f"{board}:b": "mig/4g.40gb"})
    await world.told(lambda _: world.layout().code == "does_not_fit")
    assert set(world.slices()) == {f"{board}:whole"}


async def test_a_driver_that_hangs_does_not_stop_the_heartbeat(world: World) -> None:
    """The worker is stopped in its tracks, then killed like by a bad pointer: reports go on, and boards come back."""
    worker = world.helper.worker
    worker.send_signal(signal.SIGSTOP)
    world.push(1, {f"{world.boards[0]}:mig:9@4": ""})
    seen = len(world.orchestrator.reports)
    await until(lambda: len(world.orchestrator.reports) > seen + 4, 6)
    with contextlib.suppress(psutil.NoSuchProcess):
        # On a slow machine the helper has put another in its place by now.
        worker.send_signal(signal.SIGSEGV)
    await world.reached(1, f"{world.boards[0]}:mig:9@4")


async def test_a_simulated_machine_of_the_agent_itself_is_rebuilt_at_each_start(tmp_path: Path) -> None:
    """Without a helper the boards end with the agent: a start is a reboot, and the kept target brings them back."""
    orchestrator = Orchestrator()
    server = await serve_orchestrator(orchestrator)
    settings = {"simulated_machine": "h100-80", "cpu_ids": "0"}
    agent = await Agent(tmp_path / "state", "127.0.0.1:1", server.address, tmp_path, **settings).start()
    try:
        await until(lambda: bool(orchestrator.reports) and len(orchestrator.report.layouts) == 1)
        board = orchestrator.report.layouts[0].device_id
        name = f"{board}:mig:9@4"
        partition = common_pb2.Partition(partition_id=name, device_id=board, kind="mig/3g.40gb")
        orchestrator.push(node_pb2.NodeTarget(node_id=NODE_ID, generation=1, fencing=1, partitions=[partition]))
        for _ in range(2):
            await until(lambda: [one.partition_id for one in orchestrator.report.partitions] == [name])
            await agent.signal(signal.SIGTERM)
            orchestrator.reports.append(node_pb2.NodeReport())
            await agent.start()
    finally:
        await agent.close()
        await server.stop(0)
