"""From an order to a compiled module in a work folder: export and compilation, each in a child process.

Used for variants, and for the first layers of a model that a search tries. Stores weights, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from services.compiler.built_module import check_built_for
from services.compiler.importing import StoredModel
from services.compiler.jobs.runner import PEAK, JobRunner, Report
from services.compiler.order import Order
from services.compiler.passes.form import CHANGE_WEIGHTS
from services.compiler.store.blobs import BlobStore
from services.compiler.store.index import Index, key_of
from services.compiler.toolchain import find_iree_compile, toolchain_versions
from services.compiler.tuning.spec import spec_text
from tradewind.domain.manifest import FileRef

# Fused 8-bit graphs keep more than the default 32 KiB of a tile on the stack; worker threads have megabytes of it.
_INFER_FLAGS: Final = ("--iree-llvmcpu-stack-allocation-limit=262144",)
# Shares of the stages in what is made here, from the figures in docs/compiler.md.
_EXPORTED: Final = 0.35
# What compiling one layer of one function takes on a slow core, to say how far a compilation may be.
_LAYER_S: Final = 0.45


@dataclass(frozen=True, slots=True)
class Made:
    """A compiled module.

    Attributes:
        module: the .vmfb in the work folder.
        archives: of its weights, to load it here.
        weights: the archive in the store; None for a part of a model, and for a program that holds its weights.
        cache_bytes: of its KV cache.
        peak_bytes: most memory that one of the processes was seen with.
        spent_s: wall time.
    """

    module: Path
    archives: tuple[Path, ...]
    weights: FileRef | None
    cache_bytes: int
    peak_bytes: int
    spent_s: float


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export left: MLIR in the work folder, and the weights in the store, where they are kept."""

    cache_bytes: int
    weights: FileRef | None
    peak_bytes: int
    began_s: float


class Maker:
    """Exports and compiles; knows which weights were stored before."""

    def __init__(self, blobs: BlobStore, index: Index, runner: JobRunner) -> None:
        """Over the service's store."""
        self._blobs, self._index, self._runner = blobs, index, runner

    async def make(self, order: Order, folder: Path, report: Report, layers: int = 0) -> Made:
        """Makes the module of an order.

        Args:
            order: what is wanted.
            folder: work folder of the job.
            report: hears stage and share.
            layers: of the model, from the first on; 0 for all.

        Raises:
            CompileFailed, JobTimeout, JobOutOfMemory, UnsupportedModel: the child processes.
        """
        began = time.monotonic()
        cache_bytes, weights, export_peak = await self._export(order, folder, report, layers)
        return await self._built(order, folder, report, layers, Exported(cache_bytes, weights, export_peak, began))

    def export_job(self, order: Order, folder: Path, layers: int) -> dict[str, Any]:
        """The job that exports the first layers of a model into a folder, with weights of their own."""
        link_model(order.model.build_files, self._blobs, folder)
        return _job_of(order, folder, layers, with_weights=True)

    async def make_exported(self, order: Order, folder: Path, report: Report, layers: int, cache_bytes: int) -> Made:
        """As `make`, of what `export_job` has exported.

        Raises:
            CompileFailed, JobTimeout, JobOutOfMemory: the compiler.
        """
        return await self._built(order, folder, report, layers, Exported(cache_bytes, None, 0, time.monotonic()))

    async def _built(self, order: Order, folder: Path, report: Report, layers: int, exported: Exported) -> Made:
        weights = exported.weights
        module = folder / ("infer.vmfb" if order.infers else "generate.vmfb")
        compile_peak = await self._compile(order, folder / "generate.mlir", module, report, layers)
        await asyncio.to_thread(check_built_for, module, order.target.executables)
        archive = _weights_path(order, folder)
        if weights is not None:
            # IREE knows the kind of a parameter archive by the ending of its name.
            archive.symlink_to(self._blobs.existing(weights.digest))
        archives = (archive,) if archive.exists() else ()
        peak_bytes = max(exported.peak_bytes, compile_peak)
        spent_s = time.monotonic() - exported.began_s
        return Made(module, archives, weights, exported.cache_bytes, peak_bytes, spent_s)

    async def _export(self, order: Order, folder: Path, report: Report, layers: int) -> tuple[int, FileRef | None, int]:
        """Writes the MLIR; bytes of the cache, and the weights, which another variant may have stored before.

        A program that came as MLIR may carry its weights inside; there are none then.
        """
        link_model(order.model.build_files, self._blobs, folder)
        key = _weights_key(order)
        known = None if layers else self._index.get("weights", key)
        weights = FileRef(**known) if known is not None and self._blobs.has(known["digest"]) else None
        path = _weights_path(order, folder)
        job = _job_of(order, folder, layers, with_weights=weights is None)
        result = await self._runner.work("export", job, folder, lambda s, share: report(s, share * _EXPORTED))
        if weights is None and path.exists() and not layers:
            weights = await asyncio.to_thread(self._adopt, path)
            self._index.put("weights", key, asdict(weights))
        return int(result["cache_bytes"]), weights, int(result[PEAK])

    def _adopt(self, path: Path) -> FileRef:
        size_bytes = path.stat().st_size
        return FileRef(path.name, self._blobs.adopt(path), size_bytes)

    async def _compile(self, order: Order, source: Path, output: Path, report: Report, layers: int) -> int:
        """Compiles; the most memory it was seen with."""
        target = order.target
        own = _INFER_FLAGS if order.infers else ()
        flags = (*target.flags, *target.optimisation, *own, *order.recipe.compiler_flags, *_tuning(order, output))
        functions = len(order.shapes.functions)
        expected_s = _LAYER_S * functions * (layers or order.model.model.layer_count) + 1
        compiling = asyncio.ensure_future(self._runner.compile(find_iree_compile(), flags, source, output))
        began = time.monotonic()
        try:
            while not (await asyncio.wait({compiling}, timeout=1))[0]:
                spent_s = time.monotonic() - began
                share = min(spent_s / expected_s, 0.95)
                report(f"compiling {functions} functions, {spent_s:.0f} s", _EXPORTED + (1 - _EXPORTED) * share)
        finally:
            compiling.cancel()
            await asyncio.gather(compiling, return_exceptions=True)
        return compiling.result().peak_bytes


def _tuning(order: Order, output: Path) -> tuple[str, ...]:
    """The flag for the spec of a recipe's tiles, which is written beside the module; none without tiles."""
    if not order.recipe.tuning:
        return ()
    spec = output.with_name("tuning.mlir")
    spec.write_text(spec_text(order.recipe.tuning), encoding="utf-8")
    return (f"--iree-codegen-tuning-spec-path={spec}",)


def _job_of(order: Order, folder: Path, layers: int, *, with_weights: bool) -> dict[str, Any]:
    return {
        "task": "infer" if order.infers else "generate",
        "model": str(folder / "model"),
        "precision": order.recipe.precision,
        "passes": list(order.recipe.passes),
        "shapes": asdict(order.shapes),
        "mlir": str(folder / "generate.mlir"),
        "weights": str(_weights_path(order, folder)) if with_weights else "",
        "layers": layers,
    }


def link_model(files: dict[str, str], blobs: BlobStore, folder: Path) -> None:
    """Links files of a stored model into a work folder, under "model", where jobs read them."""
    (folder / "model").mkdir()
    for name, digest in files.items():
        (folder / "model" / name).symlink_to(blobs.existing(digest))


def asking_job(model: StoredModel, blobs: BlobStore, folder: Path) -> dict[str, object]:
    """What every job that asks a stored model's source about text is told; its files are linked into the folder."""
    link_model(model.asked_files, blobs, folder)
    return {
        "model": str(folder / "model"),
        "context_tokens": model.model.context_tokens,
        "vocabulary_size": model.model.vocabulary_size,
    }


def _weights_path(order: Order, folder: Path) -> Path:
    return folder / f"weights-{order.recipe.precision}.irpa"


def _weights_key(order: Order) -> str:
    recipe = order.recipe
    passes = tuple(name for name in recipe.passes if name in CHANGE_WEIGHTS)
    return key_of("weights", order.model.model.model_id, recipe.precision, passes, toolchain_versions())
