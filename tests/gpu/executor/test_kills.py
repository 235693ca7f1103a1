"""A real process, really killed: SIGKILL inside the library, before or after a call took effect, over real pynvml."""

from __future__ import annotations

import multiprocessing
import signal
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from services.node_agent.core.mig.model import Layout, Slice
from services.node_agent.gpu.executor.look import slice_of
from services.node_agent.gpu.known_boards import H100_80
from services.node_agent.gpu.port import GpuInstance
from services.node_agent.gpu.simulated import Fault, FaultKind
from tests.gpu.executor.program import run
from tests.gpu.rigs import loaded_library, nvml
from tests.mig.fixtures import layout

BEFORE, AFTER = "3g.40gb@4 1g.10gb@0 1g.10gb@2", "4g.40gb@0 2g.20gb@4 1g.10gb@6"
CHANGES = ("create_gpu_instance", "create_compute_instance", "destroy_compute_instance", "destroy_gpu_instance")
# Promise 5; the process that starts and the retries are in it.
RECOVERY_LIMIT_S = 10.0


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that begin with everything imported and nothing else of this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.gpu.executor.program"])
    return context


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("verb", CHANGES)
def test_killed_in_a_call_and_started_again(
    library: Path, tmp_path: Path, processes: ForkServerContext, verb: str, before: bool
) -> None:
    with loaded_library(library, tmp_path) as own:
        rig = nvml(("h100-80",), tmp_path, own)

        def standing() -> dict[Slice, GpuInstance]:
            return {slice_of(one): one for one in rig.reader.instances(rig.machine.uuids[0])}

        def process(generation: int = 0, text: str = "") -> int | None:
            places = [(s.start, s.size, s.profile_id) for s in layout(H100_80.table, text)]
            executor = processes.Process(target=run, args=(own, rig.machine.file, tmp_path, generation, places))
            executor.start()
            executor.join(30)
            return executor.exitcode

        assert process(1, BEFORE) == 0
        assert Layout.of(standing()) == layout(H100_80.table, BEFORE)
        for number, goal in enumerate((AFTER, BEFORE, AFTER)):
            rig.machine.die(Fault(FaultKind.TROUBLE, verb=verb, after=number), before=before)
            assert process(2 + number, goal) == -signal.SIGKILL
            begun_s = time.monotonic()
            assert process() == 0
            assert time.monotonic() - begun_s < RECOVERY_LIMIT_S
            assert Layout.of(standing()) == layout(H100_80.table, goal)
            assert all(one.compute for one in standing().values()), "a slice without a compute instance is an orphan"
