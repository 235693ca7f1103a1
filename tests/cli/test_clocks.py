"""Clocks on the command line: what a person says, what is sent and shown, and how one hears that they are missing."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Stage
from tests.cli.specimens import profile_of, variant_of
from tradewind.cli.commands.profiles import clocks_of
from tradewind.cli.declaration import Declaration
from tradewind.cli.easing import advice
from tradewind.cli.steps import Observed, steps
from tradewind.domain.errors import InvalidField
from tradewind.v1 import common_pb2, compiler_pb2, node_pb2, orchestrator_pb2, profiler_pb2

Setting = common_pb2.PowerSetting
MODEL = compiler_pb2.Model(model_id="m", name="smollm2")


def test_clocks_are_mhz_the_default_or_those_that_plans_can_use() -> None:
    assert clocks_of([]) == []
    assert clocks_of(["1200,1500", "default"]) == [Setting(sm_clock_mhz=1200), Setting(sm_clock_mhz=1500), Setting()]
    assert clocks_of(["auto"]) is None


@pytest.mark.parametrize("said", ["auto,1200", "fast", "-3", "1.2", "1200000", "", "0"])
def test_what_is_no_clock_is_refused(said: str) -> None:
    with pytest.raises(InvalidField, match="--sm-clock"):
        clocks_of([said])


async def test_clocks_are_sent_and_shown(stage: Stage) -> None:
    (stage.cli.folder / "m.gguf").write_bytes(b"GGUF")
    for arguments in (("model", "import", "m.gguf", "--name", "m"), ("variant", "build", "m")):
        assert (await stage.cli.inside(*arguments)).code == 0
    assert (await stage.cli.inside("profile", "run", "m", "--sm-clock", "1200,1500")).code == 0
    assert [one.sm_clock_mhz for one in stage.world.requests[-1].power_settings] == [1200, 1500]
    assert (await stage.cli.inside("profile", "run", "m", "--clocks", "auto")).code == 0
    assert stage.world.requests[-1].planned_clocks
    wrong = await stage.cli.inside("profile", "run", "m", "--sm-clock", "slow")
    assert wrong.code != 0 and "is no clock" in wrong.err
    low = stage.world.profiles[0]
    low.point.power.sm_clock_mhz, low.ran_sm_clock_mhz = 1080, 1065
    assert "at 1080 MHz (ran at 1065 MHz)" in (await stage.cli.inside("profile", "list", "m")).out
    assert "at 1080 MHz" in (await stage.cli.inside("pareto", "m")).out
    assert (await stage.cli.inside("status", "--json")).document["advice"] == []


def measured(clock_mhz: int = 0) -> profiler_pb2.Profile:
    profile = profile_of(variant_of(MODEL, "f32", 1.0), "gpu/whole", 1.0)
    profile.model_id, profile.point.device_class = MODEL.model_id, "gpu:h100-80"
    if clock_mhz:
        profile.point.power.sm_clock_mhz = clock_mhz
    return profile


def nodes(*settings: common_pb2.PowerSetting) -> list[orchestrator_pb2.Node]:
    device = node_pb2.Device(device_class="gpu:h100-80", power_settings=settings)
    return [orchestrator_pb2.Node(report=node_pb2.NodeReport(devices=[device]))]


@pytest.mark.parametrize(
    ("clocks", "uneased", "needed"),
    [("auto", True, True), ("auto", False, False), ("default", True, False)],
)
def test_a_declaration_has_boards_measured_at_the_clock_they_ease_to(clocks: str, uneased: bool, needed: bool) -> None:
    variant, profile = variant_of(MODEL, "f32", 1.0), measured()
    told = {"version": 1, "model": {"name": "m"}, "profile": {"clocks": clocks}, "deployment": {"name": "chat"}}
    seen = Observed(MODEL, [variant], [profile], uneased=frozenset({variant.variant_id} if uneased else ()))
    step = next(one for one in steps(Declaration.model_validate(told), seen) if one.name == "profile")
    assert step.needed is needed, step.why
    assert not needed or "at the clock that boards ease to" in step.why


def test_a_profile_at_a_lower_clock_alone_measures_nothing_of_a_declaration() -> None:
    told = {"version": 1, "model": {"name": "m"}, "deployment": {"name": "chat"}}
    seen = Observed(MODEL, [variant_of(MODEL, "f32", 1.0)], [measured(1080)])
    assert [one.needed for one in steps(Declaration.model_validate(told), seen) if one.name == "profile"] == [True]


def test_what_is_missing_for_easing_is_one_command() -> None:
    easing = nodes(Setting(eased_sm_clock_mhz=1080), Setting(sm_clock_mhz=1080))
    (line,) = advice([MODEL], [measured()], easing)
    assert "`tradewind profile run smollm2 --sm-clock auto`" in line
    assert len(advice([MODEL], [measured(), measured(1200)], easing)) == 1, "no board eases to that"
    assert advice([MODEL], [measured(), measured(1080)], easing) == []
    assert advice([MODEL], [], easing) == [], "profiles come first"
    assert advice([MODEL], [measured()], nodes()) == []
