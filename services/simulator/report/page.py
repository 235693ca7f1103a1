"""The report as one HTML page that needs nothing else: tables, plots, assumptions, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from services.simulator.engine.meter import Sample
from services.simulator.engine.spent import Part
from services.simulator.outcome import Outcome
from services.simulator.report.svg import Series, bars, lines, scatter

STYLE: Final = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}"
    "h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-top:1px solid #ddd;padding-top:1em}"
    "table{border-collapse:collapse;width:100%;font-size:13px}th,td{padding:3px 8px;text-align:right;"
    "border-bottom:1px solid #eee}th:first-child,td:first-child{text-align:left}"
    "svg{font:11px system-ui,sans-serif;margin:.6em 0}svg .t{font-weight:600;font-size:12px}svg .g{stroke:#eee}"
    ".note{color:#555;font-size:13px}.bad{color:#b00;font-weight:600}"
)
# A timeline of more points than pixels shows nothing more.
MOST_POINTS: Final = 400
# Policies drawn in the timeline; more lines cannot be told apart.
MOST_LINES: Final = 4


def page(title: str, cases: Sequence[tuple[Mapping[str, Any], Sequence[Outcome]]], origin: Mapping[str, Any]) -> str:
    """The whole page."""
    body = "".join(_case(document, outcomes) for document, outcomes in cases)
    summary = _summary(cases) if len(cases) > 1 else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<p class="note">All figures are <b>simulated</b>: {escape(str(origin["source"]))}. '
        f"Command: <code>{escape(str(origin['command']))}</code>. Commit {escape(str(origin['commit']))}.</p>"
        f"{summary}{body}{_origin(origin)}</body></html>\n"
    )


def _summary(cases: Sequence[tuple[Mapping[str, Any], Sequence[Outcome]]]) -> str:
    names = list(dict.fromkeys(o.policy for _, outcomes in cases for o in outcomes))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for document, outcomes in cases:
        static = next((o.energy.total_j for o in outcomes if o.policy == "static"), 0.0)
        cells = []
        for name in names:
            found = next((o for o in outcomes if o.policy == name), None)
            cells.append(f"<td>{_against(found, static)}</td>" if found else "<td></td>")
        rows.append(f"<tr><td>{escape(str(document['trace']['name']))}</td>{''.join(cells)}</tr>")
    return (
        "<h2>Energy against the best fixed placement</h2>"
        f"<table><tr><th>trace</th>{head}</tr>{''.join(rows)}</table>"
        '<p class="note">Difference to <i>static</i>, found with hindsight for each trace; below it the share of '
        "requests within the SLO.</p>"
    )


def _against(outcome: Outcome, static_j: float) -> str:
    share = f"{(outcome.energy.total_j / static_j - 1.0) * 100.0:+.1f} %" if static_j else "–"
    return f"{share}<br>{outcome.attainment:.2%}"


def _case(document: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    trace, cluster, slo = document["trace"], document["cluster"], document["slo"]
    devices = ", ".join(f"{d['count']} × {d['type']}" for d in cluster["devices"])
    intro = (
        f"<h2>{escape(trace['name'])}</h2><p>{cluster['model']} on {escape(devices)}; {trace['requests']:,} "
        f"requests in {trace['length_s']:,.0f} s ({escape(trace['arrivals'])}); figures from "
        f"{document['reported_from_s']:,.0f} s on. "
        f"SLO of each request: {slo_words(slo)}.</p>"
    )
    return intro + _table(outcomes) + _least(document, outcomes) + _parts(outcomes) + _plots(outcomes)


def slo_words(slo: Mapping[str, Any]) -> str:
    """For instance "TTFT ≤ 1000 ms and TPOT ≤ 50 ms"."""
    return " and ".join(f"{key.upper()} ≤ {slo[key]['value']:g} ms" for key in ("ttft", "tpot", "e2e") if key in slo)


def _least(document: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """What no policy can go below, and how far there the static placement has to go."""
    if "least_possible" not in document:
        return ""
    joules = document["least_possible"]["value"]
    static = next((o.energy.total_j for o in outcomes if o.policy == "static"), 0.0)
    against = f" ({(joules / static - 1.0) * 100.0:+.1f} % against <i>static</i>)" if static else ""
    return (
        f'<p class="note">No policy can take less than {joules / 1e6:.3f} MJ{against}: every request on the '
        "board and in the batch that is best for it, always full, boards on only while they work.</p>"
    )


def _table(outcomes: Sequence[Outcome]) -> str:
    static = next((o.energy.total_j for o in outcomes if o.policy == "static"), 0.0)
    rows = []
    for o in outcomes:
        saved = f"{(o.energy.total_j / static - 1.0) * 100.0:+.1f} %" if static else ""
        lost = f'<span class="bad">{o.lost}</span>' if o.lost else "0"
        rows.append(
            f"<tr><td>{escape(o.policy)}</td><td>{o.energy.total_j / 1e6:.3f}</td><td>{saved}</td>"
            f"<td>{o.energy.base_j / max(o.energy.total_j, 1e-9):.0%}</td><td>{o.energy_per_token_mj:,.0f}</td>"
            f"<td>{o.attainment:.2%}</td><td>{o.ttft.p50_s * 1e3:,.0f} / {o.ttft.p99_s * 1e3:,.0f}</td>"
            f"<td>{o.tpot.p50_s * 1e3:.1f} / {o.tpot.p99_s * 1e3:.1f}</td><td>{o.changes}</td><td>{o.refused}</td>"
            f"<td>{lost}</td></tr>"
        )
        rows += [f'<tr><td colspan="11" class="bad">{escape(f)}</td></tr>' for f in o.findings[:5]]
    head = (
        "<tr><th>policy</th><th>energy MJ</th><th>vs static</th><th>idle</th><th>mJ/token</th><th>attainment</th>"
        "<th>TTFT p50/p99 ms</th><th>TPOT p50/p99 ms</th><th>changes</th><th>refused</th><th>lost</th></tr>"
    )
    return f"<table>{head}{''.join(rows)}</table>"


def _parts(outcomes: Sequence[Outcome]) -> str:
    """What the energy was spent on: a row for each policy and device type."""
    rows = []
    for o in outcomes:
        for board in o.energy.boards:
            cells = "".join(f"<td>{o.energy.of(part, board=board) / 1e6:.3f}</td>" for part in Part)
            rows.append(f"<tr><td>{escape(o.policy)}, {escape(board)}</td>{cells}</tr>")
    head = "".join(f"<th>{escape(part)}</th>" for part in Part)
    return (
        f"<table><tr><th>MJ spent on boards that are</th>{head}</tr>{''.join(rows)}</table>"
        '<p class="note">The first five are boards by themselves; prefill and decode of their replicas come above.</p>'
    )


def _plots(outcomes: Sequence[Outcome]) -> str:
    names = [o.policy for o in outcomes]
    marks = [f"· {o.attainment:.2%} within SLO" for o in outcomes]
    shown = _drawn(outcomes)
    energy = bars("Energy of the reported part", names, [o.energy.total_j / 1e6 for o in outcomes], "MJ", marks)
    front = scatter(
        "Energy against attainment",
        [Series(o.policy, [o.attainment * 100.0], [o.energy.total_j / 1e6]) for o in outcomes],
        "% of requests within the SLO",
        "MJ",
    )
    power = lines("Power", [_series(o, lambda s: s.power_w) for o in shown], "W")
    load = lines("Load", [Series("", *_load(shown[0]))], "requests/s") if shown else ""
    within = lines("Within the SLO", [_series(o, _within) for o in shown], "%")
    ready = lines("Replicas ready", [_series(o, lambda s: float(s.ready)) for o in shown], "replicas", steps=True)
    changes = lines("Changes so far", [_series(o, lambda s: float(s.commits)) for o in shown], "blueprints", steps=True)
    return energy + front + load + power + within + ready + changes


def _within(sample: Sample) -> float:
    return 100.0 * sample.within / sample.done if sample.done else 100.0


def _drawn(outcomes: Sequence[Outcome]) -> list[Outcome]:
    wanted = ("static-peak", "static", "energy", "oracle")
    chosen = [o for o in outcomes if o.policy in wanted]
    return (chosen or list(outcomes))[:MOST_LINES]


def _series(outcome: Outcome, read: Any) -> Series:
    samples = [s for s in outcome.samples if s.at_s >= 0.0][1:]
    every = max(len(samples) // MOST_POINTS, 1)
    chosen = samples[::every]
    return Series(outcome.policy, [s.at_s for s in chosen], [read(s) for s in chosen])


def _load(outcome: Outcome) -> tuple[list[float], list[float]]:
    samples = [s for s in outcome.samples if s.at_s >= 0.0]
    period = samples[1].at_s - samples[0].at_s if len(samples) > 1 else 1.0
    every = max(len(samples) // MOST_POINTS, 1)
    xs = [s.at_s for s in samples[1::every]]
    return xs, [s.arrivals / period for s in samples[1::every]]


def _origin(origin: Mapping[str, Any]) -> str:
    fits = "".join(
        f"<tr><td>{escape(f['what'])}</td><td>{f['held_out_rows']}</td><td>{f['mean_error']['value']:.1%}</td>"
        f"<td>{f['worst_error']['value']:.1%}</td></tr>"
        for f in origin["fits"]
    )
    assumed = "".join(f"<li>{escape(words)}</li>" for words in origin["assumptions"])
    table = f"<table><tr><th>fit</th><th>held-out rows</th><th>mean error</th><th>worst</th></tr>{fits}</table>"
    return f"<h2>Where the figures come from</h2>{table if fits else ''}<ul>{assumed}</ul>{_calibration(origin)}"


def _calibration(origin: Mapping[str, Any]) -> str:
    rows = origin.get("calibration", [])
    if not rows:
        return '<p class="note">Calibration against a live run: not part of this report.</p>'
    cells = "".join(
        f"<tr><td>{escape(r['what'])}</td><td>{r['live']:.4g}</td><td>{r['simulated']:.4g}</td>"
        f"<td>{r['error']:+.1%}</td></tr>"
        for r in rows
    )
    head = "<tr><th>metric</th><th>live</th><th>simulated</th><th>error</th></tr>"
    return f"<h2>Calibration</h2><table>{head}{cells}</table>"
