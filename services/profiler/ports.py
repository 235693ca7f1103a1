"""What the profiler needs of the world. The edges in this folder implement these; tests reach fakes over the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from services.profiler.core.campaign import Job
from tradewind.v1 import compiler_pb2, orchestrator_pb2, profiler_pb2

OnProgress = Callable[[str, float], None]


class Catalogue(Protocol):
    """Models and their variants."""

    async def model(self, name: str) -> compiler_pb2.Model:
        """A model by name or id."""

    async def variants(self, model: str) -> list[compiler_pb2.Variant]:
        """All variants of a model, admitted ones first."""

    async def variant(self, variant_id: str) -> compiler_pb2.Variant:
        """A variant by id."""


class Fleet(Protocol):
    """Nodes as the orchestrator sees them."""

    async def nodes(self) -> list[orchestrator_pb2.Node]:
        """All nodes."""


class Meter(Protocol):
    """Measures on a node."""

    async def measure(self, job: Job, on_progress: OnProgress) -> profiler_pb2.Profile:
        """Runs a job to its end; cancelling ends the process on the node."""


class Profiles(Protocol):
    """Where profiles are kept."""

    async def add(self, profile: profiler_pb2.Profile) -> None:
        """Keeps a profile, whole or not at all."""

    async def page(
        self, model_id: str, variant_id: str, size: int, token: str
    ) -> tuple[Sequence[profiler_pb2.Profile], str]:
        """Profiles, newest first, and where to go on."""

    async def all_of(self, model_id: str) -> list[profiler_pb2.Profile]:
        """Every profile of a model, newest first."""

    async def at_point(self, variant_id: str, device_class: str, partition_kind: str) -> list[profiler_pb2.Profile]:
        """Every profile of a variant on a partition kind, newest first."""
