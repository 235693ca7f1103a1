"""What people give the simulator: traces, clusters, tables, scenarios; mistakes are named with their place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.simulator.cluster import parse_cluster, read_cluster
from services.simulator.devices.tables import Tables
from services.simulator.scenario import read_scenario
from services.simulator.trace import Trace, read_trace, with_rates
from tests.simulation.house import TABLES, TRACE, menu, trace
from tradewind.cli.main import build, with_latency_options
from tradewind.domain.errors import InvalidField

GOOD = "arrival_s,prompt_tokens,output_tokens\n0.0,10,5\n1.5,20,6\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arrival_s,prompt_tokens\n0,1\n", "line 1 has no column output_tokens"),
        (GOOD + "2.0,x,1\n", "line 4: prompt_tokens is 'x'"),
        (GOOD + "2.0,0,1\n", "line 4: prompt_tokens is 0"),
        (GOOD + "1.0,1,1\n", "line 4: arrival_s 1 is before 1.5"),
        (GOOD + "nan,1,1\n", "line 4: arrival_s is 'nan'"),
        (GOOD + "2.0,1\n", "line 4: output_tokens is None"),
        ("arrival_s,prompt_tokens,output_tokens\n", "has no requests"),
        ("prompt_tokens,output_tokens\n1,1\n", "say how many arrive a second with --rate"),
    ],
)
def test_a_malformed_trace_is_named_by_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InvalidField, match=words):
        read_trace(path)


def test_traces_are_read_scaled_and_copied(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(GOOD.encode()))
    read = read_trace(path)
    assert read == Trace("t", (0.0, 1.5), (10, 20), (5, 6))
    assert read.stretched(2.0).arrival_s == (0.0, 3.0)
    assert len(trace().copied(3, 1.0, 7)) == 900
    assert trace().copied(3, 1.0, 7) == trace().copied(3, 1.0, 7) != trace().copied(3, 1.0, 8)
    with pytest.raises(InvalidField, match="no request between 90 s and 99 s"):
        read.between(90.0, 99.0)
    broken = tmp_path / "b.csv.gz"
    broken.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InvalidField, match=r"b\.csv\.gz cannot be read"):
        read_trace(broken)


def test_arrivals_follow_rates() -> None:
    timed = with_rates(trace(), [(0.0, 1.0), (600.0, 3.0)], 100.0, seed=1)
    early = sum(t < 50.0 for t in timed.arrival_s)
    assert timed.arrival_s == tuple(sorted(timed.arrival_s))
    assert 40 < early < 110  # a quarter of 300, give or take four deviations


def test_unknown_names_get_the_nearest() -> None:
    device = {"type": "h100", "count": 1}
    with pytest.raises(InvalidField, match="did you mean 'h100-sxm'"):
        parse_cluster({"model": "llama-3-8b", "devices": [device]}, "c")
    with pytest.raises(InvalidField, match="did you mean 'llama-3-8b'"):
        parse_cluster({"model": "llama3", "devices": [{"type": "h100-sxm"}]}, "c")
    with pytest.raises(InvalidField, match="did you mean 'count'"):
        parse_cluster({"model": "llama-3-8b", "devices": [{"type": "h100-sxm", "cuont": 1}]}, "c")
    with pytest.raises(InvalidField, match="a whole number from 1"):
        parse_cluster({"model": "llama-3-8b", "devices": [{"type": "h100-sxm", "count": 0}]}, "c")


def test_missing_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidField, match="say where the public tables are with --device-tables"):
        Tables(tmp_path)
    with pytest.raises(InvalidField, match="no file"):
        read_cluster(tmp_path / "none.yaml")
    scenario = tmp_path / "s.yaml"
    scenario.write_text("faults: [{at_s: 1, kind: krash, node: n}]")
    with pytest.raises(InvalidField, match="did you mean 'crash'"):
        read_scenario(scenario)


def test_fits_hold_on_rows_they_did_not_see() -> None:
    _, points = menu()
    errors = {e.what: e for e in points.errors}
    for board in ("h100-sxm", "a100-sxm"):
        assert errors[f"{board} latency of a batch"].worst_share < 0.08
        assert errors[f"{board} power by batch"].worst_share < 0.06


def simulate(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(build(), with_latency_options(["simulate", *arguments]))
    return result.exit_code, result.stdout


@pytest.fixture
def usual(tmp_path: Path) -> list[str]:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("model: llama-3-8b\ndevices:\n  - {type: h100-sxm, count: 2}\n")
    return [
        *("--trace", str(TRACE), "--cluster", str(cluster), "--device-tables", str(TABLES)),
        *("--out", str(tmp_path / "out"), "--end", "20s"),
    ]


def test_the_command_writes_a_report(tmp_path: Path, usual: list[str]) -> None:
    code, text = simulate(*usual, "--policy", "energy", "--ttft-p99", "1s", "--tpot-p99", "50ms", "--json")
    assert code == 0, text
    shown = json.loads(text)
    kept = json.loads((tmp_path / "out" / "report.json").read_text())
    assert shown == kept
    figures = kept["cases"][0]["policies"][0]
    assert figures["energy"]["unit"] == "J"
    assert figures["energy"]["source"] == "simulated"
    assert (figures["lost"], kept["cases"][0]["seed"]) == (0, 1)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" in html
    assert "http" not in html.replace("http-equiv", "")
    first = json.loads((tmp_path / "out" / "journal.jsonl").read_text().splitlines()[0])
    assert first["policy"] == "energy"
    assert first["summary"]
    again = simulate(*usual, "--policy", "energy", "--ttft-p99", "1s", "--tpot-p99", "50ms", "--json")
    assert json.loads(again[1])["cases"] == kept["cases"]


def test_the_command_judges_end_to_end_where_that_is_limited(tmp_path: Path, usual: list[str]) -> None:
    code, text = simulate(*usual, "--policy", "static", "--e2e-p99", "10s", "--json")
    assert code == 0, text
    (case,) = json.loads(text)["cases"]
    (figures,) = case["policies"]
    assert case["slo"]["e2e"]["value"] == 10_000.0
    each = [figures[f"{name}_attainment"]["value"] for name in ("ttft", "tpot", "e2e")]
    assert figures["attainment"]["value"] <= min(each)
    assert figures["e2e"]["p50_s"]["value"] > figures["ttft"]["p50_s"]["value"]
    assert "E2E ≤ 10000 ms" in (tmp_path / "out" / "report.html").read_text()


def test_the_command_names_mistakes(usual: list[str]) -> None:
    code, text = simulate(*usual, "--policy", "enrgy", "--json")
    assert (code, json.loads(text)["error"]["reason"]) == (2, "INVALID_FIELD")
    assert "did you mean 'energy'" in json.loads(text)["error"]["message"]
    code, text = simulate(*usual, "--report-from", "90s", "--json")
    assert (code, "no request between" in text) == (2, True)
