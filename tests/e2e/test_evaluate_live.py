"""`tradewind evaluate live` on a fresh machine: from nothing but a model's files and a trace to a report, and gone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.stack import TRADEWIND, WORK_S, processes_of
from tests.tiny_model import write_tiny_model

TRACE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.15:.2f},{10 + i % 7},8\n" for i in range(30))


def evaluate(folder: Path, model: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The command on a state folder of its own; nothing of it is left afterwards."""
    trace = folder / "trace.csv"
    trace.write_text(TRACE)
    common = ["--trace", str(trace), "--out", str(folder / "out"), "--state-dir", str(folder / "state")]
    done = subprocess.run(
        [TRADEWIND, "evaluate", "live", model, *common, *options], capture_output=True, text=True, timeout=WORK_S
    )
    assert processes_of(folder / "state") == []
    return done


@pytest.mark.timeout(300)
def test_from_files_and_a_trace_to_a_report(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "tiny", num_hidden_layers=1)
    further = ["--agent-cores", str(max(os.sched_getaffinity(0)))] if len(os.sched_getaffinity(0)) > 1 else []
    slo, policies = ["--ttft-p95", "5s", "--tpot-p95", "1s"], ["--policy", "static", "--policy", "energy"]
    done = evaluate(
        tmp_path,
        "tiny",
        *("--source", str(source), "--recipe", "f32-grouped", "--context", "64"),
        *(*further, *slo, *policies, "--json"),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == json.loads((tmp_path / "out" / "report.json").read_text())
    assert [p["policy"] for p in told["policies"]] == ["static", "energy"]
    for policy in told["policies"]:
        assert (policy["requests"], policy["lost"]) == (30, 0), policy["errors"]
        assert policy["attainment"]["value"] >= 0.9
        assert policy["placed"]
        assert policy["energy"]["source"] in ("modelled", "attributed", "measured_counter")
        assert policy["energy"]["value"] > policy["energy_of_the_work"]["value"] > 0
        assert {r["what"] for r in policy["calibration"]} >= {
            "TTFT p50",
            "TPOT p95",
            "attainment",
            "energy of the work",
        }
    page = (tmp_path / "out" / "report.html").read_text()
    assert "src=" not in page
    assert "href=" not in page
    assert "modelled" in page
    assert len((tmp_path / "out" / "requests.jsonl").read_text().splitlines()) == 60
