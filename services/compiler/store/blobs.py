"""A folder of files named by the digest of their bytes. Files are whole or absent, and never change."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from tradewind.domain.errors import InvalidField, NoSpace, NotFound

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
# Bytes read at once for hashing and copying: large enough that the system calls do not show.
_BLOCK_BYTES: Final = 1 << 20
# Kept free on the store's disk, so that the database and logs beside it can still write.
RESERVE_BYTES: Final = 256 << 20


class BlobStore:
    """Content-addressed files under `root/sha256/ab/abcd…`."""

    def __init__(self, root: Path) -> None:
        """Opens the store; its folder is made when missing."""
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def path_of(self, digest: str) -> Path:
        """Where the blob lies, whether or not it is there.

        Raises:
            InvalidField: not a digest.
        """
        if not _DIGEST.fullmatch(digest):
            raise InvalidField("digest", f"{digest!r} is not 'sha256:' and 64 hexadecimal digits")
        name = digest.removeprefix("sha256:")
        return self._root / "sha256" / name[:2] / name

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        return self.path_of(digest).is_file()

    def existing(self, digest: str) -> Path:
        """Where the blob lies.

        Raises:
            NotFound: it is not there.
        """
        path = self.path_of(digest)
        if not path.is_file():
            raise NotFound("artifact", digest, "build the variant again, or ask the compiler that built it")
        return path

    def put_bytes(self, data: bytes) -> str:
        """Stores bytes; their digest. Idempotent."""
        with tempfile.NamedTemporaryFile(dir=self._incoming, delete=False) as file, self._no_space(len(data)):
            path = Path(file.name)
            try:
                file.write(data)
                file.flush()
            except OSError:
                path.unlink(missing_ok=True)
                raise
        return self.adopt(path)

    def adopt(self, path: Path) -> str:
        """Moves a finished file into the store, copying only from another disk; its digest. Idempotent."""
        digest = digest_of_file(path)
        target = self.path_of(digest)
        with self._no_space(path.stat().st_size):
            if target.exists():
                path.unlink()
                return digest
            target.parent.mkdir(parents=True, exist_ok=True)
            source = path
            if path.stat().st_dev != self._incoming.stat().st_dev:
                source = self._incoming / digest.removeprefix("sha256:")
                shutil.copyfile(path, source)
                path.unlink()
            _sync(source)
            source.chmod(0o444)
            source.replace(target)
            _sync(target.parent)
        return digest

    def discard(self, digest: str) -> None:
        """Takes a blob away that nobody keeps; who reads it now reads on. Idempotent."""
        self.path_of(digest).unlink(missing_ok=True)

    def read(self, digest: str, offset_bytes: int, piece_bytes: int) -> Iterator[bytes]:
        """The blob's bytes from an offset on, in pieces.

        Raises:
            NotFound: it is not there.
            InvalidField: the offset lies past its end.
        """
        path = self.existing(digest)
        size = path.stat().st_size
        if offset_bytes > size:
            raise InvalidField("offset_bytes", f"{offset_bytes} lies past the end at {size}")
        with path.open("rb") as file:
            file.seek(offset_bytes)
            while piece := file.read(piece_bytes):
                yield piece

    def need(self, needed_bytes: int) -> None:
        """Checks that there is room before work begins.

        Raises:
            NoSpace: there is not.
        """
        free_bytes = shutil.disk_usage(self._root).free
        if free_bytes < needed_bytes + RESERVE_BYTES:
            raise _no_space(self._root, free_bytes, needed_bytes + RESERVE_BYTES)

    def sweep(self) -> None:
        """Removes what an earlier life left half written. Called once at start."""
        for path in self._incoming.iterdir():
            path.unlink()

    @contextmanager
    def _no_space(self, needed_bytes: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _no_space(self._root, shutil.disk_usage(self._root).free, needed_bytes) from error


def digest_of_file(path: Path) -> str:
    """Digest of a file's bytes in the form "sha256:…"."""
    with path.open("rb") as file:
        return "sha256:" + _hash(file)


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_space(root: Path, free_bytes: int, needed_bytes: int) -> NoSpace:
    mebibytes = f"{free_bytes >> 20} MiB free, {needed_bytes >> 20} MiB needed"
    return NoSpace(
        f"no space for artifacts in {root}: {mebibytes}; free some, or give the compiler another state_dir",
        {"path": str(root), "free_bytes": str(free_bytes), "needed_bytes": str(needed_bytes)},
    )
