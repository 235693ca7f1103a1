"""Log files of an instance: one for each service and one with everything; bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from tradewind.embedded.layout import Layout

# A file past this length is moved to NAME.log.1, which is the only old one kept.
MAX_FILE_BYTES: Final = 20 * 1024 * 1024
NAME_WIDTH: Final = 12
ALL: Final = "all"


class LogFiles:
    """Writes lines of services."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files: dict[str, IO[str]] = {}

    def write(self, name: str, line: str) -> None:
        """Adds a line of a service to its own file and to all.log."""
        self._append(name, line)
        self._append(ALL, combined(name, line))

    def close(self) -> None:
        """Closes all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _append(self, name: str, line: str) -> None:
        file = self._files.get(name) or self._open(name)
        file.write(line + "\n")
        if file.tell() > MAX_FILE_BYTES:
            file.close()
            path = self._layout.log(name)
            path.replace(path.with_suffix(".log.1"))
            self._open(name)

    def _open(self, name: str) -> IO[str]:
        file = self._files[name] = self._layout.log(name).open("a", buffering=1, encoding="utf-8", errors="replace")
        return file


def combined(name: str, line: str) -> str:
    """A line as it stands in all.log: the service's name in a column before it."""
    return f"{name:<{NAME_WIDTH}} │ {line}"


def last_lines(path: Path, count: int) -> Iterator[str]:
    """The last lines of a file, oldest first; nothing when there is no file."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file.read().splitlines()[-count:]
