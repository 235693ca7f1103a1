"""A board is measured at the clock asked for, and is at its own again whatever happens; what cannot be is refused.

Agent, helper's server, leases and replica process are real; the board is simulated. A variant for it is a CPU's: the
board computes nothing, its meter counts what the test has it draw, by its clock.
"""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.node_agent.core.power import Setting
from services.node_agent.gpu.board_watch import BoardWatch
from services.node_agent.gpu.device import GpuDevice
from services.node_agent.gpu.simulated import SimulatedGpus, SimulatedMachine, simulated_machine
from services.node_agent.serving.setting import at_setting
from tests.gpu.serving import Board, failing_board
from tests.node_agent.neighbours import FileCompiler
from tests.node_agent.test_bad_variants import Signer
from tests.node_agent.wait import until
from tests.tiny_variant import TinyVariant, build_tiny_variant
from tradewind.domain.errors import InvalidField, RemoteError
from tradewind.rpc.errors import translated
from tradewind.v1 import common_pb2, node_pb2, profiler_pb2

WHOLE, LOW_MHZ, NOTHING = "gpu/whole", 1080, node_pb2.LAYOUT_ACTIVITY_NOTHING
SHORT = node_pb2.MeasureLoad(prompt_tokens=5, output_tokens=4, concurrency=1, repeats=1)
LONG = node_pb2.MeasureLoad(prompt_tokens=100, output_tokens=100, concurrency=4, repeats=1000)


@pytest.fixture(scope="module")
def tiny() -> TinyVariant:
    return build_tiny_variant()


class Rig:
    """A board of which a variant that runs on simulated boards can be measured."""

    def __init__(self, board: Board, machine: SimulatedMachine, variant: TinyVariant) -> None:
        self.board, self.machine, self.variant = board, machine, variant
        self.real = machine.board(board.uuid)

    @property
    def locked_mhz(self) -> int | None:
        return self.real.rail.locked_mhz

    def wish(self, *loads: node_pb2.MeasureLoad, clock_mhz: int | None = None, **power: int) -> node_pb2.MeasureRequest:
        return node_pb2.MeasureRequest(
            variant_id=self.variant.variant.variant_id,
            manifest=self.variant.variant.manifest,
            device_id=self.board.uuid,
            partition_kind=WHOLE,
            loads=loads or (SHORT,),
            power=common_pb2.PowerSetting(sm_clock_mhz=clock_mhz, **power),
        )

    async def measure(self, wish: node_pb2.MeasureRequest) -> profiler_pb2.Profile:
        with translated("agent"):
            return [one async for one in self.board.agent.node.Measure(wish, timeout=120)][-1].profile

    async def refused(self, wish: node_pb2.MeasureRequest) -> tuple[str, str]:
        with pytest.raises(RemoteError) as caught:
            await self.measure(wish)
        return caught.value.remote_reason, caught.value.message

    async def at_work(self) -> Any:
        """A measurement at the lower clock that has begun."""
        call = self.board.agent.node.Measure(self.wish(LONG, clock_mhz=LOW_MHZ), timeout=300)
        async for response in call:
            if response.progress > 0.15:
                break
        assert self.locked_mhz == LOW_MHZ
        return call

    async def start_again(self) -> None:
        self.board.orchestrator.reports.append(node_pb2.NodeReport())
        await self.board.agent.start()
        await self.known()

    async def known(self) -> None:
        """The agent knows which partitions of its board are its own."""

        def there() -> bool:
            return [one.activity for one in self.board.orchestrator.report.layouts] == [NOTHING]

        await until(there)

    async def free(self, limit_s: float) -> None:
        await until(lambda: self.locked_mhz is None, limit_s, lambda: f"{self.locked_mhz} MHz")


def for_simulated_boards(tiny: TinyVariant, compiler: FileCompiler, keys: Path) -> TinyVariant:
    """The variant with a manifest by which simulated boards run it, offered by a compiler; makes `keys` for its key."""
    signer = Signer(keys)
    manifest = dataclasses.replace(tiny.manifest, target="sim:gpu", compiled_target="sim:gpu")
    made = signer.offer(compiler, tiny, manifest)
    made.variant.target = made.variant.compiled_target = "sim:gpu"
    return dataclasses.replace(made, public_key_file=signer.folder / "mine.pub")


@asynccontextmanager
async def rig_of(tiny: TinyVariant, folder: Path) -> AsyncIterator[Rig]:
    variant = for_simulated_boards(tiny, FileCompiler(), folder / "keys")  # type: ignore[abstract]
    async with failing_board(variant, folder) as (board, machine):
        rig = Rig(board, machine, variant)
        await rig.known()
        yield rig


async def test_figures_are_of_the_clock_asked_for_and_the_board_is_at_its_own_before_and_after(
    tiny: TinyVariant, tmp_path: Path
) -> None:
    async with rig_of(tiny, tmp_path) as rig:
        rig.machine.set_load(rig.board.uuid, None, 1.0)
        full = await rig.measure(rig.wish())
        assert rig.locked_mhz is None
        low = await rig.measure(rig.wish(clock_mhz=LOW_MHZ))
        assert (full.point.power, low.point.power) == (
            common_pb2.PowerSetting(),
            common_pb2.PowerSetting(sm_clock_mhz=LOW_MHZ),
        )
        assert (full.ran_sm_clock_mhz, low.ran_sm_clock_mhz) == (1980, LOW_MHZ)
        (at_full,), (at_low,) = full.loads, low.loads
        assert at_full.energy_per_token.source == common_pb2.FIGURE_SOURCE_SIMULATED
        per_s = [p.energy_per_token.energy_mj * p.tokens_per_s for p in (at_full, at_low)]
        assert per_s[0] == pytest.approx(630e3, rel=0.1)
        assert per_s[1] / per_s[0] == pytest.approx(LOW_MHZ / 1980, rel=0.1)
        await rig.free(5)


async def test_the_clock_is_given_back_when_a_measurement_is_cancelled_or_its_agent_ends(
    tiny: TinyVariant, tmp_path: Path
) -> None:
    async with rig_of(tiny, tmp_path) as rig:
        (await rig.at_work()).cancel()
        await rig.free(5)
        # A call that nobody has any more is cancelled.
        calls = [await rig.at_work()]
        await rig.board.agent.signal(signal.SIGTERM)
        assert rig.locked_mhz is None
        await rig.start_again()
        calls.append(await rig.at_work())
        await rig.board.agent.signal(signal.SIGKILL)
        assert rig.locked_mhz == LOW_MHZ, "until its lease ends, or the agent is there again"
        for call in calls:
            call.cancel()
        await rig.board.agent.start()
        await rig.free(10)


async def test_a_board_with_something_on_it_keeps_its_clock(tiny: TinyVariant, tmp_path: Path) -> None:
    async with rig_of(tiny, tmp_path) as rig:
        board = rig.board
        assert await rig.refused(rig.wish(clock_mhz=1207)) == (
            "INVALID_FIELD",
            "power.sm_clock_mhz: 1207 MHz is no clock of this board; those next to it are 1200 and 1215 MHz",
        )
        assert "210 to 1980 MHz" in (await rig.refused(rig.wish(clock_mhz=100)))[1]
        assert "one clock" in (await rig.refused(rig.wish(eased_sm_clock_mhz=LOW_MHZ)))[1]
        call = await rig.at_work()
        board.tell([], served="whole")
        reason, words = await ended(call)
        assert (reason, "a replica came to" in words) == ("IN_USE", True)
        assert rig.locked_mhz is None
        await board.orchestrator.state("served", node_pb2.REPLICA_STATE_READY)
        reason, words = await rig.refused(rig.wish(clock_mhz=LOW_MHZ))
        assert (reason, "has a replica" in words) == ("IN_USE", True)
        board.tell(["9@4"])
        await board.ended(node_pb2.LAYOUT_OUTCOME_REACHED, "9@4")
        board.tell(["9@4", "9@0"])
        await board.ended(node_pb2.LAYOUT_OUTCOME_REACHED, "9@0", "9@4")
        board.tell(["9@4", "9@0"], served="9@4")
        await board.orchestrator.state("served", node_pb2.REPLICA_STATE_READY)
        on_slice = rig.wish(clock_mhz=LOW_MHZ)
        on_slice.partition_kind = "mig/3g.40gb"
        reason, words = await rig.refused(on_slice)
        assert (reason, "in use by replica served" in words) == ("IN_USE", True)
        on_slice.ClearField("power")
        assert (await rig.measure(on_slice)).loads, "at the clock that the board has anyway"


def test_a_board_without_a_helper_says_what_to_do() -> None:
    gpus = SimulatedGpus(simulated_machine("h100-80", 1, time.monotonic))
    watch = BoardWatch(gpus, gpus.boards()[0], None, time.monotonic)
    watch.look()
    with pytest.raises(InvalidField, match="give it the privileged helper"):
        at_setting(None, GpuDevice(watch), Setting(None, LOW_MHZ))


async def ended(call: object) -> tuple[str, str]:
    with pytest.raises(RemoteError) as caught, translated("agent"):
        async for _ in call:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
    return caught.value.remote_reason, caught.value.message
