"""Live runs as JSON: every figure with unit and label, what it was run on, and the simulator's error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from services.simulator.live.compare import compare
from services.simulator.live.study import LiveRun
from services.simulator.outcome import Percentiles, percentiles
from services.simulator.report.document import figure, slo_document
from services.simulator.run import Case, Limits
from tradewind.domain.figures import FigureSource

CLIENT: Final = "measured by the client"
SIMULATED: Final = FigureSource.SIMULATED.label
# Errors shown; a hundred equal ones say no more.
_MOST_ERRORS: Final = 5


def live_document(case: Case, runs: Sequence[LiveRun], origin: Mapping[str, Any], cpus: str) -> dict[str, Any]:
    """The whole report.

    Args:
        cpus: which node agent had which cores, in words.
    """
    trace, limits = case.trace, case.limits
    static = next((r.device_mj for r in runs if r.policy == "static"), 0.0)
    return {
        "title": f"{trace.name}, live",
        "trace": {
            "name": trace.name,
            "requests": len(trace),
            "length_s": round(trace.length_s, 3),
            "arrivals": trace.arrivals_from,
            "sha256": trace.digest,
        },
        "slo": slo_document(limits),
        "cluster": case.cluster.to_json(),
        "agents": cpus,
        **{key: origin[key] for key in ("command", "commit", "machine", "fits", "assumptions")},
        "policies": [run_document(run, limits, static) for run in runs],
    }


def run_document(run: LiveRun, limits: Limits, static_mj: float) -> dict[str, Any]:
    """One policy: live, and in the simulator."""
    done = [a for a in run.answers if not a.error]
    count = max(len(run.answers), 1)
    tokens = max(sum(a.output_tokens for a in done), 1)
    source, method = run.watched.label
    charged = sorted({a.energy_source for a in done})

    def share(within: int) -> dict[str, Any]:
        return figure(round(within / count, 5), "share", CLIENT)

    saved = {}
    if run.policy != "static" and static_mj > 0:
        saved = {"saved_against_static": figure(round(1.0 - run.device_mj / static_mj, 4), "share", source.label)}
    return {
        "policy": run.policy,
        "provisioned_for": {k: round(v, 4) for k, v in asdict(run.demand).items()},
        "placed": list(run.placed),
        "requests": len(run.answers),
        "lost": len(run.answers) - len(done),
        "errors": sorted({a.error for a in run.answers if a.error})[:_MOST_ERRORS],
        "attainment": share(sum(a.within(limits.ttft_s, limits.tpot_s, limits.e2e_s) for a in run.answers)),
        "ttft_attainment": share(sum(a.ttft_s <= limits.ttft_s for a in done)),
        "tpot_attainment": share(sum(a.tpot_s <= limits.tpot_s for a in done)),
        "e2e_attainment": share(sum(a.e2e_s <= limits.e2e_s for a in done)),
        "ttft": _latency(percentiles([a.ttft_s for a in done])),
        "tpot": _latency(percentiles([a.tpot_s for a in done if a.output_tokens > 1])),
        "e2e": _latency(percentiles([a.e2e_s for a in done])),
        "latest_send": figure(round(max((a.late_s for a in run.answers), default=0.0) * 1e3, 2), "ms", CLIENT),
        "others_on_the_machine": figure(round(run.others_share, 4), "share", "measured by the operating system"),
        "energy": figure(round(run.device_mj / 1e3, 2), "J", source.label) | {"method": method},
        "energy_idle": figure(round(run.idle_mj / 1e3, 2), "J", FigureSource.MODELLED.label),
        "energy_of_the_work": figure(round(run.charged_mj / 1e3, 2), "J", ", ".join(charged)),
        "energy_of_everything_else": figure(
            round((run.device_mj - run.idle_mj - run.charged_mj) / 1e3, 2), "J", source.label
        ),
        "energy_per_request": figure(round(run.device_mj / count, 2), "mJ", source.label),
        "energy_per_output_token": figure(round(run.device_mj / tokens, 2), "mJ", source.label),
        **saved,
        "changes": len(run.decisions),
        "decisions": [
            {
                "at_s": round(d.create_time.seconds + d.create_time.nanos / 1e9 - run.began_s, 1),
                "trigger": d.trigger,
                "summary": d.summary,
            }
            for d in run.decisions
        ],
        "simulated": {
            "attainment": figure(round(run.simulated.attainment, 5), "share"),
            "energy": figure(round(run.simulated.energy.total_j, 2), "J"),
            "changes": run.simulated.changes,
            "lost": run.simulated.lost,
            "placed": next((line["changes"] for line in run.simulated.journal if line["changes"]), []),
        },
        "calibration": [
            row.to_json() for row in compare(run.answers, limits, run.device_mj, run.charged_mj, run.simulated)
        ],
    }


def _latency(found: Percentiles) -> dict[str, Any]:
    return {key.removesuffix("_s"): figure(round(v * 1e3, 2), "ms", CLIENT) for key, v in asdict(found).items()}
