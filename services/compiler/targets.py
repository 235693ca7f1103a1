"""Targets that code can be generated for, and the compiler flags that each stands for. Compiles nothing."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.compiler.host_cpu import cpu_flags
from tradewind.domain.errors import InvalidField

AUTO: Final = "auto"
HOST: Final = "cpu:host"
_LOCAL: Final = "--iree-hal-target-device=local"
_LLVM_CPU: Final = (_LOCAL, "--iree-hal-local-target-device-backends=llvm-cpu")
# Names of /proc/cpuinfo for what each level of the x86-64 psABI adds, those that recipes and `runs here` ask for.
_V2: Final = frozenset({"sse4_2", "ssse3", "popcnt"})
_V3: Final = _V2 | {"avx2", "fma", "f16c"}
_V4: Final = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
# What IREE 3.13 optimises with; its codegen for SPIR-V with cooperative matrices refuses what this leaves of a softmax.
_OPTIMISED: Final = ("--iree-opt-level=O3",)
# At O3 code for the baseline profile gave wrong logits on llvmpipe (IREE 3.13, Mesa 22.3.6); at O0 they agree to 1e-5.
_UNOPTIMISED: Final = ("--iree-opt-level=O0",)
_LEVELS: Final = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}
# What GPUs compute in, by the names that recipes ask for; see `services.compiler.recipes`.
GPU_F16: Final = "gpu-f16"
GPU_BF16: Final = "gpu-bf16"
# And what they can load: SPIR-V without 8-bit storage has no code for numbers of 8 bits (IREE 3.13).
GPU_INT8: Final = "gpu-int8"


class Format(StrEnum):
    """How executables of a module are encoded: IREE's own names, readable back from a built module."""

    ELF_X86 = "embedded-elf-x86_64"
    ELF_ARM = "embedded-elf-arm_64"
    PTX = "cuda-nvptx-fb"
    HSACO = "rocm-hsaco-fb"
    SPIRV = "vulkan-spirv-fb"
    METAL = "metal-msl-fb"
    VMVX = "vmvx-bytecode-fb"


@dataclass(frozen=True, slots=True)
class Target:
    """What code is generated for.

    Attributes:
        name: as users say it, for instance "cpu:host".
        resolved: what it stands for here, for instance "cpu:znver3"; what was really compiled for.
        flags: of iree-compile.
        driver: IREE HAL driver that runs it.
        features: what it can do, by the names of /proc/cpuinfo, or those of this file for GPUs.
        runnable_here: whether this machine runs it, so that its quality can be checked.
        by_default: whether "auto" means it.
        note: what to know about it.
        executables: format of the executables in its modules.
        optimisation: flag of the optimisation level, where one is given.
    """

    name: str
    resolved: str
    flags: tuple[str, ...]
    driver: str
    features: frozenset[str]
    runnable_here: bool
    by_default: bool
    note: str
    executables: Format = Format.ELF_X86
    optimisation: tuple[str, ...] = _OPTIMISED

    @property
    def is_host(self) -> bool:
        """Whether its code is for the machine the compiler runs on, and for others only by luck."""
        return self.name == HOST

    @property
    def kind(self) -> str:
        """The part before the colon, for instance "cuda"."""
        return self.name.partition(":")[0]


def known_targets(host_cpu: str) -> tuple[Target, ...]:
    """Every target of this compiler.

    Args:
        host_cpu: what "host" stands for, see `read_host_cpu`.
    """
    levels = (_x86_level(level, features) for level, features in _LEVELS.items())
    arm = (_aarch64(core) for core in ("generic", "neoverse-n1"))
    return (_host(host_cpu), *levels, *arm, *_cuda(), *_rocm(), *_vulkan(), _METAL, _VMVX)


def _host(cpu: str) -> Target:
    form = Format.ELF_X86 if platform.machine() == "x86_64" else Format.ELF_ARM
    flags = (*_LLVM_CPU, "--iree-llvmcpu-target-cpu=host")
    note = "the machine the compiler runs on, every instruction it has"
    return Target(HOST, f"cpu:{cpu}", flags, "local-task", cpu_flags(), True, True, note, form)


def _x86_level(level: str, features: frozenset[str]) -> Target:
    flags = (*_LLVM_CPU, f"--iree-llvmcpu-target-cpu={level}", "--iree-llvmcpu-target-triple=x86_64-linux-gnu")
    here = platform.machine() == "x86_64" and features <= cpu_flags()
    note = f"any machine of the level {level}"
    return Target(f"cpu:{level}", f"cpu:{level}", flags, "local-task", features, here, False, note)


def _aarch64(core: str) -> Target:
    flags = (*_LLVM_CPU, f"--iree-llvmcpu-target-cpu={core}", "--iree-llvmcpu-target-triple=aarch64-linux-gnu")
    name = "cpu:aarch64" if core == "generic" else f"cpu:{core}"
    note = "any 64-bit Arm machine" if core == "generic" else f"Arm {core.replace('-', ' ').title()}"
    # Bare "aarch64" runs on any such machine; a named core may have instructions that the one here lacks.
    here = platform.machine() == "aarch64" and core == "generic"
    return Target(name, name, flags, "local-task", frozenset(), here, False, f"{note}; compiled only", Format.ELF_ARM)


def _cuda() -> tuple[Target, ...]:
    """IREE 3.13 knows no sm_90 and later: their code is compiled for sm_89, and the driver takes its PTX further."""
    compiled = {"sm_80": "sm_80", "sm_86": "sm_86", "sm_89": "sm_89", "sm_90": "sm_89"}
    return tuple(
        Target(
            f"cuda:{asked}",
            f"cuda:{made}",
            ("--iree-hal-target-device=cuda", f"--iree-cuda-target={made}"),
            "cuda",
            frozenset({GPU_F16, GPU_BF16, GPU_INT8}),
            False,
            False,
            f"NVIDIA {asked}" + ("" if asked == made else f"; compiled for {made}, the driver translates its PTX"),
            Format.PTX,
        )
        for asked, made in compiled.items()
    )


def _rocm() -> tuple[Target, ...]:
    return tuple(
        Target(
            f"rocm:{chip}",
            f"rocm:{chip}",
            ("--iree-hal-target-device=hip", f"--iree-rocm-target={chip}"),
            "hip",
            frozenset({GPU_F16, GPU_BF16, GPU_INT8}),
            False,
            False,
            f"AMD {chip}; compiled only",
            Format.HSACO,
        )
        for chip in ("gfx90a", "gfx942", "gfx1100")
    )


def _vulkan() -> tuple[Target, ...]:
    profiles = (
        ("ampere", "ampere", (), "NVIDIA Ampere through Vulkan; compiled only"),
        ("rdna3", "rdna3", (), "AMD RDNA 3 through Vulkan; compiled only"),
        ("adreno", "adreno", _OPTIMISED, "Qualcomm Adreno through Vulkan; compiled only"),
        ("baseline", "vp_android_baseline_2022", _UNOPTIMISED, "any device of that profile, as Mesa's llvmpipe"),
    )
    return tuple(
        Target(
            f"vulkan:{name}",
            f"vulkan:{profile}",
            ("--iree-hal-target-device=vulkan", f"--iree-vulkan-target={profile}"),
            "vulkan",
            frozenset() if name == "baseline" else frozenset({GPU_INT8}),
            False,
            False,
            note,
            Format.SPIRV,
            optimisation,
        )
        for name, profile, optimisation, note in profiles
    )


_METAL: Final = Target(
    "metal:default",
    "metal:default",
    ("--iree-hal-target-device=metal",),
    "metal",
    frozenset({GPU_INT8}),
    False,
    False,
    "Apple GPUs; compiled only",
    Format.METAL,
    (),
)
_VMVX: Final = Target(
    "vmvx:portable",
    "vmvx:portable",
    (_LOCAL, "--iree-hal-local-target-device-backends=vmvx"),
    "local-task",
    frozenset(),
    True,
    False,
    "any machine at all: bytecode that IREE's virtual machine runs, many times slower",
    Format.VMVX,
)


def find_target(name: str, targets: tuple[Target, ...]) -> Target:
    """The target of that name; one that is the only one of its kind needs no more than the kind.

    Raises:
        InvalidField: there is none; the message lists them.
    """
    for target in targets:
        if name in (target.name, target.name.removesuffix(":default").removesuffix(":portable")):
            return target
    raise InvalidField("targets", f"no target named {name!r}; known are {', '.join(t.name for t in targets)}, or auto")


def choose_targets(names: tuple[str, ...], targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """The targets meant by a request, each once; none or "auto" means those that run here.

    Raises:
        InvalidField: an unknown name.
    """
    if not names or names == (AUTO,):
        return tuple(t for t in targets if t.by_default)
    return tuple(dict.fromkeys(find_target(name, targets) for name in names))
