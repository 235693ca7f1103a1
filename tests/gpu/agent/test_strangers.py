"""A measurement is given no slice that somebody else made."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from services.node_agent.core.mig.model import Placement
from services.node_agent.gpu.board_watch import BoardWatch
from services.node_agent.gpu.device import GpuDevice
from services.node_agent.gpu.managed_boards import ManagedBoards, Reach, Surroundings
from services.node_agent.gpu.simulated import SimulatedGpus, simulated_machine
from tests.node_agent.wait import until
from tradewind.domain.errors import InUse


async def test_a_slice_of_somebody_else_is_not_cut_for_a_measurement(tmp_path: Path) -> None:
    gpus = SimulatedGpus(simulated_machine("h100-80", 1, time.monotonic))
    (facts,) = gpus.boards()
    gpus.set_mig_mode(facts.uuid, True)
    gpus.create_compute_instance(facts.uuid, gpus.create_gpu_instance(facts.uuid, 9, Placement(4, 4)))
    watch = BoardWatch(gpus, facts, gpus.table(facts.uuid), time.monotonic)
    watch.look()
    device = GpuDevice(watch, simulated=True)
    (standing,) = device.partitions()
    around = Surroundings(
        tmp_path, "boot", dict, lambda: False, lambda: None, lambda _: (), adopt=False, budget_mw=None
    )
    managed = ManagedBoards(Reach.directly(gpus, gpus), around)
    assert managed.strangers(device.partitions()) == set(), "a board that nobody manages has none"
    managed.start()
    try:
        await until(lambda: bool(managed.uuids))
        strangers = managed.strangers(device.partitions())
        assert strangers == {standing.uuid}
        with pytest.raises(InUse, match="somebody else's"):
            device.cut("mig/3g.40gb", strangers)
    finally:
        await managed.stop()
