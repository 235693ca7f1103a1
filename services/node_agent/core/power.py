"""What clock and cap a board is given, and whether it is in force. Pure; all limits are the device's own.

Four values are kept apart, since each can differ from the one before:

    requested → admitted (within limits and budget) → enforced (read back) → observed (what the board does now)

Clocks and caps act on the whole board: on all its slices at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# Shares of the highest SM clock that a board is offered locked at: locked clocks save more on decode than caps do
# (arXiv 2605.11999). Three, since each has to be profiled; where they lie is our choice and measured on nothing.
OFFERED_SHARES: Final = (0.55, 0.7, 0.85)
# A locked clock is met within a step of the device's list (15 MHz on boards since Volta).
CLOCK_TOLERANCE_MHZ: Final = 15
# A cap is read back in milliwatts and set in them; boards round to whole watts.
CAP_TOLERANCE_MW: Final = 1000


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a whole board; None is the device's default.

    Attributes:
        eased_clock_mhz: a lower clock, in force for as long as nothing on the board would be late; None for none.
    """

    cap_mw: int | None = None
    clock_mhz: int | None = None
    eased_clock_mhz: int | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a device takes. None and empty where it offers no cap or no clocks.

    Attributes:
        caps_mw: least, most, and default cap.
        clocks_mhz: ascending.
    """

    caps_mw: tuple[int, int, int] | None
    clocks_mhz: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OutOfBounds:
    """A refusal, with the device's own figures."""

    name: str
    words: str
    figures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observed:
    """What the board tells: its enforced cap, and what it does now. None where it does not tell."""

    enforced_cap_mw: int | None
    power_mw: int | None
    clock_mhz: int | None


@dataclass(frozen=True, slots=True)
class PowerState:
    """The four values of a board, and why one is not as the one before.

    Attributes:
        refusal: why a request was not admitted; "" when it was.
        not_in_force: how the board differs from what was admitted; "" when it does not.
        slices: how many slices the setting acts on; 0 for a board that is not cut.
    """

    requested: Setting = field(default_factory=Setting)
    admitted: Setting = field(default_factory=Setting)
    observed: Observed = field(default_factory=lambda: Observed(None, None, None))
    refusal: str = ""
    not_in_force: str = ""
    slices: int = 0


# A sleeping board is looked at this often, so that work finds it awake: it is still loading by then.
WAKE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Sleep:
    """Of a board that can sleep: whether it does, and the least power seen so; None before that."""

    asleep: bool
    power_mw: int | None


def sleeping(bounds: Bounds) -> Setting | None:
    """The setting of a board that sleeps: its lowest clock. None where clocks cannot be locked: it cannot sleep."""
    return Setting(None, bounds.clocks_mhz[0]) if bounds.clocks_mhz else None


def offered(bounds: Bounds) -> tuple[Setting, ...]:
    """Settings worth planning with, besides the default: few, since each has to be profiled.

    The first eases to the lowest of them; it needs no profile of its own.
    """
    if not bounds.clocks_mhz:
        return ()
    tops = (bounds.clocks_mhz[-1] * share for share in OFFERED_SHARES)
    clocks = {max((c for c in bounds.clocks_mhz if c <= top), default=bounds.clocks_mhz[0]) for top in tops}
    locked = tuple(Setting(None, clock) for clock in sorted(clocks))
    return (Setting(eased_clock_mhz=min(clocks)), *locked)


def admit(requested: Setting, bounds: Bounds, safety_cap_mw: int | None = None) -> Setting | OutOfBounds:
    """The setting to ask the device for, or a refusal.

    A clock between two that the device has becomes the lower one. A safety cap is never exceeded: it is the admitted
    cap where the request is higher, or is the default.
    """
    refusal = (
        _cap_refusal(requested.cap_mw, bounds)
        or _clock_refusal("sm_clock_mhz", requested.clock_mhz, bounds)
        or _clock_refusal("eased_sm_clock_mhz", requested.eased_clock_mhz, bounds)
    )
    if refusal:
        return refusal
    caps = [cap for cap in (requested.cap_mw, safety_cap_mw) if cap is not None]
    clock, eased = (_had_clock(one, bounds) for one in (requested.clock_mhz, requested.eased_clock_mhz))
    if eased is not None and eased >= (full := clock or bounds.clocks_mhz[-1]):
        words = f"{eased} MHz is no clock to ease to from {full} MHz; name a lower one or leave it unset"
        return OutOfBounds("eased_sm_clock_mhz", words, {"eased_mhz": eased, "full_mhz": full})
    return Setting(min(caps, default=None), clock, eased)


def exactly(requested: Setting, bounds: Bounds) -> Setting | OutOfBounds:
    """As `admit`, for a measurement: it has one clock, by which its figures are kept, so that no other will do."""
    if requested.eased_clock_mhz is not None:
        return OutOfBounds("eased_sm_clock_mhz", "a measurement runs at one clock; name it as sm_clock_mhz")
    answer = admit(requested, bounds)
    if isinstance(answer, OutOfBounds) or answer == requested or requested.clock_mhz is None:
        return answer
    below, asked = answer.clock_mhz or 0, requested.clock_mhz
    above = min(one for one in bounds.clocks_mhz if one > asked)
    words = f"{asked} MHz is no clock of this board; those next to it are {below} and {above} MHz"
    return OutOfBounds("sm_clock_mhz", words, {"below_mhz": below, "above_mhz": above})


def in_force(setting: Setting, *, eased: bool) -> Setting:
    """The one clock and cap to set, of a setting that may have two clocks."""
    clock = setting.eased_clock_mhz if eased and setting.eased_clock_mhz is not None else setting.clock_mhz
    return Setting(setting.cap_mw, clock)


def not_in_force(admitted: Setting, bounds: Bounds, observed: Observed) -> str:
    """How the board differs from what was admitted, in words; "" when it does not.

    An observed clock below the lock is no fault: an idle or hot board runs slower.
    """
    words = []
    default_mw = bounds.caps_mw[2] if bounds.caps_mw else None
    wanted_mw = admitted.cap_mw if admitted.cap_mw is not None else default_mw
    enforced_mw = observed.enforced_cap_mw
    if wanted_mw is not None and enforced_mw is not None:
        if enforced_mw > wanted_mw + CAP_TOLERANCE_MW:
            words.append(f"cap {wanted_mw} mW is not in force, the board enforces {enforced_mw} mW")
        elif enforced_mw < wanted_mw - CAP_TOLERANCE_MW:
            words.append(f"another limiter holds the board at {enforced_mw} mW, below the cap of {wanted_mw} mW")
    clock, seen = admitted.clock_mhz, observed.clock_mhz
    if clock is not None and seen is not None and seen > clock + CLOCK_TOLERANCE_MHZ:
        words.append(f"clock {clock} MHz is not in force, the board runs at {seen} MHz")
    return "; ".join(words)


def _cap_refusal(cap_mw: int | None, bounds: Bounds) -> OutOfBounds | None:
    if cap_mw is None:
        return None
    if bounds.caps_mw is None:
        return OutOfBounds("power_cap_mw", "this board takes no power cap; leave it unset")
    least, most, default = bounds.caps_mw
    if least <= cap_mw <= most:
        return None
    words = f"{cap_mw} mW is out of range: this board takes {least} to {most} mW, its default is {default} mW"
    return OutOfBounds("power_cap_mw", words, {"least_mw": least, "most_mw": most, "default_mw": default})


def _had_clock(clock_mhz: int | None, bounds: Bounds) -> int | None:
    return None if clock_mhz is None else max(one for one in bounds.clocks_mhz if one <= clock_mhz)


def _clock_refusal(name: str, clock_mhz: int | None, bounds: Bounds) -> OutOfBounds | None:
    if clock_mhz is None:
        return None
    if not bounds.clocks_mhz:
        return OutOfBounds(name, "this board takes no locked clock; leave it unset")
    least, most = bounds.clocks_mhz[0], bounds.clocks_mhz[-1]
    if least <= clock_mhz <= most:
        return None
    words = f"{clock_mhz} MHz is out of range: this board takes {least} to {most} MHz"
    return OutOfBounds(name, words, {"least_mhz": least, "most_mhz": most})
