"""Brings variants from the compiler onto this node: resumed where a fetch broke off, checked before they count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import structlog

from services.node_agent.artifacts.store import ArtifactStore
from services.node_agent.replica.verified_files import MAX_ENVELOPE_BYTES, read_manifest, trusted_keys
from tradewind.domain.errors import ArtifactRejected, ServiceUnavailable, TradewindError, reason_of
from tradewind.domain.infer_manifest import AnyManifest
from tradewind.domain.manifest import FileRef
from tradewind.rpc.errors import translated
from tradewind.v1 import compiler_pb2, compiler_pb2_grpc

# One call; a fetch that takes longer goes on in the next call where this one stopped.
CALL_LIMIT_S: Final = 300.0
# Calls in a row that may bring nothing new before the fetch counts as failed.
MAX_IDLE_CALLS: Final = 3
# Pieces are gathered to this size before they are written, so that a thread hop pays.
_WRITE_BYTES: Final = 8 << 20


class Fetcher:
    """Fetches variants.

    Args:
        store: where they go.
        stub: of the compiler.
        keys: folder of the public keys trusted; read at each use, so that keys may come later.
        in_use: digests that must stay.
    """

    def __init__(
        self,
        store: ArtifactStore,
        stub: compiler_pb2_grpc.CompilerServiceAsyncStub,
        keys: Path,
        in_use: Callable[[], Collection[str]],
    ) -> None:
        self._store, self._stub, self._keys, self._in_use = store, stub, keys, in_use
        # One fetch of a file at a time: replicas that share weights wait for the same bytes.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._log = structlog.get_logger("artifacts")

    async def variant(self, variant_id: str, envelope: FileRef) -> AnyManifest:
        """Has every file of a variant here and returns its manifest. Idempotent; costs nothing when all is here.

        Raises:
            ArtifactRejected: a digest or the signature does not match.
            NoSpace: the disk is full.
            ServiceUnavailable: the compiler does not answer.
            RemoteError: the compiler has no such artifact.
        """
        manifest = await self.manifest(variant_id, envelope)
        wanted = {envelope.digest, *(f.digest for f in manifest.files)}
        for file in manifest.files:
            await self.file(file, wanted)
        return manifest

    async def manifest(self, variant_id: str, envelope: FileRef) -> AnyManifest:
        """Has the manifest here and no other file; raises as `variant` does."""
        if envelope.size_bytes > MAX_ENVELOPE_BYTES:
            raise ArtifactRejected(f"a manifest of {envelope.size_bytes} bytes is above the limit")
        path = await self.file(envelope, {envelope.digest})
        keys = trusted_keys(self._keys)
        try:
            return read_manifest(path.read_bytes(), keys, variant_id)
        except ArtifactRejected:
            # A changed file is fetched again next time; a wrong signature will be found again.
            self._store.recheck([envelope.digest])
            raise

    async def file(self, file: FileRef, beside: Collection[str]) -> Path:
        """Has one file here.

        Args:
            file: which.
            beside: digests that are wanted together with it.
        """
        lock = self._locks.setdefault(file.digest, asyncio.Lock())
        async with lock:
            if not await asyncio.to_thread(self._store.has, file.digest, file.size_bytes):
                await self._fetch(file, beside)
        return self._store.path_of(file.digest)

    async def _fetch(self, file: FileRef, beside: Collection[str]) -> None:
        missing_bytes = max(0, file.size_bytes - self._store.partial_bytes(file.digest))
        await asyncio.to_thread(self._store.make_room, missing_bytes, {*self._in_use(), *beside, file.digest})
        idle_calls = 0
        while True:
            before_bytes = self._store.partial_bytes(file.digest)
            total_bytes = await self._call(file, before_bytes)
            have_bytes = self._store.partial_bytes(file.digest)
            if have_bytes >= total_bytes:
                break
            idle_calls = idle_calls + 1 if have_bytes == before_bytes else 0
            if idle_calls >= MAX_IDLE_CALLS:
                raise ServiceUnavailable(
                    f"the compiler sent nothing more of {file.name} after {have_bytes} of {total_bytes} bytes",
                    {"service": "compiler"},
                )
        await asyncio.to_thread(self._store.finish, file.digest)
        self._log.info("fetched", file=file.name, digest=file.digest, bytes=file.size_bytes)

    async def _call(self, file: FileRef, offset_bytes: int) -> int:
        """One call from an offset on; returns the length of the whole."""
        request = compiler_pb2.FetchArtifactRequest(digest=file.digest, offset_bytes=offset_bytes)
        gathered = bytearray()
        total_bytes, had_bytes = 0, offset_bytes
        try:
            with translated("compiler"):
                async for piece in self._stub.FetchArtifact(request, timeout=CALL_LIMIT_S):
                    total_bytes = piece.total_bytes
                    had_bytes += len(piece.data)
                    self._check_length(file, total_bytes, had_bytes)
                    gathered += piece.data
                    if len(gathered) >= _WRITE_BYTES:
                        await asyncio.to_thread(self._store.append, file.digest, bytes(gathered))
                        gathered.clear()
        except TradewindError as error:
            # Broken off midway: what came is kept, and the next call goes on from there.
            if not total_bytes or reason_of(error) != ServiceUnavailable.reason:
                raise
            self._log.info("fetch broke off", file=file.name, error=error.message)
        if gathered:
            await asyncio.to_thread(self._store.append, file.digest, bytes(gathered))
        return total_bytes or file.size_bytes

    def _check_length(self, file: FileRef, total_bytes: int, had_bytes: int) -> None:
        if (file.size_bytes and total_bytes != file.size_bytes) or had_bytes > total_bytes:
            actual_bytes = max(total_bytes, had_bytes)
            raise ArtifactRejected(
                f"{file.name} has {actual_bytes} bytes at the compiler, {file.size_bytes} are expected",
                {"expected": str(file.size_bytes), "actual": str(actual_bytes)},
            )
