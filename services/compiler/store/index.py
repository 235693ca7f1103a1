"""What was made from what: small JSON documents by key, so that nothing is made twice. Written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from tradewind.domain.manifest import digest_of

_KINDS: Final = ("sources", "models", "weights", "variants", "choosing", "windows")


class Index:
    """Documents under `root/<kind>/<key>.json`."""

    def __init__(self, root: Path) -> None:
        """Opens the index; its folders are made when missing."""
        self._root = root
        for kind in _KINDS:
            (root / kind).mkdir(parents=True, exist_ok=True)

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The document, or None."""
        try:
            content: dict[str, Any] = json.loads(self._path(kind, key).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return content

    def put(self, kind: str, key: str, content: dict[str, Any]) -> None:
        """Writes the document, replacing one of the same key."""
        path = self._path(kind, key)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            json.dump(content, file, sort_keys=True, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)

    def _path(self, kind: str, key: str) -> Path:
        return self._root / kind / f"{key.removeprefix('sha256:')}.json"


def key_of(*parts: Any) -> str:
    """Digest of anything JSON can hold."""
    return digest_of(json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
