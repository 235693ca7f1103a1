"""The simulator over profiles of our own store: costs, cluster files, and a run that needs no public table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.simulator.cluster import read_cluster
from services.simulator.engine.replica import Replica
from services.simulator.engine.request import Request
from services.simulator.stored.cost import cost_of_profile
from services.simulator.stored.menu import stored_menu
from tests.live.store import CHUNK_S, CLASS, CORE_W, IDLE_W, STEP_S, stored
from tradewind.cli.main import build, with_latency_options
from tradewind.client.profile_file import gathered, read_profiles
from tradewind.domain.errors import InvalidField, ProfileMissing

TRACE = "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i * 0.4:.1f},40,12\n" for i in range(50))


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A cluster file of two agents with a core each, beside the export it names."""
    (tmp_path / "profiles.json").write_text(json.dumps(stored().to_json()))
    path = tmp_path / "cluster.yaml"
    path.write_text(f"profiles: profiles.json\ndevices: [{{type: {CLASS}, count: 2, cores: 1}}]\n")
    return path


def test_costs_are_those_of_the_engine_that_was_measured() -> None:
    known = stored()
    cost = cost_of_profile(known.profiles[0], known.variants[0].recipe)
    # Two and three sequences run the function of four.
    assert cost.decode_s[1:] == pytest.approx((STEP_S[1], *(STEP_S[4],) * 3), rel=0.01)
    # A prompt of 33 tokens is padded as one of 64 is.
    assert cost.prefill_s(33) == cost.prefill_s(64) == pytest.approx(CHUNK_S, rel=0.01)
    assert cost.prefill_s(65) == pytest.approx(2 * CHUNK_S, rel=0.02)
    assert cost.decode_power_w[4] == pytest.approx(IDLE_W + CORE_W, rel=0.02)
    assert cost.prefill_power_w == pytest.approx(IDLE_W + CORE_W)
    assert {e.what.partition(" ")[0]: e.worst_share < 0.1 for e in stored_menu(known).errors}["TPOT"]


def test_a_cluster_file_names_profiles_of_the_store(cluster: Path) -> None:
    read = read_cluster(cluster)
    (first, boards), second = read.placed()
    assert [len(node.devices[0].cpu_ids) for node, _ in read.placed()] == [1, 1]
    assert boards[0].bare_idle_w == pytest.approx(IDLE_W / 2)
    assert second[0].node_id != first.node_id
    cluster.write_text("profiles: profiles.json\ndevices: [{type: cpu-tset, count: 1}]\n")
    with pytest.raises(ProfileMissing, match=rf"no profiles on 'cpu-tset'; did you mean '{CLASS}'"):
        read_cluster(cluster)
    cluster.write_text(f"model: other\nprofiles: profiles.json\ndevices: [{{type: {CLASS}}}]\n")
    with pytest.raises(InvalidField, match="is of tiny, not of 'other'"):
        read_cluster(cluster)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ('{"format": "x"}', "not of the format"),
        ('{"format": "tradewind-profiles@1"}', "model"),
    ],
)
def test_a_file_that_is_no_export_is_said_to_be_none(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(InvalidField, match=words):
        read_profiles(tmp_path / "p.json")
    with pytest.raises(InvalidField, match="profile export MODEL"):
        read_profiles(tmp_path / "none.json")


def test_what_was_never_measured_is_asked_for() -> None:
    known = stored()
    with pytest.raises(ProfileMissing, match="`tradewind profile run tiny`"):
        gathered(known.model, known.variants, (), ())
    with pytest.raises(ProfileMissing, match=f"no connected node has a device of class {CLASS}"):
        gathered(known.model, known.variants, known.profiles, ())


def test_a_simulation_needs_no_table_when_the_store_has_measured(cluster: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    arguments = ["simulate", "--trace", str(trace), "--cluster", str(cluster), "--out", str(tmp_path / "out")]
    policies = ["--policy", "static", "--policy", "energy", "--ttft-p95", "2s", "--tpot-p95", "300ms", "--json"]
    result = CliRunner().invoke(build(), with_latency_options([*arguments, *policies]))
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    (case,) = told["cases"]
    assert [p["policy"] for p in case["policies"]] == ["static", "energy"]
    for policy in case["policies"]:
        assert policy["lost"] == 0
        assert policy["attainment"]["value"] >= 0.95
        # Two cores draw 2.4 W idle at least; both busy all the time they draw no more than 9.4 W.
        assert IDLE_W < policy["mean_power"]["value"] < IDLE_W + 2 * CORE_W
    assert any("store's profiles" in words for words in told["assumptions"])


def test_a_sequence_left_in_a_high_slot_pays_the_larger_function() -> None:
    known = stored()
    replica = Replica("r", cost_of_profile(known.profiles[0], known.variants[0].recipe), 4)
    short, long = Request(0, 0.0, 64, 3), Request(1, 0.0, 64, 42)
    for request in (short, long):
        replica.submit(request, 0.0)
    while replica.in_hand:
        replica.advance(replica.ends_at_s)
    # All but the first steps are of one sequence, which sits in the second slot: the function of four runs for it.
    assert long.done_s - short.done_s > 0.9 * 40 * STEP_S[4]
