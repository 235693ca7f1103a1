"""Adaptation as a whole: load, sleep, danger, swaps that make things worse, and that it does not flap."""

from __future__ import annotations

import math
from dataclasses import replace

from services.orchestrator.core.adaptation.adapt import anticipated, planned_wishes
from services.orchestrator.core.adaptation.alarm import Danger
from services.orchestrator.core.adaptation.pace import DEVICE_COOL_DOWN_S, changed_places
from services.orchestrator.core.adaptation.provision import LOWER_AFTER_S, SLEEP_AFTER_S
from services.orchestrator.core.facts.blueprint import EMPTY, Replica
from services.orchestrator.core.facts.policy import POLICIES
from tests.adaptation.house import House, one_point_each
from tests.orchestrator.worlds import slo, wish

LIMITS = slo(ttft=400)


def test_replicas_follow_the_load_up_at_once_and_down_later() -> None:
    house = House(lambda t: 0.5 if t < 300 else 3.0 if t < 900 else 0.3, deployments=(wish(rate=0.5, slo=LIMITS),))
    house.run(300)
    calm = len(house.replicas)
    house.run(120)
    surge = len(house.replicas)
    assert surge >= 3 > calm
    raised_s = next(at for at, c in house.commits if at > 300 and len(c.plan.blueprint.replicas) > calm)
    assert raised_s <= 330, "a surge is answered within some windows"
    assert house.commits[-1][1].trigger.startswith("demand of chat")
    house.run(480 + DEVICE_COOL_DOWN_S)
    assert len(house.replicas) < surge, "what is not needed any more goes"
    assert house.missed < 0.1 * house.asked


def test_a_policy_that_does_not_adapt_stays_as_wished() -> None:
    policy = POLICIES["static"]
    house = House(lambda t: 3.0, policy=policy, deployments=(wish(rate=0.5, slo=LIMITS),))
    house.run(300)
    assert [c.trigger for _, c in house.commits] == ["start"]


def test_noise_at_the_threshold_changes_no_device_twice_in_a_cool_down() -> None:
    # A slow swing and Poisson noise about the capacity of two replicas.
    house = House(lambda t: 1.1 + 0.25 * math.sin(t / 140.0), seed=2, deployments=(wish(rate=1.0, slo=LIMITS),))
    house.run(2400)
    before, last = EMPTY, dict[tuple[str, str], float]()
    for at_s, commit in house.commits:
        after = commit.plan.blueprint
        for place in changed_places(before, after) if before is not EMPTY else ():
            assert at_s - last.get(place, -math.inf) >= DEVICE_COOL_DOWN_S, (place, at_s, last, house.notes)
            last[place] = at_s
        before = after


def test_a_deployment_that_may_sleep_does_and_a_request_wakes_it() -> None:
    sleeper = wish(rate=0.5, slo=LIMITS, scale_to_zero=True)
    house = House(lambda t: 0.5 if t < 120 or t >= 1200 else 0.0, deployments=(sleeper,))
    house.run(200 + SLEEP_AFTER_S)
    assert (house.replicas, house.published.asleep) == ((), ("d-chat",))
    assert house.commits[-2][1].trigger.endswith("sleeps") or house.commits[-1][1].trigger.endswith("sleeps")
    for asked, about, planned in ((sleeper, "", 0), (sleeper, "d-chat", 1), (replace(sleeper, generation=2), "", 1)):
        ahead = anticipated(house.state.learnt, (asked,), about, (), house.now_s)
        assert len(planned_wishes(ahead, (asked,), POLICIES["energy"], ())) == planned, "who asks about it is answered"
    house.run(1200 + 10 - house.now_s)
    assert house.published.asleep == (), "awake before it is loaded"
    house.run(30)
    assert len(house.replicas) >= 1
    assert not house.queue, "what waited was served"


def test_without_leave_to_sleep_it_keeps_its_floor() -> None:
    house = House(lambda t: 0.0, deployments=(wish(rate=2.0, slo=LIMITS, min_replicas=2),))
    house.run(SLEEP_AFTER_S + LOWER_AFTER_S + 200)
    assert len(house.replicas) == 2


def test_a_swap_that_breaks_limits_goes_back_to_what_stands_by() -> None:
    slow = "sha256:lean"
    house = House(
        lambda t: 0.8,
        catalog=one_point_each("fast"),
        deployments=(wish(rate=0.8, slo=LIMITS),),
        serves=lambda r: 0.4 if r.variant_id == slow else 1.5,
    )
    house.run(120)
    old = {r.replica_id for r in house.replicas}
    house.seen = replace(house.seen, catalog=one_point_each("fast", "lean"))
    house.run(20)
    assert house.variants() == [slow], "it promises less energy"
    swapped_s = house.now_s
    certain_s = next(
        (at for at, words in _until(house, 240, lambda h: h.variants() == ["sha256:fast"]) if "limits broken" in words),
        None,
    )
    assert certain_s is not None, house.notes
    back_s = next(at for at, c in house.commits if at > swapped_s and _variants(c.plan.blueprint.replicas) == {"fast"})
    assert back_s - certain_s <= 10.0
    assert {r.replica_id for r in house.replicas} & old, "the old replica had stayed loaded"
    house.run(300)
    assert house.variants() == ["sha256:fast"], "it is not tried again soon"


def test_a_swap_that_breaks_an_end_to_end_limit_goes_back_too() -> None:
    slow = "sha256:lean"
    house = House(
        lambda t: 0.8,
        deployments=(wish(rate=0.8, slo=slo(e2e=20_000)),),
        serves=lambda r: 0.4 if r.variant_id == slow else 1.5,
    )
    house.run(120)
    house.seen = replace(house.seen, catalog=one_point_each("fast", "lean"))
    house.run(20)
    assert house.variants() == [slow]
    _until(house, 240, lambda h: h.variants() == ["sha256:fast"])
    assert house.variants() == ["sha256:fast"]
    assert any("limits broken after the swap: E2E kept by" in words for _, words in house.notes), house.notes


def test_danger_is_seen_within_seconds() -> None:
    house = House(lambda t: 0.5, deployments=(wish(rate=0.5, slo=LIMITS),))
    house.run(60)
    house.rate = lambda t: 12.0
    began_s = house.now_s
    house.run(6)
    first = house.state.learnt.alarms[0]
    assert first.danger is Danger.QUEUE
    assert first.since_s - began_s <= 2.0, "the fast path sees a queue in two seconds"


def _until(house: House, seconds: int, done: object) -> list[tuple[float, str]]:
    for _ in range(seconds):
        house.run(1)
        if done(house):  # type: ignore[operator]
            break
    return house.notes


def _variants(replicas: tuple[Replica, ...]) -> set[str]:
    return {r.variant_id.removeprefix("sha256:") for r in replicas}
