"""The state folder of an embedded Tradewind: where everything of one instance lives. Pure paths, nothing is created.

STATE/
  endpoints.json      where the services answer; read by the command line
  supervisor.json     who supervises, and the pids of what it started
  supervisor.lock     held as long as the supervisor lives
  postgres/  redis/   data of the stores
  logs/               one file a service, and all.log with everything
  <service>/          the service's own state
  keys/               public keys that node agents trust
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Kernel limit of a Unix socket's path, without the closing zero.
MAX_SOCKET_PATH: Final = 107


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one instance.

    Attributes:
        root: the state folder, absolute.
    """

    root: Path

    @property
    def endpoints(self) -> Path:
        return self.root / "endpoints.json"

    @property
    def supervisor(self) -> Path:
        return self.root / "supervisor.json"

    @property
    def lock(self) -> Path:
        return self.root / "supervisor.lock"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def keys(self) -> Path:
        return self.root / "compiler" / "keys"

    def service(self, name: str) -> Path:
        """State folder of a service."""
        return self.root / name.replace("_", "-")

    def log(self, name: str) -> Path:
        """Log file of a service; "all" has everything."""
        return self.logs / f"{name}.log"

    @property
    def redis_socket(self) -> Path:
        """Redis' socket: in the state folder, or in the temporary folder when that path would be too long."""
        inside = self.redis / "redis.sock"
        if len(str(inside).encode()) <= MAX_SOCKET_PATH:
            return inside
        name = hashlib.sha256(str(self.root).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tradewind-{name}.sock"
