"""Targets that code can be generated for, and the compiler flags that each stands for. Compiles nothing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tradewind.domain.errors import InvalidField

_LLVM_CPU: Final = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu")
AUTO: Final = "auto"
# Of the features that recipes ask for, those that every machine of this level has.
_X86_64_V3: Final = frozenset({"avx2", "fma", "f16c"})


@dataclass(frozen=True, slots=True)
class Target:
    """What code is generated for.

    Attributes:
        name: as users say it, for instance "cpu:host".
        resolved: what it stands for here, for instance "cpu:znver3".
        flags: of iree-compile.
        driver: IREE HAL driver that runs it.
        features: what it can do, by the names of /proc/cpuinfo.
        runnable_here: whether this machine runs it, so that its quality can be checked.
        by_default: whether "auto" means it.
        note: what to know about it.
    """

    name: str
    resolved: str
    flags: tuple[str, ...]
    driver: str
    features: frozenset[str]
    runnable_here: bool
    by_default: bool
    note: str


def known_targets(host_cpu: str) -> tuple[Target, ...]:
    """Every target of this compiler.

    Args:
        host_cpu: what "host" stands for, see `read_host_cpu`.
    """
    generic = (*_LLVM_CPU, "--iree-llvmcpu-target-cpu=x86-64-v3", "--iree-llvmcpu-target-triple=x86_64-linux-gnu")
    x86 = platform.machine() == "x86_64"
    return (
        Target(
            "cpu:host",
            f"cpu:{host_cpu}",
            (*_LLVM_CPU, "--iree-llvmcpu-target-cpu=host"),
            "local-task",
            _cpu_flags(),
            True,
            True,
            "the machine the compiler runs on, every instruction it has",
        ),
        Target(
            "cpu:x86-64-v3",
            "cpu:x86-64-v3",
            generic,
            "local-task",
            _X86_64_V3,
            x86 and "avx2" in _cpu_flags(),
            False,
            "any x86-64 machine with AVX2 and FMA",
        ),
    )


def find_target(name: str, targets: tuple[Target, ...]) -> Target:
    """The target of that name.

    Raises:
        InvalidField: there is none; the message lists them.
    """
    for target in targets:
        if target.name == name:
            return target
    raise InvalidField("targets", f"no target named {name!r}; known are {', '.join(t.name for t in targets)}, or auto")


def choose_targets(names: tuple[str, ...], targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """The targets meant by a request, each once; none or "auto" means those that run here.

    Raises:
        InvalidField: an unknown name.
    """
    if not names or names == (AUTO,):
        return tuple(t for t in targets if t.by_default)
    return tuple(find_target(name, targets) for name in dict.fromkeys(names))


def read_host_cpu() -> str:
    """A name for this machine's CPU that two machines share only when one runs the other's code.

    The model name alone does not do: the same chip shows fewer instructions inside some virtual machines.
    """
    flags = _cpu_flags()
    if not flags:
        return platform.machine()
    vector = next((name for name in ("avx512f", "avx2", "avx", "asimd") if name in flags), "scalar")
    return f"{platform.machine()}-{_cpu_model()}-{vector}"


def _cpu_flags() -> frozenset[str]:
    line = _cpuinfo("flags") or _cpuinfo("Features")
    return frozenset(line.split())


def _cpu_model() -> str:
    family, model = _cpuinfo("cpu family"), _cpuinfo("model")
    return f"f{family}m{model}" if family else "generic"


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists() or not os.access(path, os.R_OK):
        return ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
