"""From a model, a recipe and a target to a signed variant in the store. Compiles nothing itself: child processes do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToDict, ParseDict

from services.compiler.export.shapes import WEIGHTS_SCOPE, Shapes
from services.compiler.importing import StoredModel
from services.compiler.infer.shapes import InferShapes
from services.compiler.infer.variant import CANARY, infer_check, infer_manifest, say_infer_quality
from services.compiler.infer.variant import shapes_of as infer_shapes_of
from services.compiler.jobs.keyed import KeyedLocks
from services.compiler.jobs.runner import JobRunner, Report
from services.compiler.quality.comparison import Figures
from services.compiler.quality.thresholds import judge
from services.compiler.store.blobs import BlobStore
from services.compiler.store.index import Index, key_of
from services.compiler.targets import Target
from services.compiler.toolchain import find_iree_compile, toolchain_versions
from tradewind.domain.envelope import seal
from tradewind.domain.errors import CompileFailed, JobOutOfMemory, JobTimeout, UnsupportedModel
from tradewind.domain.infer_manifest import AnyManifest
from tradewind.domain.manifest import Canary, FileRef, RecipeFacts, VariantManifest
from tradewind.v1 import compiler_pb2

_BYTES_OF: Final = {"f32": 4, "bf16": 2, "f16": 2, "w8": 2, "w4": 1}
_COMMON_FLAGS: Final = ("--iree-opt-level=O3",)
# Fused 8-bit graphs keep more than the default 32 KiB of a tile on the stack; worker threads have megabytes of it.
_INFER_FLAGS: Final = ("--iree-llvmcpu-stack-allocation-limit=262144",)
# Code and MLIR of the largest modules seen stay far below this; it only guards the disk.
_MODULE_BYTES: Final = 256 << 20
# Memory figures are rounded up to this, so that a page more or less does not make another variant.
_MEMORY_STEP_BYTES: Final = 16 << 20
# Shares of the stages in a build, from the figures in docs/compiler.md.
_EXPORTED, _COMPILED, _CHECKED = 0.3, 0.85, 0.98
# What compiling one layer of one function takes on a slow core, to say how far a compilation may be.
_LAYER_S: Final = 0.45


@dataclass(frozen=True, slots=True)
class Order:
    """A variant wanted."""

    model: StoredModel
    recipe: RecipeFacts
    target: Target

    @property
    def name(self) -> str:
        """Short name, unique for the model: the recipe, the target, and the context where it is not the usual one."""
        return f"{self.recipe.name}/{self.target.name.replace(':', '-')}"

    @property
    def infers(self) -> bool:
        """Whether it maps tensors to tensors, in place of generating."""
        return self.model.model.task == compiler_pb2.MODEL_TASK_INFER

    @property
    def shapes(self) -> Shapes | InferShapes:
        """The module's functions."""
        recipe = self.recipe
        if self.infers:
            return self.model.program or infer_shapes_of(recipe)
        return Shapes(recipe.prefill_chunks, recipe.decode_batches, recipe.context_buckets, recipe.slots)

    @property
    def key(self) -> str:
        """Digest of everything that goes into the variant."""
        target = (self.target.name, self.target.resolved, self.target.flags)
        return key_of("variant", self.model.model.model_id, asdict(self.recipe), target, toolchain_versions())


class Builder:
    """Builds variants; knows those built before."""

    def __init__(
        self, blobs: BlobStore, index: Index, runner: JobRunner, key: Ed25519PrivateKey, places: asyncio.Semaphore
    ) -> None:
        """Over the service's store, signing with its key; `places` bounds how many builds are under way."""
        self._blobs, self._index, self._runner, self._key = blobs, index, runner, key
        self._places, self._locks = places, KeyedLocks()

    def find(self, order: Order) -> compiler_pb2.Variant | None:
        """The variant, when it was built before and all its files are there."""
        content = self._index.get("variants", order.key)
        if content is None:
            return None
        variant = ParseDict(content, compiler_pb2.Variant())
        digests = [variant.manifest.digest, *(file.digest for file in variant.files)]
        return variant if all(self._blobs.has(digest) for digest in digests) else None

    async def build(self, order: Order, report: Report) -> compiler_pb2.Variant:
        """The variant: admitted, rejected, unchecked, or failed with the reason. At once when built before.

        Raises:
            NoSpace: the store's disk is full.
        """
        async with self._locks.of(order.key):
            if (known := self.find(order)) is not None:
                report("built before", 1.0)
                return known
            report("waiting for a place", 0.0)
            async with self._places:
                variant = await self._attempt(order, report)
        report("done", 1.0)
        return variant

    async def _attempt(self, order: Order, report: Report) -> compiler_pb2.Variant:
        try:
            variant = await self._build(order, report)
        except (CompileFailed, JobTimeout, JobOutOfMemory, UnsupportedModel) as error:
            return failed_variant(order, error.message)
        self._index.put("variants", order.key, MessageToDict(variant, preserving_proto_field_name=True))
        return variant

    async def _build(self, order: Order, report: Report) -> compiler_pb2.Variant:
        weights_bytes = order.model.model.parameter_count * _BYTES_OF[order.recipe.precision]
        self._blobs.need(weights_bytes + _MODULE_BYTES)
        async with self._runner.folder() as folder:
            began = time.monotonic()
            cache_bytes, weights = await self._export(order, folder, report)
            module = folder / ("infer.vmfb" if order.infers else "generate.vmfb")
            await self._compile(order, folder / "generate.mlir", module, report)
            compile_s = time.monotonic() - began
            checked = await self._check(order, module, weights, folder, report)
            report("storing", _CHECKED)
            return await self._store(order, module, weights, checked, cache_bytes, compile_s)

    async def _export(self, order: Order, folder: Path, report: Report) -> tuple[int, FileRef | None]:
        """Writes the MLIR; bytes of the cache, and the weights, which another variant may have stored before.

        A program that came as MLIR may carry its weights inside; there are none then.
        """
        model_folder = folder / "model"
        model_folder.mkdir()
        for name, digest in order.model.build_files.items():
            (model_folder / name).symlink_to(self._blobs.existing(digest))
        recipe = order.recipe
        weights_key = key_of(
            "weights", order.model.model.model_id, recipe.precision, recipe.passes, toolchain_versions()
        )
        known = self._index.get("weights", weights_key)
        weights = FileRef(**known) if known is not None and self._blobs.has(known["digest"]) else None
        path = folder / f"weights-{order.recipe.precision}.irpa"
        job = {
            "task": "infer" if order.infers else "generate",
            "model": str(model_folder),
            "precision": order.recipe.precision,
            "passes": list(order.recipe.passes),
            "shapes": asdict(order.shapes),
            "mlir": str(folder / "generate.mlir"),
            "weights": "" if weights else str(path),
        }
        result = await self._runner.work("export", job, folder, lambda s, share: report(s, share * _EXPORTED))
        if weights is None and path.exists():
            weights = await asyncio.to_thread(self._adopt, path)
            self._index.put("weights", weights_key, asdict(weights))
        return int(result["cache_bytes"]), weights

    def _adopt(self, path: Path) -> FileRef:
        size_bytes = path.stat().st_size
        return FileRef(path.name, self._blobs.adopt(path), size_bytes)

    async def _compile(self, order: Order, source: Path, output: Path, report: Report) -> None:
        own = _INFER_FLAGS if order.infers else ()
        flags = (*order.target.flags, *_COMMON_FLAGS, *own, *order.recipe.compiler_flags)
        functions = len(order.shapes.functions)
        expected_s = _LAYER_S * functions * order.model.model.layer_count + 1
        compiling = asyncio.ensure_future(self._runner.compile(find_iree_compile(), flags, source, output))
        began = time.monotonic()
        try:
            while not (await asyncio.wait({compiling}, timeout=1))[0]:
                spent_s = time.monotonic() - began
                share = min(spent_s / expected_s, 0.95)
                report(f"compiling {functions} functions, {spent_s:.0f} s", _EXPORTED + (_COMPILED - _EXPORTED) * share)
        finally:
            compiling.cancel()
            await asyncio.gather(compiling, return_exceptions=True)
        compiling.result()

    async def _check(
        self, order: Order, module: Path, weights: FileRef | None, folder: Path, report: Report
    ) -> dict[str, Any] | None:
        if not order.target.runnable_here:
            return None
        archives = []
        if weights is not None:
            # IREE knows the kind of a parameter archive by the ending of its name.
            archives.append(folder / f"checked-{weights.name}")
            archives[0].symlink_to(self._blobs.existing(weights.digest))
        job = {
            "task": "infer" if order.infers else "generate",
            "module": str(module),
            "weights": [str(archive) for archive in archives],
            "reference": str(self._blobs.existing(order.model.reference)),
            "shapes": asdict(order.shapes),
            "driver": order.target.driver,
        }
        if order.infers:
            job |= infer_check(order.model.model, folder / CANARY)
        scale = _CHECKED - _COMPILED
        return await self._runner.work("quality", job, folder, lambda s, share: report(s, _COMPILED + scale * share))

    async def _store(
        self,
        order: Order,
        module: Path,
        weights: FileRef | None,
        checked: dict[str, Any] | None,
        cache_bytes: int,
        compile_s: float,
    ) -> compiler_pb2.Variant:
        code = await asyncio.to_thread(self._adopt, module)
        size = code.size_bytes + (weights.size_bytes if weights else 0)
        used = cache_bytes + size if checked is None else int(checked["memory_bytes"])
        memory_bytes = -(-used // _MEMORY_STEP_BYTES) * _MEMORY_STEP_BYTES
        canary_path = module.parent / CANARY
        canary = await asyncio.to_thread(self._adopt, canary_path) if canary_path.exists() else None
        manifest = _manifest_of(order, (code, (weights,) if weights else (), canary), checked, memory_bytes)
        envelope = seal(manifest.to_bytes(), self._key)
        digest = await asyncio.to_thread(self._blobs.put_bytes, envelope)
        variant = _described(order)
        variant.variant_id = manifest.variant_id
        variant.manifest.CopyFrom(
            compiler_pb2.ArtifactRef(name="manifest.json", digest=digest, size_bytes=len(envelope))
        )
        variant.files.extend(compiler_pb2.ArtifactRef(**asdict(file)) for file in manifest.files)
        variant.memory_bytes = memory_bytes
        variant.compile_s = compile_s
        _say_quality(variant, checked)
        return variant


def _manifest_of(
    order: Order,
    files: tuple[FileRef, tuple[FileRef, ...], FileRef | None],
    checked: dict[str, Any] | None,
    memory_bytes: int,
) -> AnyManifest:
    model, shapes = order.model.model, order.shapes
    if isinstance(shapes, InferShapes):
        made = {
            "target": order.target.name,
            "compiled_target": order.target.resolved,
            "driver": order.target.driver,
            "toolchain": toolchain_versions(),
        }
        return infer_manifest(made, model, order.recipe, shapes, files, memory_bytes)
    code, weights, _ = files
    canary = checked["canary"] if checked else {"prompt": (), "continuation": ()}
    return VariantManifest(
        model_id=model.model_id,
        architecture=model.architecture,
        target=order.target.name,
        compiled_target=order.target.resolved,
        driver=order.target.driver,
        recipe=order.recipe,
        vocabulary_size=model.vocabulary_size,
        eos_token_ids=tuple(model.eos_token_ids),
        context_tokens=shapes.context_buckets[-1],
        cache_tokens=shapes.cache_tokens,
        slots=shapes.slots,
        module=code,
        weights=weights,
        weights_scope=WEIGHTS_SCOPE,
        functions=shapes.functions,
        canary=Canary(tuple(canary["prompt"]), tuple(canary["continuation"])),
        memory_bytes=memory_bytes,
        toolchain=toolchain_versions(),
    )


def _described(order: Order) -> compiler_pb2.Variant:
    variant = compiler_pb2.Variant(
        name=order.name,
        model_id=order.model.model.model_id,
        target=order.target.name,
        compiled_target=order.target.resolved,
        recipe=compiler_pb2.Recipe(**asdict(order.recipe)),
    )
    variant.create_time.GetCurrentTime()
    return variant


def _say_quality(variant: compiler_pb2.Variant, checked: dict[str, Any] | None) -> None:
    if checked is None:
        variant.state = compiler_pb2.VARIANT_STATE_UNCHECKED
        variant.state_reason = f"no device for {variant.target} here; build it where there is one to have it checked"
        return
    if "error" in checked:
        say_infer_quality(variant, checked)
        return
    figures = Figures(**checked["figures"])
    admitted, variant.state_reason = judge(variant.recipe.precision, figures, checked["kl_by_function"])
    variant.state = compiler_pb2.VARIANT_STATE_ADMITTED if admitted else compiler_pb2.VARIANT_STATE_REJECTED
    variant.quality.CopyFrom(compiler_pb2.Quality(**asdict(figures)))


def failed_variant(order: Order, why: str) -> compiler_pb2.Variant:
    """A variant that could not be built, with the reason; not kept in the index, so that the next wish tries again."""
    variant = _described(order)
    variant.variant_id = order.key
    variant.state = compiler_pb2.VARIANT_STATE_FAILED
    variant.state_reason = why
    return variant
