"""What a board and its slices are called, as profiles are kept by it, and which targets it runs. Pure."""

from __future__ import annotations

import math
import re
from typing import Final

_GIB: Final = 1 << 30
# Targets that the compiler has (IREE 3.13 knows no sm_90: it refuses it as "missing GPU target"). Their modules carry
# PTX, which the driver translates for every later architecture: a board runs each target up to its own capability.
CUDA_TARGETS: Final = ((8, 9), (8, 6), (8, 0))
# FP32 cores of one multiprocessor by compute capability: CUDA C++ Programming Guide, "Arithmetic Instructions".
_CORES_PER_SM: Final = {
    (7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128, (8, 7): 128, (8, 9): 128, (9, 0): 128, (10, 0): 128, (12, 0): 128,
}  # fmt: skip
_NOISE: Final = frozenset({"nvidia", "tesla", "geforce", "quadro", "graphics", "hbm2", "hbm2e", "hbm3", "hbm3e", "gpu"})
_MEMORY: Final = re.compile(r"\d+g?b?")
_FORM: Final = re.compile(r"sxm\d*|nvl|pg\d+")
# The size in a profile's name is its share of the board rounded up to such parts of the whole.
_NAME_PARTS: Final = 8


def device_class(product_name: str, memory_bytes: int) -> str:
    """For instance "gpu:h100-80" or "gpu:h100-80-pcie": chip, GiB rounded up, and PCIe where the name says so.

    Args:
        product_name: as NVML has it, for instance "NVIDIA A100-SXM4-40GB".
        memory_bytes: of the board.
    """
    words = [word for word in re.split(r"[^a-z0-9]+", product_name.lower()) if word and word not in _NOISE]
    chip = [w for w in words if w != "pcie" and not _FORM.fullmatch(w) and not (_MEMORY.fullmatch(w) and "g" in w)]
    parts = ["-".join(chip) or "unknown", str(math.ceil(memory_bytes / _GIB))]
    return "gpu:" + "-".join([*parts, *(["pcie"] if "pcie" in words else [])])


def targets(compute_capability: tuple[int, int]) -> tuple[str, ...]:
    """Targets whose code it runs, best first; none before Ampere."""
    return tuple(f"cuda:sm_{major}{minor}" for major, minor in CUDA_TARGETS if (major, minor) <= compute_capability)


def multiprocessors(cores: int, compute_capability: tuple[int, int]) -> int:
    """Multiprocessors of a board with so many cores; 0 for an architecture that is not known."""
    return cores // _CORES_PER_SM.get(compute_capability, cores + 1)


def profile_name(compute_slices: int, slice_bytes: int, board_bytes: int, attribute: str) -> str:
    """The name of a profile that the library gives none for, as nvidia-smi makes it: "1g.10gb+me".

    The rule is that of NVIDIA's go-nvlib: the slice's share of the board, rounded up to an eighth, times the board's
    GiB rounded up, rounded half up.

    Args:
        compute_slices: of one instance.
        slice_bytes: memory of one instance.
        board_bytes: memory of the board.
        attribute: "me", "gfx" …; "" for none.
    """
    share = math.ceil(slice_bytes / board_bytes * _NAME_PARTS) / _NAME_PARTS
    size_gb = math.floor(share * math.ceil(board_bytes / _GIB) + 0.5)
    return f"{compute_slices}g.{size_gb}gb" + (f"+{attribute}" if attribute else "")
