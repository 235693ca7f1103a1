"""Faults as data: what goes wrong, where and when. Read from YAML, injected by the world.

faults:
  - {at_s: 60, kind: crash, node: h100-sxm-a0000, for_s: 30}
  - {at_s: 90, kind: slow-link, node: a100-sxm-b0001, for_s: 60, delay_s: 2}
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from tradewind.domain.errors import InvalidField

MAX_FAULTS: Final = 10_000


class FaultKind(StrEnum):
    """What can go wrong."""

    CRASH = "crash"
    PAUSE = "pause"
    PARTITION = "partition"
    SLOW_LINK = "slow-link"
    LOST_ANSWER = "lost-answer"
    CLOCK_STEP = "clock-step"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        for_s: how long it lasts; a clock stays where it was stepped to.
        delay_s: of a slow link, each way; of a clock step, how far, in either direction.
    """

    at_s: float
    kind: FaultKind
    node: str
    for_s: float = 10.0
    delay_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Faults in order of time."""

    faults: tuple[Fault, ...] = ()

    @property
    def last_s(self) -> float:
        """When the last fault is over."""
        return max((f.at_s + f.for_s for f in self.faults), default=0.0)


def read_scenario(path: Path) -> Scenario:
    """Reads a scenario file.

    Raises:
        InvalidField: no such file, no YAML, an unknown kind (the nearest is named) or a number out of range.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidField("scenario", f"{path} cannot be read: {error}") from error
    faults = raw.get("faults") if isinstance(raw, dict) else None
    if not isinstance(faults, list) or len(faults) > MAX_FAULTS:
        raise InvalidField("scenario.faults", f"a list of at most {MAX_FAULTS} faults is needed")
    return Scenario(tuple(sorted((_fault(f, i) for i, f in enumerate(faults)), key=lambda f: (f.at_s, f.node))))


def _fault(raw: Any, number: int) -> Fault:
    where = f"scenario.faults[{number}]"
    if not isinstance(raw, dict) or not {"at_s", "kind", "node"} <= set(raw):
        raise InvalidField(where, "at_s, kind and node are needed")
    kinds = [k.value for k in FaultKind]
    if raw["kind"] not in kinds:
        near = get_close_matches(str(raw["kind"]), kinds, 1, 0.0)[0]
        raise InvalidField(f"{where}.kind", f"{raw['kind']!r} is not known; did you mean {near!r}?")
    try:
        at_s, for_s, delay_s = (float(raw.get(key, default)) for key, default in _NUMBERS)
    except (TypeError, ValueError):
        raise InvalidField(where, "at_s, for_s and delay_s are numbers of seconds") from None
    if not (0 <= at_s < 1e9 and 0 <= for_s < 1e9 and abs(delay_s) < 1e9):
        raise InvalidField(where, "at_s and for_s are 0 or more")
    return Fault(at_s, FaultKind(raw["kind"]), str(raw["node"]), for_s, delay_s)


_NUMBERS: Final = (("at_s", "x"), ("for_s", 10.0), ("delay_s", 1.0))
