"""From a model, a recipe and a target to a signed variant in the store. Compiles nothing itself: child processes do."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToDict, ParseDict

from services.compiler.host_cpu import read_host_device
from services.compiler.infer.variant import CANARY, infer_check
from services.compiler.jobs.keyed import KeyedLocks
from services.compiler.jobs.places import Places
from services.compiler.jobs.runner import PEAK, JobRunner, Report
from services.compiler.making import Made, Maker
from services.compiler.order import Order
from services.compiler.quality.source_answer import source_canary
from services.compiler.quality.text import Part
from services.compiler.store.blobs import BlobStore
from services.compiler.store.index import Index
from services.compiler.variant_record import described, failed_variant, manifest_of, say_quality
from services.compiler.window_files import WindowFiles
from tradewind.domain.envelope import seal
from tradewind.domain.errors import CompileFailed, JobOutOfMemory, JobTimeout, UnsupportedModel
from tradewind.domain.manifest import Canary, FileRef
from tradewind.v1 import compiler_pb2

_BYTES_OF: Final = {"f32": 4, "bf16": 2, "f16": 2, "w8": 2, "w8a8": 2, "w4": 1}
# Code and MLIR of the largest modules seen stay far below this; it only guards the disk.
_MODULE_BYTES: Final = 256 << 20
# Memory figures are rounded up to this, so that a page more or less does not make another variant.
_MEMORY_STEP_BYTES: Final = 16 << 20
# Shares of the stages in a build, from the figures in docs/compiler.md.
_MADE, _ASKED, _CHECKED = 0.85, 0.88, 0.98


class Builder:
    """Builds variants; knows those built before."""

    def __init__(
        self,
        stores: tuple[BlobStore, Index],
        runner: JobRunner,
        key: Ed25519PrivateKey,
        maker: Maker,
        places: Places,
        windows: WindowFiles,
    ) -> None:
        """Over the service's store, signing with its key; `places` bounds how many builds are under way."""
        self._blobs, self._index = stores
        self._runner, self._key = runner, key
        self._maker, self._places, self._windows = maker, places, windows
        self._locks = KeyedLocks()

    def find(self, order: Order) -> compiler_pb2.Variant | None:
        """The variant, when it was built before and all its files are there."""
        content = self._index.get("variants", order.key)
        if content is None:
            return None
        variant = ParseDict(content, compiler_pb2.Variant())
        digests = [variant.manifest.digest, *(file.digest for file in variant.files)]
        return variant if all(self._blobs.has(digest) for digest in digests) else None

    async def build(self, order: Order, report: Report, owner: str = "") -> compiler_pb2.Variant:
        """As `make`, with a failure as a variant that says why; not kept, so that the next wish tries again."""
        try:
            return await self.make(order, report, owner)
        except (CompileFailed, JobTimeout, JobOutOfMemory, UnsupportedModel) as error:
            return failed_variant(order, error.message)

    async def make(self, order: Order, report: Report, owner: str = "") -> compiler_pb2.Variant:
        """The variant: admitted, rejected or unchecked. At once when built before.

        Args:
            order: what is wanted.
            report: hears stage and share.
            owner: whose turn it is in the queue for a place.

        Raises:
            NoSpace: the store's disk is full.
            CompileFailed, JobTimeout, JobOutOfMemory, UnsupportedModel: it could not be built.
        """
        async with self._locks.of(order.key):
            if (known := self.find(order)) is not None:
                report("built before", 1.0)
                return known
            report("waiting for a place", 0.0)
            async with self._places.one(owner or order.key):
                variant = await self._build(order, report)
            self._index.put("variants", order.key, MessageToDict(variant, preserving_proto_field_name=True))
        report("done", 1.0)
        return variant

    async def _build(self, order: Order, report: Report) -> compiler_pb2.Variant:
        weights_bytes = order.model.model.parameter_count * _BYTES_OF[order.recipe.precision]
        self._blobs.need(weights_bytes + _MODULE_BYTES)
        async with self._runner.folder() as folder:
            made = await self._maker.make(order, folder, _within(report, 0.0, _MADE))
            checked = await self._check(order, made, folder, report)
            report("storing", _CHECKED)
            return await self._store(order, made, checked)

    async def _check(self, order: Order, made: Made, folder: Path, report: Report) -> dict[str, Any] | None:
        if not order.target.runnable_here:
            return None
        windows = await self._windows.of(order, Part.REPORTING, _within(report, _MADE, _ASKED))
        job = {
            "task": "infer" if order.infers else "generate",
            "module": str(made.module),
            "weights": [str(archive) for archive in made.archives],
            "reference": str(self._blobs.existing(order.model.reference)),
            "windows": str(windows) if windows else "",
            "shapes": asdict(order.shapes),
            "driver": order.target.driver,
            "precision": order.recipe.precision,
        }
        if order.infers:
            job |= infer_check(order.model.model, folder / CANARY)
        return await self._runner.work("quality", job, folder, _within(report, _ASKED, _CHECKED))

    async def _store(self, order: Order, made: Made, checked: dict[str, Any] | None) -> compiler_pb2.Variant:
        code, weights = await asyncio.to_thread(self._adopt, made.module), made.weights
        size = code.size_bytes + (weights.size_bytes if weights else 0)
        used = made.cache_bytes + size if checked is None else int(checked["memory_bytes"])
        memory_bytes = -(-used // _MEMORY_STEP_BYTES) * _MEMORY_STEP_BYTES
        canary_path = made.module.parent / CANARY
        canary = await asyncio.to_thread(self._adopt, canary_path) if canary_path.exists() else None
        files = (code, (weights,) if weights else (), canary)
        manifest = manifest_of(order, files, self._canary(order, checked), memory_bytes)
        envelope = seal(manifest.to_bytes(), self._key)
        digest = await asyncio.to_thread(self._blobs.put_bytes, envelope)
        variant = described(order)
        variant.variant_id = manifest.variant_id
        variant.manifest.CopyFrom(
            compiler_pb2.ArtifactRef(name="manifest.json", digest=digest, size_bytes=len(envelope))
        )
        variant.files.extend(compiler_pb2.ArtifactRef(**asdict(file)) for file in manifest.files)
        variant.memory_bytes = memory_bytes
        variant.compile_s = made.spent_s
        variant.build_peak_bytes = max(made.peak_bytes, int(checked[PEAK]) if checked else 0)
        if checked is not None:
            variant.ran_on.append(read_host_device())
        say_quality(variant, checked)
        return variant

    def _canary(self, order: Order, checked: dict[str, Any] | None) -> Canary:
        """The module's own answer where it was run here; else the source's, with a tolerance."""
        if order.infers:
            return Canary((), ())
        if checked is None:
            return source_canary(self._blobs.existing(order.model.reference), order.recipe.precision)
        return Canary(tuple(checked["canary"]["prompt"]), tuple(checked["canary"]["continuation"]))

    def _adopt(self, path: Path) -> FileRef:
        size_bytes = path.stat().st_size
        return FileRef(path.name, self._blobs.adopt(path), size_bytes)


def _within(report: Report, first: float, last: float) -> Report:
    """A listener for a part of a build that goes from one share of it to another."""
    return lambda stage, share: report(stage, first + (last - first) * share)
