"""The report of live runs as one HTML page: what was measured, what was modelled, and the simulator's error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from services.simulator.live.bystanders import CROWDED_SHARE
from services.simulator.live.study import LiveRun
from services.simulator.report.page import STYLE, slo_words
from services.simulator.report.svg import Series, bars, lines

# Arrivals are counted in bins of this share of the run for the plot of the load.
_BINS: Final = 60


def live_page(document: Mapping[str, Any], runs: Sequence[LiveRun]) -> str:
    """The whole page."""
    title, policies = document["title"], document["policies"]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{_intro(document)}"
        f"{_table(policies)}{_energies(policies)}{_plots(runs)}"
        f"{''.join(_policy(p) for p in policies)}{_sources(document)}</body></html>\n"
    )


def _intro(document: Mapping[str, Any]) -> str:
    trace, slo = document["trace"], document["slo"]
    return (
        f"<p>{trace['requests']:,} requests in {trace['length_s']:,.0f} s ({escape(trace['arrivals'])}), sent open "
        f"loop to {escape(document['agents'])}. SLO of each request: {slo_words(slo)}.</p>"
        f'<p class="note">Latencies are measured by the client. Energy has the label of the devices\' meters: a saving '
        f"of <i>modelled</i> energy is not a measured one. Machine: {escape(str(document['machine']))}, commit "
        f"{escape(str(document['commit']))}. Command: <code>{escape(str(document['command']))}</code>.</p>"
    )


def _table(policies: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "<tr><th>policy</th><th>attainment</th><th>TTFT p50/p95 ms</th><th>TPOT p50/p95 ms</th><th>energy J</th>"
        "<th>label</th><th>against static</th><th>mJ/token</th><th>changes</th><th>lost</th></tr>"
    )
    rows = []
    for p in policies:
        saved = p.get("saved_against_static")
        against = f"{-saved['value']:+.1%}" if saved else ""
        lost = f'<span class="bad">{p["lost"]}</span>' if p["lost"] else "0"
        rows.append(
            f"<tr><td>{escape(p['policy'])}</td><td>{p['attainment']['value']:.2%}</td>"
            f"<td>{p['ttft']['p50']['value']:,.0f} / {p['ttft']['p95']['value']:,.0f}</td>"
            f"<td>{p['tpot']['p50']['value']:,.1f} / {p['tpot']['p95']['value']:,.1f}</td>"
            f"<td>{p['energy']['value']:,.1f}</td><td>{escape(p['energy']['source'])}</td><td>{against}</td>"
            f"<td>{p['energy_per_output_token']['value']:,.1f}</td><td>{p['changes']}</td><td>{lost}</td></tr>"
        )
    return f"<table>{head}{''.join(rows)}</table>"


def _energies(policies: Sequence[Mapping[str, Any]]) -> str:
    head = "<tr><th>energy, J</th><th>idle</th><th>of the work</th><th>of everything else</th><th>whole</th></tr>"
    keys = ("energy_idle", "energy_of_the_work", "energy_of_everything_else", "energy")
    rows = ""
    for p in policies:
        cells = "".join(f"<td>{p[key]['value']:,.1f}</td>" for key in keys)
        rows += f"<tr><td>{escape(p['policy'])}</td>{cells}</tr>"
    return (
        f"<table>{head}{rows}</table>"
        '<p class="note">Of the work: what replicas charged to requests. Of everything else: services, stores and the '
        "load generator, which share the cores here and would not in earnest.</p>"
    )


def _plots(runs: Sequence[LiveRun]) -> str:
    energy = bars("Energy during the trace", [r.policy for r in runs], [r.device_mj / 1e3 for r in runs], "J")
    load = lines("Load", [Series("", *_load(runs[0]))], "requests/s", steps=True) if runs else ""
    power = [_series(r, r.watched.power_w) for r in runs]
    ready = [_series(r, [(t, float(n)) for t, n in r.watched.ready]) for r in runs]
    first = []
    for run in runs:
        done = sorted((a for a in run.answers if not a.error), key=lambda a: a.sent_s)
        first.append(Series(run.policy, [a.sent_s for a in done], [a.ttft_s * 1e3 for a in done]))
    watts, replicas = lines("Power of the devices", power, "W"), lines("Replicas ready", ready, "replicas", steps=True)
    return energy + load + watts + replicas + lines("TTFT of each request", first, "ms")


def _load(run: LiveRun) -> tuple[list[float], list[float]]:
    width = max(run.length_s / _BINS, 1.0)
    counts = [0.0] * (int(run.length_s / width) + 1)
    for answer in run.answers:
        counts[min(int((answer.sent_s - answer.late_s) / width), len(counts) - 1)] += 1.0 / width
    return [i * width for i in range(len(counts))], counts


def _series(run: LiveRun, points: Sequence[tuple[float, float]]) -> Series:
    kept = [(t - run.began_s, value) for t, value in points if 0.0 <= t - run.began_s <= run.length_s]
    return Series(run.policy, [t for t, _ in kept], [value for _, value in kept])


def _policy(policy: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(r['what'])}, {escape(r['unit'])}</td><td>{r['live']:.4g}</td><td>{r['simulated']:.4g}</td>"
        f"<td>{r['error']:+.1%}</td></tr>"
        for r in policy["calibration"]
    )
    head = "<tr><th>metric</th><th>live</th><th>simulated</th><th>error</th></tr>"
    decisions = "".join(
        f"<li>{d['at_s']:g} s: {escape(d['trigger'])}. {escape(d['summary'])}</li>" for d in policy["decisions"]
    )
    errors = "".join(f'<li class="bad">{escape(e)}</li>' for e in policy["errors"])
    return (
        f"<h2>{escape(policy['policy'])}</h2><p>Placed at the start: {escape('; '.join(policy['placed']))}. "
        f"Provisioned for {policy['provisioned_for']['requests_per_s']:g} requests/s.</p>"
        f"{_crowd(policy)}<ul>{decisions or '<li>No change during the run.</li>'}{errors}</ul>"
        f"<table>{head}{rows}</table>"
    )


def _crowd(policy: Mapping[str, Any]) -> str:
    share = policy["others_on_the_machine"]["value"]
    kind = ' class="bad"' if share > CROWDED_SHARE else ""
    return f"<p{kind}>Processes with no part in the run took {share:.1%} of all cores' time meanwhile.</p>"


def _sources(document: Mapping[str, Any]) -> str:
    fits = "".join(
        f"<tr><td>{escape(f['what'])}</td><td>{f['held_out_rows']}</td><td>{f['mean_error']['value']:.1%}</td>"
        f"<td>{f['worst_error']['value']:.1%}</td></tr>"
        for f in document["fits"]
    )
    assumed = "".join(f"<li>{escape(words)}</li>" for words in document["assumptions"])
    head = "<tr><th>simulated engine</th><th>loads</th><th>mean error</th><th>worst</th></tr>"
    return f"<h2>Where the simulated figures come from</h2><table>{head}{fits}</table><ul>{assumed}</ul>"
