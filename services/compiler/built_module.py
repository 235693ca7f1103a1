"""What a built module says of itself: for which devices its executables are. Reads the file; loads nothing.

IREE puts two messages into a module's host code that name both: "available formats: […]" when no executable suits a
device, and the whole `#hal.executable.target` when the device is not there.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tradewind.domain.errors import CompileFailed

_FORMATS: Final = re.compile(rb"available formats: \[([a-z0-9_, -]{1,200})\]")
_PROCESSOR: Final = re.compile(
    rb'#hal\.executable\.target<"[^"]{1,64}", "[^"]{1,64}", \{[^\n]{0,4000}?\b(?:cpu|arch) = "([^"]{1,64})"'
)


@dataclass(frozen=True, slots=True)
class BuiltFor:
    """What a module was built for.

    Attributes:
        formats: of its executables, as IREE names them.
        processors: chips or instruction sets named for them, for instance "sm_80" or "x86-64-v3"; may be empty.
    """

    formats: frozenset[str]
    processors: frozenset[str]


def read_built_for(module: Path) -> BuiltFor:
    """Reads it back from a .vmfb."""
    with module.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        formats = {name for found in _FORMATS.findall(content) for name in found.decode().split(", ")}
        processors = {found.decode() for found in _PROCESSOR.findall(content)}
    return BuiltFor(frozenset(formats), frozenset(processors))


def check_built_for(module: Path, wanted: str) -> None:
    """Refuses a module whose executables are not of the format wanted, or that has none.

    Raises:
        CompileFailed: with both formats.
    """
    formats = read_built_for(module).formats
    if formats != {wanted}:
        found = ", ".join(sorted(formats)) or "none"
        raise CompileFailed(f"the compiler made executables of format {found} where {wanted} was wanted")
