"""What a deployment that may go to zero says of its cold start: before it sleeps, in its report."""

from __future__ import annotations

from services.orchestrator.core.planning.plan import make_plan
from tests.orchestrator.worlds import slo, wish, world


def summary(**changes: object) -> str:
    deployment = wish(rate=0.5, slo=slo(ttft=400), **changes)
    return make_plan(world(deployment)).explanation_of("d-chat").summary


def test_the_price_of_a_cold_start_is_declared_in_seconds_and_joules_with_its_source() -> None:
    # Two seconds of loading at 20 W of work.
    told = summary(scale_to_zero=True)
    assert "goes to zero when nothing is asked for" in told
    assert "a cold start takes 2 s (as profiled) and up to 40 J (modelled)" in told


def test_one_that_would_take_too_long_says_that_it_never_sleeps() -> None:
    told = summary(scale_to_zero=True, cold_start_s=1.5)
    assert "It never goes to zero" in told and "1.5 s are accepted" in told


def test_others_say_nothing_of_it() -> None:
    assert "zero" not in summary()
