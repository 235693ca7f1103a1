"""Quantities as people write them ("300ms", "500mJ", "30W", "0.5/s", "95%") to numbers with a unit and back. Pure.

The one place that converts. Every parser refuses a number without a unit, a negative one and nonsense, with a
ValueError whose text says what would do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

_QUANTITY: Final = re.compile(r"\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s].*?)?\s*")

_DURATION_MS: Final = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "min": 6e4, "h": 3.6e6}
# Case counts, for "MJ" is a thousand million "mJ"; small letters are taken where nothing else could be meant.
_ENERGY_MJ: Final = {
    "uJ": 1e-3, "µJ": 1e-3, "mJ": 1.0, "mj": 1.0, "J": 1e3, "j": 1e3, "kJ": 1e6, "kj": 1e6, "Wh": 3.6e6, "kWh": 3.6e9,
}  # fmt: skip
_POWER_MW: Final = {"mW": 1.0, "mw": 1.0, "W": 1e3, "w": 1e3, "kW": 1e6, "kw": 1e6}
_RATE_PER_S: Final = {"/s": 1.0, "/sec": 1.0, "/min": 1 / 60, "/m": 1 / 60, "/h": 1 / 3600}
_BYTE: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def duration_ms(text: str) -> float:
    """Milliseconds of "300ms", "2s", "1.5min"; above 0."""
    return _positive(text, _DURATION_MS, "duration", "300ms or 2s")


def duration_s(text: str) -> float:
    """Seconds of "300ms", "2s", "1.5min"; above 0."""
    return duration_ms(text) / 1e3


def energy_mj(text: str) -> float:
    """Millijoules of "500mJ", "0.5J"; above 0."""
    return _positive(text, _ENERGY_MJ, "energy", "500mJ or 0.5J")


def power_mw(text: str) -> float:
    """Milliwatts of "30W", "500mW"; above 0."""
    return _positive(text, _POWER_MW, "power", "30W or 500mW")


def rate_per_s(text: str) -> float:
    """Events per second of "0.5/s", "30/min"; above 0."""
    return _positive(text, _RATE_PER_S, "rate", "0.5/s or 30/min")


def share(text: str) -> float:
    """A share in [0, 1] of "0.98" or "98%"."""
    text = text.strip()
    number = text.removesuffix("%")
    try:
        value = float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is no share; write a number from 0 to 1, or a percentage such as 98%")
    return value


def sizes(text: str) -> tuple[int, ...]:
    """Whole numbers such as "128,512"; none of an empty text."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if wrong := [part for part in parts if not (part.isascii() and part.isdigit() and 0 < int(part) < 1 << 32)]:
        raise ValueError(f"{wrong[0]!r} is no size; write whole numbers above 0 such as 128,512")
    return tuple(map(int, parts))


def percentile(text: str) -> float:
    """A percentile of "p95", "95" or "p99.9": above 0, below 100."""
    number = text.strip().lower().removeprefix("p")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < 100:
        raise ValueError(f"{text!r} is no percentile; write p50, p95 or p99.9 (above 0, below 100)")
    return value


def _positive(text: str, units: Mapping[str, float], kind: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no {kind}; write {example}")
    number, unit = float(match[1]), match[2] or ""
    if not unit:
        raise ValueError(f"{text!r} has no unit; write a {kind} such as {example}")
    if unit not in units:
        raise ValueError(f"{match[2]!r} is no unit of {kind}; write {example}")
    if not number > 0 or not math.isfinite(number):
        raise ValueError(f"{text!r}: a {kind} must be above 0, such as {example}")
    return number * units[unit]


def show_ms(value_ms: float) -> str:
    """A duration for a person: "0.8 ms", "34 ms", "1.20 s", "2 min 05 s"."""
    if value_ms < 10:
        return f"{value_ms:.1f} ms"
    if value_ms < 1e3:
        return f"{value_ms:.0f} ms"
    if value_ms < 1e5:
        return f"{value_ms / 1e3:.2f} s"
    minutes, seconds = divmod(round(value_ms / 1e3), 60)
    return f"{minutes} min {seconds:02d} s"


def show_mj(value_mj: float) -> str:
    """An energy for a person: "0.8 mJ", "420 mJ", "1.25 J", "3.2 kJ"."""
    for limit, divisor, unit in ((1e3, 1.0, "mJ"), (1e6, 1e3, "J"), (math.inf, 1e6, "kJ")):
        if abs(value_mj) < limit:
            return f"{_digits(value_mj / divisor)} {unit}"
    return f"{value_mj} mJ"


def show_mw(value_mw: float) -> str:
    """A power for a person: "800 mW", "12.5 W", "3.20 kW"."""
    for limit, divisor, unit in ((1e3, 1.0, "mW"), (1e6, 1e3, "W"), (math.inf, 1e6, "kW")):
        if abs(value_mw) < limit:
            return f"{_digits(value_mw / divisor)} {unit}"
    return f"{value_mw} mW"


def show_bytes(count: int) -> str:
    """A size for a person: "512 B", "1.2 GiB"."""
    value = float(count)
    for unit in _BYTE:
        if value < 1024 or unit == _BYTE[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{count} B"


def show_count(count: int) -> str:
    """A large count for a person: "512", "134.5 M", "7.1 G"."""
    for limit, divisor, unit in ((1e4, 1.0, ""), (1e6, 1e3, " k"), (1e9, 1e6, " M"), (math.inf, 1e9, " G")):
        if count < limit:
            return f"{count / divisor:.1f}{unit}" if unit else str(count)
    return str(count)


def _digits(value: float) -> str:
    """Three significant digits without an exponent."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) >= 1e-3 else 3
    return f"{value:.{min(places, 3)}f}"
