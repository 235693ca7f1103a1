"""Opens artifacts so that what was checked is what is loaded. Loads nothing itself.

A digest is taken over the open file, and the loader is given that very file by its descriptor: a file put in its place
meanwhile is never seen. Code is copied into sealed memory first, so that it cannot even be written to after the check.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tradewind.domain.envelope import open_envelope
from tradewind.domain.errors import ArtifactRejected, InvalidField
from tradewind.domain.infer_manifest import AnyManifest
from tradewind.domain.infer_manifest import read_manifest as manifest_of
from tradewind.domain.manifest import FileRef

# Code of a variant is some megabytes; this keeps a wrong manifest from filling memory.
MAX_CODE_BYTES: Final = 512 << 20
# An envelope is some kilobytes.
MAX_ENVELOPE_BYTES: Final = 16 << 20
_BLOCK_BYTES: Final = 1 << 20
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def trusted_keys(folder: Path) -> list[Ed25519PublicKey]:
    """The public keys in a folder's *.pub files, in the order of their names.

    Raises:
        InvalidField: a file is not an Ed25519 public key in PEM.
    """
    keys = []
    for path in sorted(folder.glob("*.pub")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except ValueError as error:
            raise InvalidField("trusted_keys", f"{path} is not a public key in PEM; remove or replace it") from error
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidField("trusted_keys", f"{path} is not an Ed25519 key; remove or replace it")
        keys.append(key)
    return keys


def read_manifest(envelope: bytes, keys: list[Ed25519PublicKey], variant_id: str) -> AnyManifest:
    """The manifest of a variant out of its envelope.

    Raises:
        ArtifactRejected: not signed by a trusted key, not a manifest, or another variant's.
    """
    payload = open_envelope(envelope, keys)
    try:
        manifest = manifest_of(payload)
    except ValueError as error:
        raise ArtifactRejected(f"{error}; build the variant again with this version") from error
    if manifest.variant_id != variant_id:
        raise ArtifactRejected(
            f"the manifest is of variant {manifest.variant_id}, {variant_id} was asked for",
            {"expected": variant_id, "actual": manifest.variant_id},
        )
    return manifest


def open_checked(path: Path, file: FileRef) -> int:
    """A descriptor of a file whose size and digest were checked through it. The caller closes it.

    Raises:
        ArtifactRejected: missing, or size or digest differ.
    """
    descriptor = _open(path, file)
    try:
        digest = hashlib.sha256()
        offset = 0
        while block := os.pread(descriptor, _BLOCK_BYTES, offset):
            digest.update(block)
            offset += len(block)
        _require(file, offset, digest.hexdigest())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def seal_checked(path: Path, file: FileRef) -> int:
    """A descriptor of sealed memory that holds a checked copy of a file. The caller closes it.

    Raises:
        ArtifactRejected: missing, too large, or size or digest differ.
    """
    if file.size_bytes > MAX_CODE_BYTES:
        raise ArtifactRejected(f"{file.name} of {file.size_bytes} bytes is above the limit of {MAX_CODE_BYTES}")
    source = _open(path, file)
    memory = os.memfd_create(file.name, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        with os.fdopen(source, "rb") as reader, os.fdopen(os.dup(memory), "wb") as writer:
            while block := reader.read(_BLOCK_BYTES):
                writer.write(block)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        digest = hashlib.sha256()
        size = os.fstat(memory).st_size
        for offset in range(0, size, _BLOCK_BYTES):
            digest.update(os.pread(memory, _BLOCK_BYTES, offset))
        _require(file, size, digest.hexdigest())
    except BaseException:
        os.close(memory)
        raise
    return memory


def loader_path(descriptor: int) -> str:
    """A path that opens the very file behind a descriptor."""
    return f"/proc/self/fd/{descriptor}"


def _open(path: Path, file: FileRef) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ArtifactRejected(f"{file.name} cannot be opened ({error.strerror}); it is fetched again") from error


def _require(file: FileRef, size_bytes: int, hexdigest: str) -> None:
    actual = f"sha256:{hexdigest}"
    if size_bytes != file.size_bytes or actual != file.digest:
        raise ArtifactRejected(
            f"{file.name} has {size_bytes} bytes with digest {actual}, its manifest says {file.size_bytes} bytes with "
            f"{file.digest}; it is not loaded and is fetched again",
            {"file": file.name, "expected": file.digest, "actual": actual},
        )
