"""Candidates timed on a node: a real agent fetches, runs and measures over real gRPC; who lists nodes is a stub."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.compiler.jobs.runner import JobRunner, Report
from services.compiler.making import Made, Maker
from services.compiler.order import Order
from services.compiler.search.bench import Bench, Wish
from services.compiler.search.core.facts import Fate, Trial
from services.compiler.search.fleet import FleetDevices, NodeTimer
from services.compiler.search.lending import Lender
from services.compiler.search.probing import Prober, Try
from services.compiler.search.trials import fate_of
from services.compiler.store.blobs import BlobStore
from services.compiler.store.index import Index
from services.compiler.store.signing import open_signing_key
from services.compiler.targets import find_target
from services.compiler.workshop import Workshop
from tests.compiler.conftest import LIMITS, silent
from tests.node_agent.agent_process import NODE_ID, Agent
from tests.node_agent.neighbours import serve_compiler
from tests.search.roster import serving
from tests.tiny_variant import TINY_RECIPE
from tradewind.domain.errors import CompileFailed, ServiceUnavailable, WrongAnswer
from tradewind.domain.quality_floor import QualityFloor
from tradewind.rpc.client import open_channel
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc

# Few functions, which are what costs time here.
SMALL = replace(TINY_RECIPE, prefill_chunks=(16,), decode_batches=(1, 2), context_buckets=(128,), slots=2)
HERE, ELSEWHERE = "this machine", "another machine"


class Artifacts(compiler_pb2_grpc.CompilerServiceServicer):
    """Serves a blob store."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def FetchArtifact(
        self, request: compiler_pb2.FetchArtifactRequest, context: Any
    ) -> AsyncIterator[compiler_pb2.FetchArtifactResponse]:
        total_bytes = self._blobs.existing(request.digest).stat().st_size
        for piece in self._blobs.read(request.digest, request.offset_bytes, 1 << 20):
            yield compiler_pb2.FetchArtifactResponse(data=piece, total_bytes=total_bytes)


class Keeping(Maker):
    """Keeps a copy of the module that it made last, and of its weights.

    Args:
        workshop: whose store it is over.
        state: the workshop's folder.
        runner: of its jobs.
        folder: for the copies.
    """

    def __init__(self, workshop: Workshop, state: Path, runner: JobRunner, folder: Path) -> None:
        super().__init__(workshop.blobs, Index(state / "index"), runner)
        self._folder = folder
        self.kept: Made | None = None

    async def make_exported(self, order: Order, folder: Path, report: Report, layers: int, cache_bytes: int) -> Made:
        made = await super().make_exported(order, folder, report, layers, cache_bytes)
        module, *archives = (Path(shutil.copy(path, self._folder)) for path in (made.module, *made.archives))
        self.kept = replace(made, module=module, archives=tuple(archives))
        return made


@asynccontextmanager
async def agent_of(workshop: Workshop, state: Path, orchestrator: str) -> AsyncIterator[Agent]:
    """An agent that fetches from a workshop and trusts it."""
    server = await serve_compiler(Artifacts(workshop.blobs))  # type: ignore[arg-type]
    agent = Agent(state.with_name("agent"), server.address, orchestrator, state / "keys")
    try:
        yield await agent.start()
    finally:
        await agent.close()
        await server.stop(0)


def blobs_of(workshop: Workshop, state: Path) -> list[str]:
    """Every blob there is."""
    return sorted(path.name for path in (state / "blobs" / "sha256").rglob("*") if path.is_file())


async def test_a_candidate_is_timed_on_a_node_and_leaves_nothing_in_the_store(
    asked_state: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    state = Path(shutil.copytree(asked_state, tmp_path / "state"))
    workshop = Workshop(state, LIMITS)
    stored = await workshop.importer.import_model(tiny_folder, silent)
    order = Order(stored, SMALL, find_target("cpu:x86-64-v3", workshop.targets))
    runner, lender = JobRunner(tmp_path / "runner", LIMITS), Lender(workshop.blobs, open_signing_key(state / "keys"))
    (folder := tmp_path / "made").mkdir()
    maker = Keeping(workshop, state, runner, folder)
    prober = Prober(runner, workshop.places, maker, Bench(runner, workshop.places), lender)
    async with serving() as roster, agent_of(workshop, state, roster.address) as agent:
        report = await agent.describe()
        report.boot_id = ELSEWHERE
        roster.add(report)
        async with open_channel(roster.address) as channel:
            assert await FleetDevices(channel, ELSEWHERE).timer_of(order.target) is None, "a child here does that"
            assert await FleetDevices(channel, HERE).timer_of(workshop.targets[0]) is None, "host is this machine only"
            timer = await FleetDevices(channel, HERE).timer_of(order.target)
        assert timer is not None and not timer.shares_machine
        trials: list[Trial] = []
        wish = Wish(QualityFloor(), "a search", await workshop.trier.references(order, (1,), silent))
        before = blobs_of(workshop, state)
        await prober.probe([Try(order, silent)], 1, wish, trials.append, timer)
        (trial,) = trials
        assert trial.measured is not None, trial.words
        assert trial.measured.where.startswith(f"node {NODE_ID} (cpu:")
        assert [cost.function for cost in trial.measured.costs] == [f.name for f in order.shapes.functions]
        assert all(cost.time_ms > 0 for cost in trial.measured.costs)
        assert trial.measured.memory_bytes > 0
        assert blobs_of(workshop, state) == before
        await _refusals(timer, lender, order, tmp_path)
        assert maker.kept is not None
        await _wrong_answers(timer, lender, order, maker.kept, wish)
        await agent.close()
        with pytest.raises(ServiceUnavailable, match=f"node {NODE_ID}"):
            await timer.time(compiler_pb2.Variant(variant_id="sha256:gone"), order.shapes.functions)
    workshop.close()


async def _refusals(timer: NodeTimer, lender: Lender, order: Order, tmp_path: Path) -> None:
    """A module that the node cannot load is the candidate's fault, and says where."""
    module = tmp_path / "generate.vmfb"
    module.write_bytes(b"no module at all")
    async with lender.lent(order, Made(module, (), None, 0, 0, 0.0), None) as lent:
        with pytest.raises(CompileFailed, match=f"on node {NODE_ID}") as caught:
            await timer.time(lent, order.shapes.functions)
    assert fate_of(caught.value) is Fate.CRASH


async def _wrong_answers(timer: NodeTimer, lender: Lender, order: Order, made: Made, wish: Wish) -> None:
    """A module that runs well and answers otherwise than the source, here for half of its weights are out of place."""
    (archive,) = made.archives
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2] + data[-4096:] + data[len(data) // 2 : -4096])
    async with lender.lent(order, made, wish.references[1]) as lent:
        with pytest.raises(WrongAnswer, match=rf"on node {NODE_ID} .*where the source gives") as caught:
            await timer.time(lent, order.shapes.functions)
    assert fate_of(caught.value) is Fate.WRONG_ANSWERS
    assert caught.value.metadata["node"] == NODE_ID
