"""Calibration: what the simulator said of a run, against what was seen of it live; an error for each metric.

Both played the same requests under the same policy with the same demand. The simulator knew the store's profiles only;
nothing is fitted to the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.simulator.live.generator import Answer
from services.simulator.outcome import Outcome, Percentiles, percentiles
from services.simulator.run import Limits


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of both worlds."""

    what: str
    unit: str
    live: float
    simulated: float

    @property
    def error(self) -> float:
        """Simulated over live, less one; 0 where there is nothing to compare."""
        return self.simulated / self.live - 1.0 if self.live > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        return {
            "what": self.what,
            "unit": self.unit,
            "live": round(self.live, 4),
            "simulated": round(self.simulated, 4),
            "error": round(self.error, 4),
        }


def compare(
    answers: Sequence[Answer], limits: Limits, device_mj: float, charged_mj: float, simulated: Outcome
) -> tuple[Compared, ...]:
    """Latencies, attainment, throughput and energies.

    Args:
        device_mj: of all devices during the trace.
        charged_mj: of the work, as charged to requests.
        simulated: of the same policy and demand.
    """
    done = [a for a in answers if not a.error]
    rows = list[Compared]()
    for what, live, said in (
        ("TTFT", percentiles([a.ttft_s for a in done]), simulated.ttft),
        ("TPOT", percentiles([a.tpot_s for a in done if a.output_tokens > 1]), simulated.tpot),
        ("end to end", percentiles([a.e2e_s for a in done]), simulated.e2e),
    ):
        rows += _percentiles(what, live, said)
    within = sum(a.within(limits.ttft_s, limits.tpot_s, limits.e2e_s) for a in answers)
    rows.append(Compared("attainment", "share", within / max(len(answers), 1), simulated.attainment))
    last_s = max((a.done_s for a in done), default=0.0)
    rows.append(Compared("output tokens a second", "1/s", _rate(done, last_s), _said_rate(simulated)))
    rows.append(Compared("energy of the work", "J", charged_mj / 1e3, simulated.energy.active_j))
    rows.append(Compared("energy of the devices", "J", device_mj / 1e3, simulated.energy.total_j))
    return tuple(rows)


def _percentiles(what: str, live: Percentiles, said: Percentiles) -> list[Compared]:
    return [
        Compared(f"{what} p50", "ms", live.p50_s * 1e3, said.p50_s * 1e3),
        Compared(f"{what} p95", "ms", live.p95_s * 1e3, said.p95_s * 1e3),
    ]


def _rate(done: Sequence[Answer], last_s: float) -> float:
    return sum(a.output_tokens for a in done) / last_s if last_s > 0 else 0.0


def _said_rate(simulated: Outcome) -> float:
    return simulated.output_tokens / simulated.done_s if simulated.done_s > 0 else 0.0
