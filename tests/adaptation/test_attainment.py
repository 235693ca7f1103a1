"""Shares within limits: whose limits count, which one is named, and what is raised for it. Pure."""

from __future__ import annotations

import pytest

from services.orchestrator.core.adaptation.alarm import Danger, alarms
from services.orchestrator.core.adaptation.attainment import Verdict, attainment
from services.orchestrator.core.adaptation.relief import relief_for
from services.orchestrator.core.facts.traffic import DeploymentTraffic, Window
from services.orchestrator.core.facts.wish import LatencyLimit, Metric, Slo
from tests.orchestrator.worlds import slo, wish


def judged(**within: int) -> tuple[Window, ...]:
    """A hundred requests, of which so many kept each limit."""
    kept = {"ttft_within": 100, "tpot_within": 100, "e2e_within": 100} | within
    return (Window(0.0, arrivals=100, finished=100, judged=100, **kept),)


def test_an_end_to_end_limit_is_judged_where_there_is_one() -> None:
    seen = judged(e2e_within=60)
    broken = attainment(seen, slo(ttft=300, e2e=9000))
    assert (broken.verdict, broken.broken) == (Verdict.BREACHED, (Metric.E2E,))
    assert "E2E kept by 60.0% of 100 requests, 95.0% is asked for" in broken.words
    assert attainment(seen, slo(ttft=300)).verdict is Verdict.KEPT
    assert attainment(judged(), slo(e2e=9000)).verdict is Verdict.KEPT


@pytest.mark.parametrize(
    ("within", "danger"),
    [
        ({"e2e_within": 60}, Danger.E2E),
        ({"e2e_within": 60, "ttft_within": 40}, Danger.TTFT),
        ({"e2e_within": 40, "tpot_within": 60}, Danger.E2E),
    ],
)
def test_an_alarm_names_the_limit_that_the_fewest_kept(within: dict[str, int], danger: Danger) -> None:
    watched = wish(slo=slo(ttft=300, tpot=40, e2e=9000))
    (alarm,) = alarms((), (watched,), (DeploymentTraffic(watched.deployment_id, judged(**within)),), 5.0)
    assert alarm.danger is danger


def test_an_alarm_names_a_limit_that_is_broken_not_one_that_fewer_have_to_keep() -> None:
    limits = Slo((LatencyLimit(Metric.TTFT, 50.0, 300.0), LatencyLimit(Metric.E2E, 99.0, 9000.0)))
    watched = wish(slo=limits)
    seen = DeploymentTraffic(watched.deployment_id, judged(ttft_within=60, e2e_within=80))
    (alarm,) = alarms((), (watched,), (seen,), 5.0)
    assert alarm.danger is Danger.E2E


def test_answers_that_take_too_long_wake_and_boost_and_make_no_batch_smaller() -> None:
    watched = wish(slo=slo(e2e=9000))
    found = alarms((), (watched,), (DeploymentTraffic(watched.deployment_id, judged(e2e_within=60)),), 5.0)
    relief = relief_for(found, frozenset())
    name = {watched.deployment_id}
    assert (relief.warm, relief.woken, relief.boosted, relief.small) == (name, name, name, frozenset())
