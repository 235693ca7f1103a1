"""Backtest of forecast and provision on traces: how much is provisioned, and what would have waited.

    python bench/orchestrator/forecast.py TRACE.csv.gz … [--from 1800] [--scale 1.0]

A fluid queue takes the place of replicas: it serves what was provisioned `DELAY_S` ago, and a request is late when it
would wait longer than `LATE_S`. `static` is the least constant provision with at most 1 % late, found with hindsight.
Only the arrivals are real; this says nothing of energy. Traces are CSVs of `arrival_s,prompt_tokens,output_tokens`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

from services.orchestrator.core.adaptation.alarm import alarms
from services.orchestrator.core.adaptation.history import History, absorb
from services.orchestrator.core.adaptation.provision import Provision, provide
from services.orchestrator.core.facts.traffic import WINDOW_S, DeploymentTraffic, Window
from services.orchestrator.core.facts.wish import Demand, Deployment, LatencyLimit, Metric, Slo

# From a decision to a replica that serves.
DELAY_S = 30.0
LATE_S = 1.0
MOST_LATE = 0.01
WISH = Deployment("d", "d", "m", slo=Slo((LatencyLimit(Metric.TTFT, 99.0, 2000.0),)))


def main() -> None:
    """Prints a line for each trace."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--from", dest="begin_s", type=float, default=0.0, help="count only requests after this time")
    parser.add_argument("--until", dest="end_s", type=float, default=float("inf"))
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies arrival times")
    options = parser.parse_args()
    print(f"{'trace':24} {'mean/s':>7} {'static':>7} {'adaptive':>8} {'of static':>9} {'late':>6} {'changes':>7}")
    for path in options.traces:
        windows = list(windows_of(path, options.scale))
        report(path.name.split(".")[0], windows, options.begin_s, options.end_s)


def report(name: str, windows: list[Window], begin_s: float, end_s: float) -> None:
    """One line."""
    provided, changes = adaptive(windows)
    judged = [w for w in windows if begin_s <= w.start_s < end_s]
    first = int(begin_s / WINDOW_S)
    mine = provided[first : first + len(judged)]
    total = sum(w.arrivals for w in judged)
    mean = total / (len(judged) * WINDOW_S)
    low, high = mean, max(w.arrivals for w in judged) / WINDOW_S
    for _ in range(20):
        middle = (low + high) / 2.0
        if late(judged, [middle] * len(judged)) > MOST_LATE * total:
            low = middle
        else:
            high = middle
    held = sum(mine) / len(mine)
    share = late(judged, mine) / total
    print(f"{name:24} {mean:7.3f} {high:7.2f} {held:8.2f} {held / high:9.2f} {share:6.2%} {changes:7}")


def adaptive(windows: list[Window]) -> tuple[list[float], int]:
    """Requests a second provisioned in each window, and how often that changed."""
    # A user states the mean that he expects, and is right.
    mean = sum(w.arrivals for w in windows) / (len(windows) * WINDOW_S)
    history, provision = History(), Provision("d", 1, Demand(mean), 0.0)
    decided: list[float] = []
    seen, found, queue, changes = [], (), 0.0, 0
    for window in windows:
        served = decided[max(len(decided) - int(DELAY_S / WINDOW_S), 0)] if decided else mean
        queue = max(queue + window.arrivals - served * WINDOW_S, 0.0)
        history = absorb(history, [window])
        seen = [*seen[-11:], window]
        traffic = DeploymentTraffic("d", tuple(seen), int(queue))
        found = alarms(found, [WISH], [traffic], window.end_s)
        after = provide(provision, WISH, history, traffic, found, window.end_s)
        changes += after.demand.requests_per_s != provision.demand.requests_per_s
        provision = after
        decided.append(provision.demand.requests_per_s)
    lag = int(DELAY_S / WINDOW_S)
    # What was decided serves after the delay; a fall takes effect at once.
    return [min(max(decided[max(i - lag, 0) : i + 1][0], 0.0), 1e9) for i in range(len(decided))], changes


def late(windows: list[Window], provided: list[float]) -> float:
    """Requests that would wait longer than `LATE_S` in a fluid queue."""
    queue = missed = 0.0
    for window, rate in zip(windows, provided, strict=True):
        room = rate * WINDOW_S
        # Arrivals are spread evenly over a window; those beyond the room and the patience are late.
        over = max(queue + window.arrivals - room, 0.0)
        missed += min(max(over - rate * LATE_S, 0.0), window.arrivals)
        queue = over
    return missed


def windows_of(path: Path, scale: float) -> Iterator[Window]:
    """The trace in windows, those without requests included."""
    sums: dict[int, list[float]] = {}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for row in csv.DictReader(file):
            prompt, output = float(row["prompt_tokens"]), float(row["output_tokens"])
            found = sums.setdefault(int(float(row["arrival_s"]) * scale / WINDOW_S), [0.0] * 5)
            for index, value in enumerate((1.0, prompt, prompt**2, output, output**2)):
                found[index] += value
    for number in range(max(sums) + 1):
        count, prompts, prompt_squares, outputs, output_squares = sums.get(number, [0.0] * 5)
        done = int(count)
        yield Window(
            number * WINDOW_S,
            arrivals=done,
            finished=done,
            prompt_tokens=prompts,
            prompt_squares=prompt_squares,
            output_tokens=outputs,
            output_squares=output_squares,
        )


if __name__ == "__main__":
    main()
