"""A compiled variant of a tiny BERT. Built once, then found again, as `tests.tiny_variant`."""

from __future__ import annotations

import asyncio
import fcntl
from dataclasses import replace
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from services.compiler.order import Order
from services.compiler.requests import orders
from services.compiler.workshop import Workshop
from tests.tiny_model import write_tiny_model
from tests.tiny_variant import TINY_LIMITS, TinyVariant, tiny_state_dir
from tradewind.domain.envelope import open_envelope
from tradewind.domain.infer_manifest import InferManifest
from tradewind.v1 import compiler_pb2


def build_tensor_variant() -> TinyVariant:
    """Builds the variant, or finds it built before. Blocks; call it outside of an event loop."""
    return asyncio.run(_build())


async def _build() -> TinyVariant:
    state_dir = tiny_state_dir()
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state_dir / "tests.lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        folder = write_tiny_model(state_dir / "tiny-bert", architecture="BertModel")
        workshop = Workshop(state_dir, TINY_LIMITS)
        try:
            stored = await workshop.importer.import_model(folder, _quiet)
            wish = compiler_pb2.BuildVariantsRequest(recipes=["f32-grouped"], targets=["cpu:host"])
            recipe = orders(wish, stored, workshop.targets)[0].recipe
            small = replace(recipe, decode_batches=(1, 4), context_buckets=(32,))
            variant = await workshop.builder.build(Order(stored, small, workshop.targets[0]), _quiet)
        finally:
            workshop.close()
    assert variant.state == compiler_pb2.VARIANT_STATE_ADMITTED, variant.state_reason
    envelope = workshop.blobs.existing(variant.manifest.digest).read_bytes()
    key_file = state_dir / "keys" / "compiler.pub"
    key = load_pem_public_key(key_file.read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    manifest = cast(Any, InferManifest.from_bytes(open_envelope(envelope, [key])))
    return TinyVariant(stored.model, variant, manifest, envelope, key, key_file, state_dir / "blobs", folder)


def _quiet(_stage: str, _share: float) -> None:
    pass
