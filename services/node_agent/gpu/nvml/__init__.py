"""NVIDIA boards through NVML: `GpuReader` and `GpuAdmin` over `pynvml` (package nvidia-ml-py).

Everything is read from the device at run time; no table of products is known here. One session lives as long as the
process: looking boards up again and again costs up to seconds on busy machines. Never run on hardware so far; tests
run it over a fake `libnvidia-ml.so.1`.
"""

from .admin import NvmlAdmin
from .reader import NvmlReader
from .session import NvmlSession, open_nvml

__all__ = ["NvmlAdmin", "NvmlReader", "NvmlSession", "open_nvml"]
