"""Scores options of one deployment in milliwatts, so that options of several deployments can be added up.

- energy: the option's power;
- latency, cost: regret against the deployment's best option, scaled with its least power;
- what leaves the incumbent must beat it by `HYSTERESIS_SHARE`, and pays its change: the energy of loading each new
  replica, spread over `PAYBACK_S`.
"""

from __future__ import annotations

from typing import Final

from services.orchestrator.core.blueprint import Replica
from services.orchestrator.core.choose import Choice
from services.orchestrator.core.weigh import Option
from services.orchestrator.core.wish import Deployment, Objective
from tradewind.domain.figures import FigureSource

# Profiles repeat within a few per cent; a smaller gain is noise and not worth a swap.
HYSTERESIS_SHARE: Final = 0.05
# A swap must earn back its energy within this time; load changes on about this scale.
PAYBACK_S: Final = 600.0
# An option whose energy is not known comes after every one whose energy is.
_UNKNOWN_ENERGY_MW: Final = 1e12


def menu_of(deployment: Deployment, options: tuple[Option, ...], incumbents: tuple[Replica, ...]) -> tuple[Choice, ...]:
    """Choices with scores; of options that take the same room only the best is kept."""
    if not options:
        return ()
    least_cost = min(option.cost for option in options)
    least_mw = min(option.power_mw for option in options)
    choices: dict[tuple[object, ...], Choice] = {}
    for option in options:
        new = option.replicas - min(sum(key_of(r) == option.key for r in incumbents), option.replicas)
        leaves = bool(incumbents) and not any(key_of(r) == option.key for r in incumbents)
        cost = option.cost * (1.0 + HYSTERESIS_SHARE) if leaves else option.cost
        change = change_mw(option, new) if incumbents else 0.0
        if deployment.objective is Objective.ENERGY:
            score = cost + change
            if option.candidate.energy_source in (FigureSource.UNAVAILABLE, FigureSource.UNSPECIFIED):
                score += _UNKNOWN_ENERGY_MW
        else:
            score = (cost / max(least_cost, 1e-9) - 1.0) * max(least_mw, 1.0) + change
        profile = option.point.profile
        room = (profile.device_class, profile.partition_kind, option.replicas, new, option.point.memory_bytes)
        choice, other = Choice(deployment.deployment_id, option, score), choices.get(room)
        if other is None or _rank(choice) < _rank(other):
            choices[room] = choice
    return tuple(choices.values())


def change_mw(option: Option, new_replicas: int) -> float:
    """Power that loading new replicas amounts to when spread over `PAYBACK_S`."""
    profile = option.point.profile
    at_work_mw = max((load.power_mw for load in profile.loads), default=0.0)
    return new_replicas * profile.load_s * at_work_mw / PAYBACK_S


def _rank(choice: Choice) -> tuple[float, int]:
    """Of equal scores the larger batch limit: it costs nothing until it is used, and then shares, not queues."""
    return (round(choice.score, 6), -choice.option.candidate.batch_limit)


def key_of(replica: Replica) -> tuple[str, str, str, int]:
    """What a running replica is compared with options by."""
    return (replica.variant_id, replica.device_class, replica.partition.kind, replica.batch_limit)
