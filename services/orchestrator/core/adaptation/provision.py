"""What each deployment is provisioned for: the forecast behind a band, so that plans change only when the load does.

    raise    at once, when the forecast leaves the band upwards or an alarm presses
    lower    when the forecast stayed below the band for `LOWER_AFTER_S`
    sleep    when nothing was asked for `SLEEP_AFTER_S` and the wish allows no replicas at all
    wake     the moment a request waits

A demand that the wish states, or that an earlier leader provisioned, is not lowered before `STATED_S` of traffic were
seen; then what is seen rules. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.adaptation.alarm import Alarm
from services.orchestrator.core.adaptation.forecast import Forecast, forecast
from services.orchestrator.core.adaptation.history import History
from services.orchestrator.core.facts.traffic import DeploymentTraffic
from services.orchestrator.core.facts.wish import Demand, Deployment, Metric, Slo

# Less history than this moves nothing: it is mostly the first windows' noise.
WARM_UP_S: Final = 30.0
# A stated demand is believed for so long after traffic is first seen.
STATED_S: Final = 600.0
# Provisioned above the forecast, so that small rises need no plan.
HEADROOM: Final = 0.10
# A forecast above the provision by more than this share of it is a rise.
RAISE_SHARE: Final = 0.02
# One below by more than this share is a fall. A plan that frees no replica by it changes nothing.
LOWER_SHARE: Final = 0.10
# A fall must last so long: half the cool-down of a device, and longer than the pauses of on/off traffic.
LOWER_AFTER_S: Final = 300.0
# It goes to this share of the provision at most: a calm says little of the next burst, and a rise after it is late.
LOWER_LEAST: Final = 0.75
# Two rises are this far apart at least, unless there is an alarm: a plan and its loading take about as long.
RAISE_PAUSE_S: Final = 15.0
# Mean lengths that differ by less change no capacity by more than the model's own error.
LENGTH_SHARE: Final = 0.15
# Without a request for so long a deployment that may sleep does.
SLEEP_AFTER_S: Final = 600.0
# An alarm that the forecast does not explain raises the provision by this factor, again after `PRESS_PAUSE_S`: the time
# that a sleeping board takes to serve (wake 120 s, engine and weights 20 s). Sooner, what comes cannot have helped yet.
PRESS: Final = 1.25
PRESS_PAUSE_S: Final = 150.0
# Outside these factors the model is not a little wrong but useless; more or fewer machines are not the answer.
MOST_PRESSURE: Final = 2.0
LEAST_PRESSURE: Final = 0.75
# Pressure eases by this factor for each `EASE_AFTER_S` without an alarm: above 1 by that alone, below it only while the
# limits are kept with room. The model reckons each replica for itself and on the safe side; what is seen decides.
EASE: Final = 0.92
EASE_AFTER_S: Final = 120.0
# Room: over half an hour so small a share of the misses that the SLO allows.
ROOM_SHARE: Final = 0.1
# One allowed miss at least must have been possible, else none says nothing: 100 requests at a p99.
LEAST_ALLOWED: Final = 1.0


# Words that are inherited again and again do not grow.
_WORDS: Final = 200
AS_WISHED: Final = "as wished"


@dataclass(frozen=True, slots=True)
class Provision:
    """One deployment's provision.

    Attributes:
        generation: of the wish it is for.
        demand: what is planned for.
        since_s: when it was last changed.
        low_since_s: since when the forecast is below the band; None when it is not.
        low: the greatest that was wanted in the later half of that time, which is what a fall goes to.
        pressure: factor that attainment and alarms put on the forecast; `pressed_s` when it last changed.
        asleep: nothing is provisioned; the first request wakes it.
        words: why it is as it is, with figures.
    """

    deployment_id: str
    generation: int
    demand: Demand
    since_s: float
    low_since_s: float | None = None
    low: Demand | None = None
    pressure: float = 1.0
    pressed_s: float = 0.0
    asleep: bool = False
    words: str = ""


def provide(
    before: Provision | None,
    wish: Deployment,
    history: History | None,
    traffic: DeploymentTraffic | None,
    alarms: Iterable[Alarm],
    now_s: float,
) -> Provision:
    """The provision of one deployment after one look."""
    if before is None or before.generation != wish.generation:
        # What was eased for other limits is no more proven; what is pressed for stays.
        eased = history is not None and has_room(wish.slo, history)
        pressure = 1.0 if before is None else before.pressure if eased else max(before.pressure, 1.0)
        before = Provision(wish.deployment_id, wish.generation, wish.demand, now_s, pressure=pressure, words=AS_WISHED)
    if history is None or traffic is None:
        return before
    if before.asleep:
        return _woken(before, wish, history, now_s) if traffic.queued > 0 or traffic.at_work > 0 else before
    if _may_sleep(wish, history, traffic, before, now_s):
        words = f"asleep: no request for {now_s - history.idle_since_s:.0f} s; the next one wakes it"
        return replace(before, asleep=True, since_s=now_s, low_since_s=None, words=words)
    if history.age_s < WARM_UP_S:
        return before
    alarmed = tuple(alarms)
    before = _pressed(before, wish.slo, history, alarmed, now_s)
    return _banded(before, wish, history, bool(alarmed), now_s)


def _may_sleep(wish: Deployment, history: History, traffic: DeploymentTraffic, before: Provision, now_s: float) -> bool:
    if not wish.scale_to_zero or traffic.queued or traffic.at_work:
        return False
    return now_s - max(history.idle_since_s, before.since_s if before.words == "awake" else 0.0) >= SLEEP_AFTER_S


def _woken(before: Provision, wish: Deployment, history: History, now_s: float) -> Provision:
    seen = forecast(history, now_s)
    demand = before.demand if seen.upper_per_s <= 0.0 else demand_of(seen, wish, before.pressure)
    return replace(before, asleep=False, demand=demand, since_s=now_s, words="awake")


def _pressed(before: Provision, slo: Slo, history: History, alarmed: tuple[Alarm, ...], now_s: float) -> Provision:
    # Only a change that had its time to help can be said not to have helped.
    passed_s = now_s - max(before.pressed_s, before.since_s)
    if alarmed:
        fresh = any(now_s - a.last_s < 1.0 for a in alarmed)
        if passed_s >= PRESS_PAUSE_S and fresh and before.pressure < MOST_PRESSURE:
            pressure = min(max(before.pressure * PRESS, 1.0), MOST_PRESSURE)
            return replace(before, pressure=pressure, pressed_s=now_s)
        return before
    may_ease = before.pressure > 1.0 or (before.pressure > LEAST_PRESSURE and has_room(slo, history))
    if may_ease and now_s - before.pressed_s >= EASE_AFTER_S:
        return replace(before, pressure=max(before.pressure * EASE, LEAST_PRESSURE), pressed_s=now_s)
    return before


def has_room(slo: Slo, history: History) -> bool:
    """Whether every limit was missed by far fewer requests than the SLO allows, of enough requests to tell."""
    by_metric = {
        Metric.TTFT: history.ttft_missed,
        Metric.TPOT: history.tpot_missed,
        Metric.E2E: history.e2e_missed,
    }
    for limit in slo.latency:
        missed = by_metric[limit.metric]
        allowed = 1.0 - limit.percentile / 100.0
        if allowed * missed.weight < LEAST_ALLOWED or missed.mean > ROOM_SHARE * allowed:
            return False
    return bool(slo.latency)


def _banded(before: Provision, wish: Deployment, history: History, alarmed: bool, now_s: float) -> Provision:
    seen = forecast(history, now_s)
    wanted, have = demand_of(seen, wish, before.pressure), before.demand
    rate, planned = wanted.requests_per_s, have.requests_per_s
    if history.age_s < STATED_S and rate <= planned:
        return before
    if rate / (1.0 + HEADROOM) > planned * (1.0 + RAISE_SHARE):
        raised_lately = before.words != AS_WISHED and now_s - before.since_s < RAISE_PAUSE_S
        if raised_lately and not alarmed:
            return before
        return _changed(before, wanted, seen, now_s)
    below = rate < planned * (1.0 - LOWER_SHARE) or _lengths_differ(wanted, have)
    if not below or alarmed:
        return replace(before, low_since_s=None, low=None) if before.low_since_s is not None else before
    since_s = before.low_since_s if before.low_since_s is not None else now_s
    early = now_s - since_s < LOWER_AFTER_S / 2.0
    low = wanted if early or before.low is None or rate >= before.low.requests_per_s else before.low
    if now_s - since_s >= LOWER_AFTER_S:
        least = _digits(LOWER_LEAST * planned)
        return _changed(before, replace(low, requests_per_s=max(low.requests_per_s, least)), seen, now_s)
    return replace(before, low_since_s=since_s, low=low)


def _changed(before: Provision, wanted: Demand, seen: Forecast, now_s: float) -> Provision:
    words = (
        f"{before.demand.requests_per_s:.3g} → {wanted.requests_per_s:.3g} requests/s "
        f"(seen {seen.mean_per_s:.3g}, up to {seen.upper_per_s:.3g}, dispersion {seen.dispersion:.2g}"
        + (f", × {before.pressure:.3g} by attainment)" if before.pressure != 1.0 else ")")
    )
    return replace(before, demand=wanted, since_s=now_s, low_since_s=None, low=None, words=words)


def inherited(provisions: Iterable[Provision], now_s: float) -> tuple[Provision, ...]:
    """Provisions of an earlier leader, on our clock: what was provisioned goes on until we know better."""
    return tuple(
        replace(p, since_s=now_s, low_since_s=None, low=None, pressed_s=now_s, words=f"inherited: {p.words}"[:_WORDS])
        for p in provisions
    )


def demand_of(seen: Forecast, wish: Deployment, pressure: float) -> Demand:
    """A forecast as a demand to plan for; three digits, since more would only make equal plans differ.

    Tails of lengths stay as wished: a fitted tail longer than a context must not make a wish impossible that only a
    request in a thousand does not fit.
    """
    stated = wish.demand
    return Demand(
        requests_per_s=_digits(seen.upper_per_s * pressure * (1.0 + HEADROOM)),
        prompt_tokens=round(seen.prompt_tokens) or stated.prompt_tokens,
        output_tokens=round(seen.output_tokens) or stated.output_tokens,
        mean_requests_per_s=_digits(seen.mean_per_s),
        prompt_tokens_p95=stated.prompt_tokens_p95,
        output_tokens_p95=stated.output_tokens_p95,
    )


def _lengths_differ(wanted: Demand, have: Demand) -> bool:
    pairs = ((wanted.prompt_tokens, have.prompt_tokens), (wanted.output_tokens, have.output_tokens))
    return any(abs(a - b) > LENGTH_SHARE * max(b, 1) for a, b in pairs)


def _digits(value: float) -> float:
    return float(f"{value:.3g}")
