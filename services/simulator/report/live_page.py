"""The report of live runs as one HTML page: what was measured, what was modelled, and the simulator's error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from services.simulator.live.study import LiveRun
from services.simulator.report.page import STYLE
from services.simulator.report.svg import Series, bars, lines


def live_page(title: str, document: Mapping[str, Any], runs: Sequence[LiveRun]) -> str:
    """The whole page."""
    rows = "".join(_row(policy) for policy in document["policies"])
    head = (
        "<tr><th>policy</th><th>energy J</th><th>label</th><th>attainment</th><th>TTFT p50/p95 ms</th>"
        "<th>TPOT p50/p95 ms</th><th>requests</th><th>failed</th></tr>"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<p class="note">Latencies are measured by the client. Energy has the label of the devices\' meters: a saving '
        f"of <i>modelled</i> energy is not a measured one. Machine: {escape(str(document['machine']))}. "
        f"Command: <code>{escape(str(document['command']))}</code>.</p>"
        f"<table>{head}{rows}</table>{_plots(runs)}{''.join(_calibration(p) for p in document['policies'])}"
        "</body></html>\n"
    )


def _row(policy: Mapping[str, Any]) -> str:
    return (
        f"<tr><td>{escape(policy['policy'])}</td><td>{policy['energy']['value']:,.1f}</td>"
        f"<td>{escape(policy['energy']['source'])}</td><td>{policy['attainment']['value']:.2%}</td>"
        f"<td>{policy['ttft']['p50']['value']:,.0f} / {policy['ttft']['p95']['value']:,.0f}</td>"
        f"<td>{policy['tpot']['p50']['value']:,.1f} / {policy['tpot']['p95']['value']:,.1f}</td>"
        f"<td>{policy['requests']}</td><td>{policy['failed']}</td></tr>"
    )


def _plots(runs: Sequence[LiveRun]) -> str:
    energy = bars("Energy of the run, idle included", [r.policy for r in runs], [r.energy_mj / 1e3 for r in runs], "J")
    series = []
    for run in runs:
        done = sorted((a for a in run.answers if not a.error), key=lambda a: a.sent_s)
        series.append(Series(run.policy, [a.sent_s for a in done], [a.ttft_s * 1e3 for a in done]))
    return energy + lines("TTFT of each request", series, "ms")


def _calibration(policy: Mapping[str, Any]) -> str:
    if not policy["calibration"]:
        return f'<p class="note">{escape(policy["policy"])}: not replayed; its variants were mixed or not profiled.</p>'
    rows = "".join(
        f"<tr><td>{escape(r['what'])}</td><td>{r['live']:.4g}</td><td>{r['simulated']:.4g}</td>"
        f"<td>{r['error']:+.1%}</td></tr>"
        for r in policy["calibration"]
    )
    head = "<tr><th>metric</th><th>live</th><th>simulated</th><th>error</th></tr>"
    return f"<h2>{escape(policy['policy'])} replayed in the simulator</h2><table>{head}{rows}</table>"
