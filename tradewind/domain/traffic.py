"""Traffic as gateways count it and the orchestrator plans by it: sums over short windows. Pure.

Windows are sums only, so that those of several gateways add up and repeating a window does no harm. Lengths are kept
as a sum and a sum of squares: mean and spread follow, and nothing grows with the number of requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Final

# Long enough to hold some requests at ordinary rates, short enough that danger is seen within two windows.
WINDOW_S: Final = 5.0
# Windows of one observation: five minutes, which is what the fast path and a new leader need.
MOST_WINDOWS: Final = 60


@dataclass(frozen=True, slots=True)
class Window:
    """What happened to one deployment's requests in one window.

    Attributes:
        start_s: on the clock of its reader; a multiple of `length_s` on the gateway's wall clock.
        arrivals: requests that came in.
        finished: requests that ended well; `lost` ones ended by a fault of ours.
        prompt_tokens: sum over arrivals; `prompt_squares` is the sum of squares.
        output_tokens: sum over finished; `output_squares` is the sum of squares.
        judged: requests whose outcome against the SLO became known: finished ones, and waiting ones past a limit.
        within: judged ones that met every latency limit; `ttft_within`, `tpot_within` and `e2e_within` those of one
            kind.
        queued: requests waiting at the window's end.
        at_work: requests being answered at the window's end.
    """

    start_s: float
    length_s: float = WINDOW_S
    arrivals: int = 0
    finished: int = 0
    lost: int = 0
    prompt_tokens: float = 0.0
    prompt_squares: float = 0.0
    output_tokens: float = 0.0
    output_squares: float = 0.0
    judged: int = 0
    within: int = 0
    ttft_within: int = 0
    tpot_within: int = 0
    e2e_within: int = 0
    queued: int = 0
    at_work: int = 0

    @property
    def end_s(self) -> float:
        """When it was over."""
        return self.start_s + self.length_s


@dataclass(frozen=True, slots=True)
class DeploymentCount:
    """One deployment as one gateway counts it; windows oldest first, `start_s` on the gateway's wall clock."""

    name: str
    windows: tuple[Window, ...] = ()
    queued: int = 0
    at_work: int = 0


@dataclass(frozen=True, slots=True)
class GatewayCount:
    """Everything one gateway counts, whole each time.

    Attributes:
        sent_unix_s: when, on the gateway's wall clock.
    """

    gateway_id: str
    sent_unix_s: float
    deployments: tuple[DeploymentCount, ...] = ()

    def to_json(self) -> str:
        """As kept in Redis."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> GatewayCount:
        """Reads what `to_json` wrote; fields that are not known are left out, for a newer gateway's sake.

        Raises:
            ValueError: it is something else.
        """
        try:
            raw = json.loads(text)
            counts = tuple(
                DeploymentCount(c["name"], tuple(_window(w) for w in c["windows"]), int(c["queued"]), int(c["at_work"]))
                for c in raw["deployments"]
            )
            return cls(str(raw["gateway_id"]), float(raw["sent_unix_s"]), counts)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a gateway's count: {error}") from error


def summed(windows: Iterable[Window]) -> Window | None:
    """One window that holds several of the same time; None of none."""
    found = list(windows)
    if not found:
        return None
    sums = {name: sum(getattr(w, name) for w in found) for name in _SUMS}
    return Window(found[0].start_s, found[0].length_s, **sums)


_NAMES: Final = tuple(field.name for field in fields(Window))
_SUMS: Final = tuple(name for name in _NAMES if name not in ("start_s", "length_s"))


def _window(raw: dict[str, float]) -> Window:
    # A gateway from before this limit was judged says nothing of it, and nothing is no miss.
    raw.setdefault("e2e_within", raw.get("judged", 0))
    return Window(**{name: raw[name] for name in _NAMES if name in raw})  # type: ignore[arg-type]
