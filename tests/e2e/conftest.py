"""One running instance with two tiny variants, built and measured once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, running
from tests.tiny_model import write_tiny_model
from tradewind.v1 import common_pb2, compiler_pb2, orchestrator_pb2


@dataclass(frozen=True)
class Prepared:
    """An instance with the model "tiny", its admitted variants and their profiles."""

    stack: Stack
    variants: tuple[compiler_pb2.Variant, ...]

    def spec(self, pinned: str = "") -> orchestrator_pb2.DeploymentSpec:
        """A wish that every variant meets."""
        limits = [
            common_pb2.LatencyLimit(metric=common_pb2.LATENCY_METRIC_TTFT, percentile=95, limit_ms=20_000),
            common_pb2.LatencyLimit(metric=common_pb2.LATENCY_METRIC_TPOT, percentile=95, limit_ms=5_000),
        ]
        return orchestrator_pb2.DeploymentSpec(
            model="tiny",
            slo=common_pb2.Slo(latency=limits),
            objective=common_pb2.OBJECTIVE_ENERGY,
            pinned_variant_id=pinned,
        )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """The instance; its processes are gone at the end."""
    folder = tmp_path_factory.mktemp("e2e")
    source = write_tiny_model(folder / "tiny")
    with running(folder / "state") as stack:
        stack.import_model(Path(source), "tiny")
        variants = stack.build("tiny")
        admitted = [v for v in variants if v.state == compiler_pb2.VARIANT_STATE_ADMITTED]
        assert len(admitted) >= 2, [(v.name, v.state_reason) for v in variants]
        stack.profile("tiny")
        yield Prepared(stack, tuple(admitted))
