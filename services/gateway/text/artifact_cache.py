"""Model files on disk, by digest, so that a gateway goes on when the compiler is away. Bounded; reads are checked."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Final

from tradewind.domain.errors import ArtifactRejected, NoSpace

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class ArtifactCache:
    """Files below one folder. Blocking calls: run them in a thread.

    Args:
        folder: made when missing.
        max_bytes: files used longest ago are deleted beyond this.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def read(self, digest: str) -> bytes | None:
        """The content, or None when it is not here. A file that does not match its name is deleted."""
        path = self._path(digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if digest_of(content) != digest:
            path.unlink(missing_ok=True)
            return None
        os.utime(path)
        return content

    def write(self, digest: str, content: bytes) -> None:
        """Keeps content under its digest, in one step.

        Raises:
            ArtifactRejected: the content has another digest.
            NoSpace: the disk is full.
        """
        if digest_of(content) != digest:
            raise ArtifactRejected(
                f"an artifact fetched as {digest} has other content ({digest_of(content)}); "
                "the compiler's store is damaged: import the model again",
                {"digest": digest},
            )
        self._keep(self._path(digest), content)

    def read_note(self, name: str) -> bytes | None:
        """A small record kept beside the artifacts, for instance which files a model has; not checked."""
        try:
            return (self._folder / _file_name(name)).read_bytes()
        except FileNotFoundError:
            return None

    def write_note(self, name: str, content: bytes) -> None:
        """Keeps a small record.

        Raises:
            NoSpace: the disk is full.
        """
        self._keep(self._folder / _file_name(name), content)

    def _keep(self, path: Path, content: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as part:
                part.write(content)
            Path(part.name).replace(path)
        except OSError as error:
            raise NoSpace(f"cannot write to {self._folder}: {error}", {"path": str(self._folder)}) from error
        self._prune()

    def _prune(self) -> None:
        files = sorted((f for f in self._folder.iterdir() if f.is_file()), key=lambda f: f.stat().st_mtime)
        total = sum(f.stat().st_size for f in files)
        for file in files[:-1]:
            if total <= self._max_bytes:
                return
            total -= file.stat().st_size
            file.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ArtifactRejected(f"{digest!r} is no digest", {"digest": digest})
        return self._folder / digest.replace(":", "-")


def digest_of(content: bytes) -> str:
    """ "sha256:" and the digest."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _file_name(name: str) -> str:
    return "note-" + hashlib.sha256(name.encode()).hexdigest()[:32]
