"""Lends a module that is not kept to the nodes that time it: signed as a variant is, in the store for that long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.compiler.making import Made
from services.compiler.order import Order
from services.compiler.quality.source_answer import source_canary
from services.compiler.store.blobs import BlobStore, digest_of_file
from services.compiler.variant_record import described, manifest_of
from tradewind.domain.envelope import seal
from tradewind.domain.manifest import Canary, FileRef, digest_of
from tradewind.v1 import compiler_pb2


class Lender:
    """Lends modules out of work folders.

    Args:
        blobs: what nodes fetch from.
        key: signs, as it signs variants.
    """

    def __init__(self, blobs: BlobStore, key: Ed25519PrivateKey) -> None:
        self._blobs, self._key = blobs, key

    @asynccontextmanager
    async def lent(self, order: Order, made: Made, reference: Path | None) -> AsyncIterator[compiler_pb2.Variant]:
        """The module under an id and a manifest of its own; nothing of it is left in the store afterwards.

        It has the source's answer as its canary, so that a node which computes something else says so.

        Args:
            order: of the module.
            made: it.
            reference: the source's answers at its depth; None when there are none, and nothing is compared then.

        Raises:
            NoSpace: the store's disk is full.
        """
        files = [made.module, *made.archives]
        refs = [
            FileRef(path.name, await asyncio.to_thread(digest_of_file, path), path.stat().st_size) for path in files
        ]
        canary = source_canary(reference, order.recipe.precision) if reference else Canary((), ())
        manifest = manifest_of(order, (refs[0], tuple(refs[1:]), None), canary, 0)
        envelope = seal(manifest.to_bytes(), self._key)
        digests = [*(ref.digest for ref in refs), digest_of(envelope)]
        kept = {digest for digest in digests if self._blobs.has(digest)}
        variant = described(order)
        variant.variant_id = manifest.variant_id
        variant.manifest.CopyFrom(
            compiler_pb2.ArtifactRef(name="manifest.json", digest=digests[-1], size_bytes=len(envelope))
        )
        try:
            for path in files:
                await asyncio.to_thread(self._adopt, path)
            await asyncio.to_thread(self._blobs.put_bytes, envelope)
            yield variant
        finally:
            for digest in set(digests) - kept:
                self._blobs.discard(digest)

    def _adopt(self, path: Path) -> None:
        self._blobs.adopt(path.resolve())
