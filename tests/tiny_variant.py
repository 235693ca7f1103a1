"""A compiled variant of the tiny model, for tests of whoever runs variants. Built once, then found again."""

from __future__ import annotations

import asyncio
import fcntl
import getpass
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from services.compiler.jobs.limits import JobLimits
from services.compiler.order import Order
from services.compiler.recipes import PASSES
from services.compiler.targets import find_target
from services.compiler.workshop import Workshop
from tests.tiny_model import write_tiny_model
from tradewind.domain.envelope import open_envelope
from tradewind.domain.manifest import RecipeFacts, VariantManifest
from tradewind.v1 import compiler_pb2

# Small enough to compile in seconds, large enough that chunks, batches and buckets all occur.
TINY_RECIPE = RecipeFacts(
    name="tiny-f32",
    precision="f32",
    passes=PASSES,
    compiler_flags=(),
    prefill_chunks=(16, 64),
    decode_batches=(1, 4),
    context_buckets=(128, 256),
    slots=4,
)
TINY_LIMITS = JobLimits(time_s=300, memory_bytes=6 << 30)


@dataclass(frozen=True, slots=True)
class TinyVariant:
    """A variant and where its files lie.

    Attributes:
        model: as imported.
        variant: as built, admitted.
        manifest: opened from its envelope.
        envelope: the signed bytes.
        public_key: of the compiler that signed it.
        public_key_file: where it lies.
        blob_root: blob store folder, `sha256/ab/abcd…` below it.
        model_folder: the Hugging Face folder it came from.
    """

    model: compiler_pb2.Model
    variant: compiler_pb2.Variant
    manifest: VariantManifest
    envelope: bytes
    public_key: Ed25519PublicKey
    public_key_file: Path
    blob_root: Path
    model_folder: Path

    def path_of(self, digest: str) -> Path:
        """Where a blob lies."""
        name = digest.removeprefix("sha256:")
        return self.blob_root / "sha256" / name[:2] / name


def tiny_state_dir() -> Path:
    """A folder that outlives a test run: what is in it is found by content, so a stale one does no harm."""
    return Path(tempfile.gettempdir()) / f"tradewind-tests-{getpass.getuser()}"


def build_tiny_variant(
    recipe: RecipeFacts = TINY_RECIPE, state_dir: Path | None = None, seed: int = 0, target: str = "cpu:host"
) -> TinyVariant:
    """Builds the variant, or finds it built before. Blocks; call it outside of an event loop."""
    return asyncio.run(build_tiny_variant_async(recipe, state_dir, seed, target))


async def build_tiny_variant_async(
    recipe: RecipeFacts = TINY_RECIPE, state_dir: Path | None = None, seed: int = 0, target: str = "cpu:host"
) -> TinyVariant:
    """As `build_tiny_variant`, inside an event loop."""
    state_dir = state_dir or tiny_state_dir()
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state_dir / "tests.lock").open("w") as lock:
        # Test runs side by side share the folder; a workshop wants it for itself.
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        folder = write_tiny_model(state_dir / f"tiny-{seed}", seed=seed)
        workshop = Workshop(state_dir, TINY_LIMITS)
        try:
            stored = await workshop.importer.import_model(folder, lambda _stage, _share: None)
            order = Order(stored, recipe, find_target(target, workshop.targets))
            variant = await workshop.builder.build(order, lambda _stage, _share: None)
        finally:
            workshop.close()
    checked = (
        compiler_pb2.VARIANT_STATE_ADMITTED if order.target.runnable_here else compiler_pb2.VARIANT_STATE_UNCHECKED
    )
    assert variant.state == checked, variant.state_reason
    envelope = workshop.blobs.existing(variant.manifest.digest).read_bytes()
    public_key_file = state_dir / "keys" / "compiler.pub"
    public_key = load_pem_public_key(public_key_file.read_bytes())
    assert isinstance(public_key, Ed25519PublicKey)
    manifest = VariantManifest.from_bytes(open_envelope(envelope, [public_key]))
    return TinyVariant(
        stored.model, variant, manifest, envelope, public_key, public_key_file, state_dir / "blobs", folder
    )
