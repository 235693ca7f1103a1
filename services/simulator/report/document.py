"""Results as JSON: every figure with its unit and where it comes from, and what is needed to repeat them."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from services.simulator.bound import least_j
from services.simulator.devices.boards import ASSUMPTIONS
from services.simulator.devices.fits import Error
from services.simulator.engine.spent import Part
from services.simulator.outcome import Outcome
from services.simulator.run import Case, Limits
from tradewind.domain.figures import FigureSource

SIMULATED: Final = FigureSource.SIMULATED.label
# Seconds for git to say which commit this is; without an answer the report says so.
_GIT_LIMIT_S: Final = 5.0


def figure(value: float, unit: str, source: str = SIMULATED) -> dict[str, Any]:
    """One figure."""
    return {"value": value, "unit": unit, "source": source}


def case_document(case: Case, outcomes: Sequence[Outcome], base: str = "static") -> dict[str, Any]:
    """One trace on one cluster under several policies; savings are against `base` where it is among them."""
    against = {o.policy: o.energy.total_j for o in outcomes}
    least = least_j(case)
    return {
        "trace": {
            "name": case.trace.name,
            "requests": len(case.trace),
            "length_s": round(case.trace.length_s, 3),
            "arrivals": case.trace.arrivals_from,
            "sha256": case.trace.digest,
        },
        "cluster": case.cluster.to_json(),
        "slo": slo_document(case.limits),
        "reported_from_s": case.from_s,
        "seed": case.seed,
        **({"least_possible": figure(round(least, 1), "J", "modelled")} if least is not None else {}),
        "policies": [outcome_document(o, against, base) for o in outcomes],
    }


def slo_document(limits: Limits) -> dict[str, Any]:
    """The limits of each request."""
    stated = {m.lower(): figure(seconds * 1000.0, "ms", "stated") for m, seconds in limits.by_metric()}
    return {**stated, "percentile": limits.percentile}


def outcome_document(outcome: Outcome, energy_j: Mapping[str, float], base: str) -> dict[str, Any]:
    """One policy's figures."""
    total = outcome.energy.total_j
    saved = {
        f"saved_against_{name.replace('-', '_')}": figure(round(1.0 - total / energy_j[name], 4), "share")
        for name in dict.fromkeys((base, "static-peak", "oracle"))
        if name in energy_j and name != outcome.policy and energy_j[name] > 0
    }
    return {
        "policy": outcome.policy,
        "energy": figure(round(total, 1), "J"),
        "energy_idle": figure(round(outcome.energy.base_j, 1), "J"),
        "energy_active": figure(round(outcome.energy.active_j, 1), "J"),
        "energy_by_device": {
            board: {
                str(part): figure(round(outcome.energy.of(part, board=board), 1), "J")
                for part in Part
                if outcome.energy.of(part, board=board)
            }
            for board in outcome.energy.boards
        },
        "energy_per_output_token": figure(round(outcome.energy_per_token_mj, 2), "mJ"),
        "mean_power": figure(round(outcome.mean_power_w, 1), "W"),
        "requests": outcome.requests,
        "attainment": figure(round(outcome.attainment, 5), "share"),
        "ttft_attainment": figure(round(outcome.ttft_attainment, 5), "share"),
        "tpot_attainment": figure(round(outcome.tpot_attainment, 5), "share"),
        "e2e_attainment": figure(round(outcome.e2e_attainment, 5), "share"),
        "ttft": {k: figure(round(v * 1000.0, 2), "ms") for k, v in asdict(outcome.ttft).items()},
        "tpot": {k: figure(round(v * 1000.0, 2), "ms") for k, v in asdict(outcome.tpot).items()},
        "e2e": {k: figure(round(v * 1000.0, 2), "ms") for k, v in asdict(outcome.e2e).items()},
        "lost": outcome.lost,
        "cut": outcome.cut,
        "refused": outcome.refused,
        "changes": outcome.changes,
        "findings": list(outcome.findings),
        "trace_hash": outcome.digest,
        **saved,
    }


def origin(errors: Sequence[Error], command: str, assumptions: Sequence[str] = ASSUMPTIONS) -> dict[str, Any]:
    """Where figures come from: commit, machine, errors of the fits, assumptions."""
    return {
        "command": command,
        "commit": _commit(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "source": "simulated: modelled replicas under the live decision code; no device was measured for it",
        "fits": [
            {
                "what": e.what,
                "held_out_rows": e.rows,
                "mean_error": figure(round(e.mean_share, 4), "share", "modelled"),
                "worst_error": figure(round(e.worst_share, 4), "share", "modelled"),
            }
            for e in errors
        ],
        "assumptions": list(assumptions),
    }


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown: no git here"
    here = Path(__file__).parent
    try:
        words = subprocess.run(
            [git, "describe", "--always", "--dirty"], cwd=here, capture_output=True, timeout=_GIT_LIMIT_S, text=True,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown: not in a git work tree"
    return words.stdout.strip()
