"""What an agent keeps on disk: identity, newest accepted target, sockets. One agent at a time holds the folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import tempfile
import uuid
from pathlib import Path
from typing import Final

import structlog

from tradewind.domain.errors import InUse, InvalidField
from tradewind.v1 import node_pb2

_DIGEST_BYTES: Final = 32
# sun_path of a unix socket holds 108 bytes with its end; a name in the folder takes some twenty.
_LONGEST_FOLDER: Final = 80


class StateFolder:
    """The folder. `open` takes it; `close` gives it back."""

    def __init__(self, root: Path, lock: int) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self._lock = lock
        self._target = root / "target"
        self.sockets = _socket_folder(root)

    @classmethod
    def open(cls, root: Path) -> StateFolder:
        """Takes the folder, which is made when missing.

        Raises:
            InUse: another agent has it.
        """
        root = root.absolute()
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace")
            os.close(lock)
            raise InUse(
                f"{root} is used by another node agent (pid {holder}); stop it or choose another state_dir",
                {"path": str(root), "holder": holder},
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return cls(root, lock)

    def close(self) -> None:
        """Gives the folder back and removes what only a running agent needs. Idempotent."""
        if self._lock >= 0:
            for left in self.sockets.iterdir():
                left.unlink(missing_ok=True)
            self.sockets.rmdir()
            os.close(self._lock)
            self._lock = -1

    def node_id(self, wanted: str) -> str:
        """The node's identity: as wanted, else as kept, else made from the host's name and kept."""
        file = self.root / "node_id"
        if wanted:
            return wanted
        if not file.exists():
            host = "".join(c if c.isalnum() or c in "._-" else "-" for c in platform.node()) or "node"
            write_whole(file, f"{host[:50]}-{uuid.uuid4().hex[:6]}".encode())
        return file.read_text(encoding="utf-8").strip()

    def save_target(self, target: node_pb2.NodeTarget) -> None:
        """Keeps a target; it is on the disk when this returns."""
        data = target.SerializeToString()
        write_whole(self._target, hashlib.sha256(data).digest() + data)

    def load_target(self) -> node_pb2.NodeTarget | None:
        """The target kept; None when there is none, or it was damaged (the orchestrator sends it again)."""
        try:
            raw = self._target.read_bytes()
        except FileNotFoundError:
            return None
        digest, data = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            structlog.get_logger("state").warning("the kept target is damaged and ignored", file=str(self._target))
            return None
        return node_pb2.NodeTarget.FromString(data)


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file so that after a crash the old or the new one is there, whole."""
    part = path.with_name(path.name + ".new")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _socket_folder(root: Path) -> Path:
    """A folder for sockets that only this user may enter; outside the root where its path is too long for a socket."""
    folder = root / "run"
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"tradewind-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise InvalidField("state_dir", f"{folder} can be entered by others; remove it, or choose another state_dir")
    for left in folder.iterdir():
        left.unlink()
    return folder
