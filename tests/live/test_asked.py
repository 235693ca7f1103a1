"""What is asked of `evaluate live` that cannot be: said before anything starts, with what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.simulator.live.cores import rest_for_own
from services.simulator.live.study import stated
from services.simulator.trace import Trace
from tradewind.cli.main import build, with_latency_options
from tradewind.domain.errors import InvalidField

TRACE = "arrival_s,prompt_tokens,output_tokens\n0.0,10,5\n60.0,20,6\n"


def test_an_operator_may_state_another_rate_than_the_busiest() -> None:
    trace = Trace("t", (0.0, *(1.0 + 0.1 * i for i in range(40)), 100.0), (10,) * 42, (5,) * 42)
    busiest, little = stated(trace), stated(trace, 0.5)
    assert busiest.requests_per_s == pytest.approx(41 / 20.0)
    assert (little.requests_per_s, little.prompt_tokens) == (0.5, 10)
    assert stated(trace, 0.1).mean_requests_per_s == pytest.approx(0.1), "no mean above what is provisioned for"


def test_the_instance_keeps_the_cores_that_no_further_agent_takes() -> None:
    assert rest_for_own([], {0, 1}) == "0,1"
    assert rest_for_own(["1", "2-3"], range(5)) == "0,4"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["7"], "no core 7 here; there are 0,1"),
        (["0", "0-1"], "core 0 is another agent's already"),
        (["0-1"], "leave no core for the instance's own agent"),
        (["one"], "no list of cores"),
        (["1-0"], "write the lower one first"),
    ],
)
def test_cores_that_cannot_be_had_are_named(asked: list[str], words: str) -> None:
    with pytest.raises(InvalidField, match=words):
        rest_for_own(asked, {0, 1})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--time-scale", "1e6"], "would be played for 60,000,000 s a policy"),
        (["--time-scale", "0"], "a factor above 0 is needed"),
        (["--token-scale", "-1"], "a factor above 0 is needed"),
        (["--stated", "-1"], "Invalid value for '--stated'"),
        (["--policy", "oracle"], "knows the future"),
        (["--policy", "statik"], "did you mean 'static'"),
        (["--agent-cores", "4000"], "no core 4000 here"),
        (["--source", "/nowhere/model.gguf"], "no such file or folder"),
    ],
)
def test_mistakes_are_said_before_anything_starts(tmp_path: Path, options: list[str], words: str) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text(TRACE)
    arguments = ["evaluate", "live", "m", "--trace", str(trace), "--out", str(tmp_path / "out")]
    state = ["--state-dir", str(tmp_path / "state")]
    result = CliRunner().invoke(build(), with_latency_options([*arguments, *state, *options]))
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "state").exists()
