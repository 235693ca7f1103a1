"""What tests on several workers need alike is made by the first of them, and found by the others."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made when nobody has made it yet; not to be changed by anybody. Blocks while another makes it.

    Args:
        folder: one of the run's own (`shared_folder`), so that each run makes it anew.
        make: fills the folder that it is given, which does not exist.
    """
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            make(part := folder.with_name(f"{folder.name}.part"))
            part.rename(folder)
    return folder
