"""Tries a candidate whole, as a variant, and asks the source what it would answer; every way to fail becomes a fate."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.compiler.building import Builder
from services.compiler.jobs.places import Places
from services.compiler.jobs.runner import JobRunner, Report
from services.compiler.making import asking_job
from services.compiler.order import Order
from services.compiler.quality.comparison import Figures
from services.compiler.quality.text import Part
from services.compiler.quality.thresholds import judge
from services.compiler.search.bench import Bench, Wish, measured_of
from services.compiler.search.core.facts import WHOLE, Fate, Measured, Trial
from services.compiler.search.devices import DeviceTimer
from services.compiler.search.trials import FAILURES, failed_trial, trial_of
from services.compiler.search.verdict_words import rejected_where_it_ran
from services.compiler.store.blobs import BlobStore
from services.compiler.store.index import Index, key_of
from services.compiler.toolchain import toolchain_versions
from services.compiler.window_files import WindowFiles, wants_windows
from tradewind.domain.errors import CompileFailed, WrongAnswer
from tradewind.domain.quality_floor import QualityFloor
from tradewind.v1 import compiler_pb2


class Trier:
    """Builds, judges and times wholes; many may be under way."""

    def __init__(
        self,
        stores: tuple[BlobStore, Index],
        runner: JobRunner,
        builder: Builder,
        places: Places,
        bench: Bench,
        windows: WindowFiles,
    ) -> None:
        """Over the workshop's parts."""
        self._blobs, self._index = stores
        self._runner, self._places = runner, places
        self._builder, self._bench, self._windows = builder, bench, windows

    def find(self, order: Order) -> compiler_pb2.Variant | None:
        """The variant of an order, when it was built before and all its files are there."""
        return self._builder.find(order)

    async def references(self, order: Order, depths: tuple[int, ...], report: Report) -> dict[int, Path]:
        """The source's answers on the text for choosing, by depth, made once for a model; see `search.jobs`.

        A tensor model has the samples that it was imported with, and no more; it is not cut to fewer layers.
        """
        if order.infers:
            return {WHOLE: self._blobs.existing(order.model.reference)}
        key = key_of("choosing", order.model.model.model_id, depths, toolchain_versions())
        known = self._index.get("choosing", key)
        if known is None or not all(self._blobs.has(digest) for digest in known.values()):
            known = await self._ask_source(order, depths, report)
            self._index.put("choosing", key, known)
        return {int(layers): self._blobs.existing(digest) for layers, digest in known.items()}

    async def _ask_source(self, order: Order, depths: tuple[int, ...], report: Report) -> dict[str, str]:
        async with self._places.one(order.model.model.model_id), self._runner.folder() as folder:
            job = {**asking_job(order.model, self._blobs, folder), "layers": depths, "output": str(folder)}
            made = await self._runner.work("choosing", job, folder, report)
            return {str(n): self._blobs.adopt(folder / f"choosing-{n}.safetensors") for n in made["layers"]}

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
            windows = await self._more_text(order, wish, report)
            # Asking is once for a model: it says nothing of how long the next whole takes.
            began = time.monotonic()
            variant = await self._builder.make(order, report, wish.owner)
            refused = variant.state == compiler_pb2.VARIANT_STATE_REJECTED
            if order.target.runnable_here and not refused:
                async with self._runner.folder() as folder:
                    module, archives = self._files_of(variant, folder)
                    found = await self._bench.run(order, module, archives, folder, wish, WHOLE, windows)
        except FAILURES as error:
            return failed_trial(order, WHOLE, time.monotonic() - began, error), None
        if refused:
            why = {"fate": Fate.WRONG_ANSWERS, "words": variant.state_reason}
            return trial_of(order, WHOLE, time.monotonic() - began, variant_id=variant.variant_id, **why), variant
        measured = measured_of(found, order) if found else Measured(memory_bytes=variant.memory_bytes)
        if found and order.infers:
            measured = replace(measured, relative_error=variant.quality.relative_error)
        if timer is not None:
            try:
                measured = await self._bench.on_device(timer, variant, order, wish, measured)
                variant.ran_on.append(measured.where)
            except (CompileFailed, WrongAnswer) as error:
                trial = failed_trial(order, WHOLE, time.monotonic() - began, error)
                return replace(trial, variant_id=variant.variant_id), rejected_where_it_ran(variant, error)
        fate, words = _fate_of_figures(order, found, wish.floor) if found else (None, "")
        shown = None if fate else measured
        return trial_of(
            order,
            WHOLE,
            time.monotonic() - began,
            measured=shown,
            fate=fate,
            words=words,
            variant_id=variant.variant_id,
        ), variant

    async def _more_text(self, order: Order, wish: Wish, report: Report) -> Path | None:
        """Windows to choose by, once those that the gate reads are there too."""
        if not wants_windows(order):
            return None
        async with self._places.one(wish.owner):
            await self._windows.of(order, Part.REPORTING, report)
            return await self._windows.of(order, Part.CHOOSING, report)

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


def _fate_of_figures(order: Order, found: Mapping[str, Any], floor: QualityFloor) -> tuple[Fate | None, str]:
    """Why figures on the text for choosing send a candidate away; None when they do not."""
    if found["figures"] is None:
        return None, ""
    figures = Figures(**found["figures"])
    verdict = judge(order.recipe.precision, figures, found["kl_by_function"])
    if not verdict.admitted:
        return Fate.WRONG_ANSWERS, f"on the text for choosing: {verdict.why}"
    missed = floor.missed(figures.top1_agreement, figures.kl_divergence_nats, figures.perplexity_increase)
    return (Fate.BELOW_FLOOR, f"on the text for choosing: {missed}") if missed else (None, "")
