"""Times the simulator: a real hour on twenty replicas, and a day on a thousand nodes.

    python -m bench.simulator.speed hour|day TRACES DEVICE_TABLES [UNTIL_S]

`hour` is `azure2023_conv` (19,366 requests) on 20 H100 with a fixed placement of 20 replicas, looked at every second.
`day` is `servegen_mlarge_24h` × 50 (1.9 million requests, 22 a second) on 500 nodes with an H100 and 500 with an A100
under the policy `energy`, looked at every 10 s; UNTIL_S cuts it. Prints seconds of one process, planning and summing up
included, reading of files not; the digest tells whether two codes simulated the same.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from services.orchestrator.core.facts.policy import POLICIES
from services.simulator.baselines import begin
from services.simulator.catalogue import menu_of
from services.simulator.cluster import parse_cluster
from services.simulator.run import Case, Limits, demand_of, run
from services.simulator.trace import read_trace

# Requests a second that take twenty whole H100 when planned for; the trace itself has 5.5.
_TWENTY_PER_S: Final = 210.0
_COPIES: Final = 50
_LIMITS: Final = Limits(1.0, 0.05)


def main() -> None:
    """Runs what is named."""
    name, traces, tables, *rest = sys.argv[1:]
    until_s = float(rest[0]) if rest else float("inf")
    case = hour(Path(traces), Path(tables)) if name == "hour" else day(Path(traces), Path(tables), until_s)
    fixed = demand_of(case.trace, _TWENTY_PER_S, _TWENTY_PER_S)
    began_s, cpu_s = time.perf_counter(), time.process_time()
    if name == "hour":
        outcome = run(case, POLICIES["static"], fixed)
    else:
        outcome = run(case, POLICIES["energy"], begin(case), progress=_told)
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    print(
        f"{name}: {took_s:.2f} s ({cpu_s:.2f} s CPU)  {outcome.requests} requests of {case.trace.length_s:.0f} s  "
        f"within SLO {outcome.attainment:.2%}  lost {outcome.lost}  replicas started {outcome.started}  "
        f"blueprints {outcome.changes}  findings {len(outcome.findings)}  digest {outcome.digest[:16]}"
    )


def hour(traces: Path, tables: Path) -> Case:
    """An hour of chat on twenty boards."""
    devices = [{"type": "h100-sxm", "count": 20, "slices": False}]
    cluster = parse_cluster({"model": "llama-3-8b", "devices": devices}, "twenty")
    return Case(cluster, menu_of(cluster, tables), read_trace(traces / "azure2023_conv.csv.gz"), _LIMITS)


def day(traces: Path, tables: Path, until_s: float) -> Case:
    """A day on a thousand nodes."""
    devices = [{"type": "h100-sxm", "count": 500}, {"type": "a100-sxm", "count": 500}]
    cluster = parse_cluster({"model": "llama-3-8b", "devices": devices}, "thousand")
    trace = read_trace(traces / "servegen_mlarge_24h.csv.gz").between(0.0, until_s).copied(_COPIES, 5.0, 1)
    return Case(cluster, menu_of(cluster, tables), trace, _LIMITS, look_s=10.0)


def _told(share: float) -> None:
    print(f"{share:.0%} after {time.process_time():.0f} s CPU", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
