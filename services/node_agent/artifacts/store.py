"""Artifacts on this node's disk: files named by the hexadecimal part of their digest, whole or absent, never changed.

Bounded: what no replica needs falls out, least recently used first. Partial files wait beside for the rest.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from tradewind.domain.errors import ArtifactRejected, InvalidField, NoSpace

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_BLOCK_BYTES: Final = 1 << 20
_PART: Final = ".part"
# Kept free on the disk, so that logs and the state file can still be written.
RESERVE_BYTES: Final = 256 << 20


class ArtifactStore:
    """A folder of artifacts.

    Args:
        root: the folder; made when missing.
        limit_bytes: most bytes kept when nothing needs them.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root, self._limit_bytes = root, limit_bytes
        root.mkdir(parents=True, exist_ok=True)

    def path_of(self, digest: str) -> Path:
        """Where an artifact lies, whether or not it is there.

        Raises:
            InvalidField: not a digest.
        """
        found = _DIGEST.fullmatch(digest)
        if found is None:
            raise InvalidField("digest", f"{digest!r} is not 'sha256:' and 64 hexadecimal digits")
        return self.root / found[1]

    def has(self, digest: str, size_bytes: int) -> bool:
        """Whether the artifact is there with that size (0: any); marks it as used. Does not read it."""
        path = self.path_of(digest)
        try:
            found_bytes = path.stat().st_size
        except FileNotFoundError:
            return False
        if size_bytes and found_bytes != size_bytes:
            path.unlink(missing_ok=True)
            return False
        os.utime(path)
        return True

    def partial_bytes(self, digest: str) -> int:
        """Bytes of it that were fetched already."""
        try:
            return self._part(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, digest: str, data: bytes) -> None:
        """Adds bytes to the partial file.

        Raises:
            NoSpace: the disk is full; what is there stays for the next try.
        """
        try:
            with self._part(digest).open("ab") as file:
                file.write(data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._no_space(len(data)) from error
            raise

    def finish(self, digest: str) -> Path:
        """Checks the partial file and makes it the artifact, read-only and on the disk.

        Raises:
            ArtifactRejected: the digest differs; the bytes are thrown away.
        """
        part, path = self._part(digest), self.path_of(digest)
        part.touch()
        actual = digest_of_file(part)
        if actual != digest:
            part.unlink()
            raise ArtifactRejected(
                f"an artifact came with digest {actual} in place of {digest}; it was thrown away and is fetched again",
                {"expected": digest, "actual": actual},
            )
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.chmod(0o444)
        part.replace(path)
        return path

    def recheck(self, digests: Collection[str]) -> list[str]:
        """Reads artifacts again and throws away those that changed; returns their digests."""
        bad = [d for d in digests if self.path_of(d).exists() and digest_of_file(self.path_of(d)) != d]
        for digest in bad:
            self.path_of(digest).unlink(missing_ok=True)
        return bad

    def make_room(self, needed_bytes: int, keep: Collection[str]) -> None:
        """Drops what nobody needs until `needed_bytes` more fit below the limit and on the disk.

        Args:
            needed_bytes: about to be written.
            keep: digests that stay whatever happens.

        Raises:
            NoSpace: the disk has no room even so.
        """
        kept = {self.path_of(digest).name for digest in keep}
        files = sorted((f for f in self.root.iterdir() if f.is_file()), key=lambda f: f.stat().st_mtime_ns)
        used_bytes = sum(f.stat().st_size for f in files)
        for file in files:
            enough_disk = self._free_bytes() >= needed_bytes + RESERVE_BYTES
            if used_bytes + needed_bytes <= self._limit_bytes and enough_disk:
                return
            if file.name.removesuffix(_PART) not in kept:
                used_bytes -= file.stat().st_size
                file.unlink(missing_ok=True)
        if self._free_bytes() < needed_bytes + RESERVE_BYTES:
            raise self._no_space(needed_bytes)

    def digests(self) -> list[str]:
        """What is there, sorted."""
        return sorted(f"sha256:{f.name}" for f in self.root.iterdir() if f.is_file() and f.suffix != _PART)

    def _part(self, digest: str) -> Path:
        path = self.path_of(digest)
        return path.with_name(path.name + _PART)

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    def _no_space(self, needed_bytes: int) -> NoSpace:
        free_bytes = self._free_bytes()
        return NoSpace(
            f"{self.root} has {free_bytes} bytes free, {needed_bytes} and a reserve of {RESERVE_BYTES} are needed; "
            "free some space or move state_dir",
            {"path": str(self.root), "free_bytes": str(free_bytes), "needed_bytes": str(needed_bytes)},
        )


def digest_of_file(path: Path) -> str:
    """Digest in the form "sha256:…" of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"
