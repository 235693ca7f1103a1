"""One compiler for one state folder: a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, TextIO

from tradewind.domain.errors import InUse

_NAME: Final = "lock"


def lock_folder(folder: Path) -> TextIO:
    """Takes the folder's lock, until the file that is returned is closed.

    Raises:
        InUse: another process holds it.
    """
    file = (folder / _NAME).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise InUse(
            f"{folder} is in use by process {holder}; stop it, or give this compiler another state_dir",
            {"holder": holder},
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
