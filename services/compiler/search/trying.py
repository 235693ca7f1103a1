"""Tries a candidate: the first layers of the model, or the whole as a variant; every way to fail becomes a fate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from services.compiler.building import Builder
from services.compiler.jobs.places import Places
from services.compiler.jobs.runner import JobRunner, Report
from services.compiler.making import Maker, link_model
from services.compiler.order import Order
from services.compiler.quality.comparison import Figures
from services.compiler.quality.thresholds import judge
from services.compiler.search.core.facts import WHOLE, Cost, Fate, Measured, Trial
from services.compiler.search.devices import DeviceTimer
from services.compiler.search.jobs import TOKENIZER
from services.compiler.store.blobs import BlobStore
from services.compiler.store.index import Index, key_of
from services.compiler.toolchain import toolchain_versions
from tradewind.domain.errors import CompileFailed, JobOutOfMemory, JobTimeout, TradewindError, UnsupportedModel
from tradewind.domain.quality_floor import QualityFloor
from tradewind.v1 import compiler_pb2

# A few layers of a model give flat answers that small changes turn about; only garbage is sent away here.
PROBE_KL_MOST_NATS: Final = 1.0
_FAILURES: Final = (CompileFailed, JobTimeout, JobOutOfMemory, UnsupportedModel)


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


class Trier:
    """Tries one candidate at a time; many may be under way."""

    def __init__(
        self, stores: tuple[BlobStore, Index], runner: JobRunner, makers: tuple[Maker, Builder], places: Places
    ) -> None:
        """Over the workshop's parts."""
        self._blobs, self._index = stores
        self._runner, self._places = runner, places
        self._maker, self._builder = makers

    def find(self, order: Order) -> compiler_pb2.Variant | None:
        """The variant of an order, when it was built before and all its files are there."""
        return self._builder.find(order)

    async def references(self, order: Order, depths: tuple[int, ...], report: Report) -> dict[int, Path]:
        """The source's answers on the text for choosing, by depth, made once for a model; see `search.jobs`."""
        key = key_of("choosing", order.model.model.model_id, depths, toolchain_versions())
        known = self._index.get("choosing", key)
        if known is None or not all(self._blobs.has(digest) for digest in known.values()):
            known = await self._ask_source(order, depths, report)
            self._index.put("choosing", key, known)
        return {int(layers): self._blobs.existing(digest) for layers, digest in known.items()}

    async def _ask_source(self, order: Order, depths: tuple[int, ...], report: Report) -> dict[str, str]:
        model = order.model.model
        files = dict(order.model.build_files) | {f.name: f.digest for f in model.files if f.name == TOKENIZER}
        async with self._places.one(order.model.model.model_id), self._runner.folder() as folder:
            link_model(files, self._blobs, folder)
            job = {
                "model": str(folder / "model"),
                "layers": depths,
                "output": str(folder),
                "context_tokens": model.context_tokens,
                "vocabulary_size": model.vocabulary_size,
            }
            made = await self._runner.work("choosing", job, folder, report)
            return {str(n): self._blobs.adopt(folder / f"choosing-{n}.safetensors") for n in made["layers"]}

    async def probe(self, order: Order, layers: int, wish: Wish, report: Report) -> Trial:
        """A candidate on the first layers of the model."""
        began = time.monotonic()
        try:
            async with self._runner.folder() as folder:
                async with self._places.one(wish.owner):
                    made = await self._maker.make(order, folder, report, layers)
                if not order.target.runnable_here:
                    return _trial(order, layers, began, measured=Measured())
                found = await self._run(order, made.module, made.archives, folder, wish, layers)
        except _FAILURES as error:
            return _failed(order, layers, began, error)
        measured = _measured(found, order)
        worst = max(found["kl_by_function"].values(), default=0.0)
        if worst > PROBE_KL_MOST_NATS:
            words = f"KL {worst:.2g} nats from the source on its first {layers} layers"
            return _trial(order, layers, began, fate=Fate.WRONG_ANSWERS, words=words)
        return _trial(order, layers, began, measured=measured)

    async def whole(
        self, order: Order, wish: Wish, report: Report, timer: DeviceTimer | None = None
    ) -> tuple[Trial, compiler_pb2.Variant | None]:
        """A candidate as a variant: gated on the text for reporting, compared for choosing on the other.

        Args:
            order: of the variant.
            wish: of the search.
            report: hears stage and share.
            timer: a device of a node to time it on; None to time it here, where this machine can.
        """
        began, found = time.monotonic(), None
        try:
            variant = await self._builder.make(order, report, wish.owner)
            refused = variant.state == compiler_pb2.VARIANT_STATE_REJECTED
            if order.target.runnable_here and not refused:
                async with self._runner.folder() as folder:
                    module, archives = self._files_of(variant, folder)
                    found = await self._run(order, module, archives, folder, wish, WHOLE)
        except _FAILURES as error:
            return _failed(order, WHOLE, began, error), None
        if refused:
            why = {"fate": Fate.WRONG_ANSWERS, "words": variant.state_reason}
            return _trial(order, WHOLE, began, variant_id=variant.variant_id, **why), variant
        measured = _measured(found, order) if found else Measured(memory_bytes=variant.memory_bytes)
        if timer is not None:
            measured = await _on_device(timer, variant, measured)
        fate, words = _fate_of_figures(order, found, wish.floor) if found else (None, "")
        shown = None if fate else measured
        return _trial(
            order, WHOLE, began, measured=shown, fate=fate, words=words, variant_id=variant.variant_id
        ), variant

    def _files_of(self, variant: compiler_pb2.Variant, folder: Path) -> tuple[Path, tuple[Path, ...]]:
        """Module and archives of a stored variant; IREE knows an archive by the ending of its name."""
        module, archives = Path(), []
        for file in variant.files:
            if file.name.endswith(".vmfb"):
                module = self._blobs.existing(file.digest)
            elif file.name.endswith(".irpa"):
                archives.append(folder / file.name)
                archives[-1].symlink_to(self._blobs.existing(file.digest))
        return module, tuple(archives)

    async def _run(
        self, order: Order, module: Path, archives: tuple[Path, ...], folder: Path, wish: Wish, layers: int
    ) -> dict[str, Any]:
        """Times and compares, with the machine to itself as far as this service goes."""
        reference = wish.references.get(layers)
        job = {
            "module": str(module),
            "weights": [str(archive) for archive in archives],
            "reference": str(reference) if reference else "",
            "shapes": asdict(order.shapes),
            "driver": order.target.driver,
        }
        async with self._places.all(wish.owner):
            return await self._runner.work("trial", job, folder, lambda _stage, _share: None)


def fate_of(error: TradewindError) -> Fate:
    """The fate that a failed job stands for."""
    if isinstance(error, JobTimeout):
        return Fate.HANG
    if isinstance(error, JobOutOfMemory):
        return Fate.OUT_OF_MEMORY
    if isinstance(error, UnsupportedModel):
        return Fate.UNSUPPORTED
    return Fate.CRASH if error.metadata.get("status", "").startswith("-") else Fate.COMPILE_ERROR


async def _on_device(timer: DeviceTimer, variant: compiler_pb2.Variant, here: Measured) -> Measured:
    """What a device of a node shows; what this machine showed when the device gives no answer."""
    there = await timer.time(variant)
    if there is None:
        return here
    return replace(here, costs=there.costs, where=there.where, memory_bytes=there.memory_bytes or here.memory_bytes)


def _fate_of_figures(order: Order, found: Mapping[str, Any], floor: QualityFloor) -> tuple[Fate | None, str]:
    """Why figures on the text for choosing send a candidate away; None when they do not."""
    if found["figures"] is None:
        return None, ""
    figures = Figures(**found["figures"])
    admitted, words = judge(order.recipe.precision, figures, found["kl_by_function"])
    if not admitted:
        return Fate.WRONG_ANSWERS, f"on the text for choosing: {words}"
    missed = floor.missed(figures.top1_agreement, figures.kl_divergence_nats, figures.perplexity_increase)
    return (Fate.BELOW_FLOOR, f"on the text for choosing: {missed}") if missed else (None, "")


def _measured(found: Mapping[str, Any], order: Order) -> Measured:
    figures = found["figures"]
    return Measured(
        costs=tuple(Cost(**cost) for cost in found["costs"]),
        memory_bytes=int(found["memory_bytes"]),
        kl_nats=float(figures["kl_divergence_nats"]) if figures else None,
        where=f"the compiler's machine, {order.target.resolved}",
    )


def _trial(order: Order, layers: int, began: float, **what: Any) -> Trial:
    return Trial(order.recipe.name, layers, time.monotonic() - began, **what)


def _failed(order: Order, layers: int, began: float, error: TradewindError) -> Trial:
    return _trial(order, layers, began, fate=fate_of(error), words=error.message)
