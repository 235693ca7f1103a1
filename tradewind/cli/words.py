"""How the things of the contract read in a table cell: states with colour, ids cut short, ages, sources."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from rich.markup import escape
from rich.text import Text

from tradewind.domain.figures import FigureSource
from tradewind.domain.units import show_mj, show_mw
from tradewind.v1 import common_pb2, profiler_pb2

_GOOD: Final = ("ADMITTED", "READY", "ACTIVE", "DONE", "SERVING")
_BAD: Final = ("REJECTED", "FAILED", "INFEASIBLE", "LOST", "CANCELLED", "NOT SERVING", "AWAY")
SHORT_DIGEST: Final = 12


def state(enum: Any, value: int, prefix: str) -> Text:
    """A state's name in its colour, for instance "admitted" in green."""
    name: str = enum.Name(value).removeprefix(prefix)
    return coloured(name)


def coloured(name: str) -> Text:
    """A state's name in its colour."""
    style = "green" if name in _GOOD else "red" if name in _BAD else "yellow"
    return Text(name.lower().replace("_", " "), style=style)


def short(identity: str) -> str:
    """An id that a person can compare: the first digits of a digest."""
    head, _, digest = identity.rpartition(":")
    if head == "sha256":
        return digest[:SHORT_DIGEST]
    return identity


def age(moment: Timestamp, now_s: float) -> str:
    """How long ago, in the largest unit that fits."""
    if not moment.seconds:
        return "–"
    seconds = max(0.0, now_s - moment.seconds - moment.nanos / 1e9)
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} d ago"


def source(value: int) -> str:
    """A figure's source label, for instance "modelled"."""
    return (FigureSource(value) if value else FigureSource.UNAVAILABLE).label.replace("_", " ")


def energy(value: common_pb2.Energy) -> str:
    """An amount of energy, or a dash when nobody knows it."""
    if not value.source or value.source == common_pb2.FIGURE_SOURCE_UNAVAILABLE:
        return "–"
    return show_mj(value.energy_mj)


def percent(share: float) -> str:
    """A share as a percentage that keeps the nines."""
    text = f"{share * 100:.1f} %"
    return "<100 %" if share < 1 and text == "100.0 %" else text


def load(point: profiler_pb2.LoadPoint) -> str:
    """A load in words, for instance "128 tokens × 1"."""
    return f"{point.prompt_tokens} tokens × {point.concurrency}"


def setting(power: common_pb2.PowerSetting) -> str:
    """A clock and cap in words, for instance " at 1080 MHz"; "" for the default."""
    clock = f"{power.sm_clock_mhz} MHz" if power.HasField("sm_clock_mhz") else ""
    cap = show_mw(power.power_cap_mw) if power.HasField("power_cap_mw") else ""
    return f" at {', '.join(filter(None, (clock, cap)))}" if clock or cap else ""


def plain(text: str) -> str:
    """Text of others, so that its brackets are not read as markup."""
    return escape(text)
