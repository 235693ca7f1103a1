"""What a CPU is called, as profiles are kept by it, and which targets it runs. Pure text work over /proc/cpuinfo."""

from __future__ import annotations

import re
from typing import Final

# Cloud machines hide the model number ("AMD EPYC"); family and model still tell the generation.
_CODE_NAMES: Final = {
    ("AuthenticAMD", 23, 1): "naples",
    ("AuthenticAMD", 23, 49): "rome",
    ("AuthenticAMD", 25, 1): "milan",
    ("AuthenticAMD", 25, 17): "genoa",
    ("AuthenticAMD", 26, 2): "turin",
    ("GenuineIntel", 6, 85): "skylake-sp",
    ("GenuineIntel", 6, 106): "icelake-sp",
    ("GenuineIntel", 6, 143): "sapphire-rapids",
    ("GenuineIntel", 6, 207): "emerald-rapids",
    ("GenuineIntel", 6, 173): "granite-rapids",
}
_NOISE: Final = re.compile(r"\(r\)|\(tm\)|@.*|\b\d+-core\b|\b(cpu|processor|with|radeon|graphics)\b")
# Flags of the x86-64 psABI levels, those that tell a level from the one below.
_LEVELS: Final = (
    ("cpu:x86-64-v4", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})),
    ("cpu:x86-64-v3", frozenset({"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})),
)


def parse_cpuinfo(text: str) -> dict[str, str]:
    """Fields of the first CPU in /proc/cpuinfo."""
    first = text.partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def device_class(info: dict[str, str], machine: str) -> str:
    """For instance "cpu:amd-epyc-milan" or "cpu:amd-epyc-7763".

    Args:
        info: fields of /proc/cpuinfo.
        machine: architecture, for CPUs without a name.
    """
    name = info.get("model name") or f"{machine}-{info.get('CPU part', 'unknown')}"
    words = _NOISE.sub(" ", name.lower())
    slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-") or machine
    if not re.search(r"\d", slug):
        key = (info.get("vendor_id", ""), _number(info.get("cpu family")), _number(info.get("model")))
        slug = "-".join((slug, _CODE_NAMES.get(key, f"family{key[1]}-model{key[2]}")))
    return f"cpu:{slug}"


def targets(info: dict[str, str]) -> tuple[str, ...]:
    """Targets whose code it runs, best first."""
    flags = set(info.get("flags", "").split())
    levels: list[str] = []
    for name, needed in reversed(_LEVELS):
        if needed <= flags:
            levels.insert(0, name)
        else:
            break
    # Bytecode for IREE's virtual machine, which needs nothing of the CPU; the slowest way, and so the last.
    return ("cpu:host", *levels, "vmvx:portable")


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
