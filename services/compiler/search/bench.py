"""Times a module and compares its answers: in a child process here, and on a device of a node. Judges nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from services.compiler.infer.shapes import InferShapes
from services.compiler.infer.variant import CANARY, infer_check
from services.compiler.jobs.places import Places
from services.compiler.jobs.runner import JobRunner
from services.compiler.order import Order
from services.compiler.search.core.facts import Cost, Measured
from services.compiler.search.devices import DeviceTimer
from tradewind.domain.quality_floor import QualityFloor
from tradewind.v1 import compiler_pb2


@dataclass(frozen=True, slots=True)
class Wish:
    """What a search wants of every candidate.

    Attributes:
        floor: least quality.
        owner: of the places its jobs take.
        references: the source's answers for choosing, by depth.
    """

    floor: QualityFloor
    owner: str
    references: Mapping[int, Path]


class Bench:
    """Where modules are timed; holds every place meanwhile, so that no job of this service runs beside it."""

    def __init__(self, runner: JobRunner, places: Places) -> None:
        """Over the workshop's parts."""
        self._runner, self._places = runner, places

    async def run(
        self,
        order: Order,
        module: Path,
        archives: tuple[Path, ...],
        folder: Path,
        wish: Wish,
        layers: int,
        windows: Path | None = None,
    ) -> dict[str, Any]:
        """Times and compares, on windows of more text too where there are any, with the machine to itself as far as
        this service goes.
        """
        reference = wish.references.get(layers)
        job = {
            "task": "infer" if order.infers else "generate",
            "module": str(module),
            "weights": [str(archive) for archive in archives],
            "reference": str(reference) if reference else "",
            "windows": str(windows) if windows else "",
            "shapes": asdict(order.shapes),
            "driver": order.target.driver,
            "precision": order.recipe.precision,
        }
        if order.infers:
            job |= infer_check(order.model.model, folder / CANARY)
        async with self._places.all(wish.owner):
            return await self._runner.work("trial", job, folder, lambda _stage, _share: None)

    async def on_device(
        self, timer: DeviceTimer, variant: compiler_pb2.Variant, order: Order, wish: Wish, here: Measured
    ) -> Measured:
        """What a device of a node shows, beside the figures that only this machine can give.

        A node on this machine has it to itself meanwhile, as far as this service goes.
        """
        assert not isinstance(order.shapes, InferShapes)
        async with self._places.all(wish.owner) if timer.shares_machine else nullcontext():
            there = await timer.time(variant, order.shapes.functions)
        return replace(there, kl_nats=here.kl_nats, memory_bytes=there.memory_bytes or here.memory_bytes)


def measured_of(found: Mapping[str, Any], order: Order) -> Measured:
    """What a run here showed."""
    figures = found["figures"]
    return Measured(
        costs=tuple(Cost(**cost) for cost in found["costs"]),
        memory_bytes=int(found["memory_bytes"]),
        kl_nats=float(figures["kl_divergence_nats"]) if figures else None,
        where=f"the compiler's machine, {order.target.resolved}",
    )
