"""Danger to a deployment's limits, seen within two seconds and answered at once. Pure.

An alarm is a state, not an event: it is seen again at each look while it lasts, and holds `CALM_S` longer. What follows
from it needs no plan (`rollout.py`): clocks go to their default, a standby is woken, batches are made smaller; a plan
with more capacity follows from the pressure that it puts on the provision (`provision.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from services.orchestrator.core.adaptation.attainment import attainment
from services.orchestrator.core.facts.traffic import DeploymentTraffic
from services.orchestrator.core.facts.wish import Deployment, Metric, Slo

# An alarm that was over for less has not passed: relief that ends at once would bring it back.
CALM_S: Final = 60.0
# Windows that attainment is judged by: half a minute, six windows.
JUDGED_WINDOWS: Final = 6
# A queue is danger when emptying it takes this share of the TTFT limit: the rest is the prefill itself.
QUEUE_SHARE: Final = 0.5
# Without a limit on TTFT a queue of this many seconds is danger.
QUEUE_S: Final = 5.0
# Windows that the rate of completion is taken from.
RATE_WINDOWS: Final = 3
# Fewer waiting requests than this are ordinary.
LEAST_QUEUED: Final = 4


class Danger(StrEnum):
    """What is in danger."""

    QUEUE = "queue"
    TTFT = "ttft"
    TPOT = "tpot"
    E2E = "e2e"


_BROKEN: Final = {Metric.TTFT: Danger.TTFT, Metric.TPOT: Danger.TPOT, Metric.E2E: Danger.E2E}


@dataclass(frozen=True, slots=True)
class Alarm:
    """Danger to one deployment.

    Attributes:
        since_s: when it was first seen; `last_s` when last.
        words: the figures it was last seen by.
    """

    deployment_id: str
    danger: Danger
    since_s: float
    last_s: float
    words: str


def alarms(
    before: Iterable[Alarm], wishes: Iterable[Deployment], traffic: Iterable[DeploymentTraffic], now_s: float
) -> tuple[Alarm, ...]:
    """Alarms after one look, by deployment and danger."""
    old = {(a.deployment_id, a.danger): a for a in before}
    by_id = {t.deployment_id: t for t in traffic}
    found: list[Alarm] = []
    for wish in wishes:
        seen = dict(_dangers(wish.slo, by_id[wish.deployment_id])) if wish.deployment_id in by_id else {}
        for danger in Danger:
            known = old.get((wish.deployment_id, danger))
            if danger in seen:
                since_s = known.since_s if known else now_s
                found.append(Alarm(wish.deployment_id, danger, since_s, now_s, seen[danger]))
            elif known and now_s - known.last_s < CALM_S:
                found.append(replace(known))
    return tuple(found)


def _dangers(slo: Slo, traffic: DeploymentTraffic) -> list[tuple[Danger, str]]:
    found: list[tuple[Danger, str]] = []
    if words := _queue(slo, traffic):
        found.append((Danger.QUEUE, words))
    kept = attainment(traffic.windows[-JUDGED_WINDOWS:], slo)
    if kept.broken:
        found.append((_BROKEN[kept.broken[0]], kept.words))
    return found


def _queue(slo: Slo, traffic: DeploymentTraffic) -> str:
    if traffic.queued < LEAST_QUEUED:
        return ""
    newest = traffic.windows[-RATE_WINDOWS:]
    passed_s = sum(w.length_s for w in newest)
    done = sum(w.finished for w in newest)
    limit_s = min((x.limit_ms / 1000.0 for x in slo.latency if x.metric is Metric.TTFT), default=QUEUE_S / QUEUE_SHARE)
    # Nothing finished yet: what is at work is taken to finish once in that time.
    per_s = max(done, traffic.at_work, 1) / max(passed_s, 1.0)
    wait_s = traffic.queued / per_s
    if wait_s <= limit_s * QUEUE_SHARE:
        return ""
    return f"{traffic.queued} requests wait, about {wait_s:.3g} s of work; TTFT may be {limit_s:.3g} s"
