"""What is done for deployments in danger without waiting for a plan. Pure values; `rollout` acts on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.adaptation.alarm import Alarm, Danger

# Share of the batch limit that a replica is given while its tokens come too slowly: a decode step gets cheaper with
# fewer sequences, and what waits, waits at the gateway, where it can still go elsewhere.
SMALLER_BATCH: Final = 0.75


@dataclass(frozen=True, slots=True)
class Relief:
    """Deployments that get something.

    Attributes:
        warm: their replaced replicas stay loaded, so that they can come back at once.
        woken: their standbys serve again.
        boosted: devices they are on run at their default clocks and caps.
        small: their replicas work on fewer sequences together.
    """

    warm: frozenset[str] = frozenset()
    woken: frozenset[str] = frozenset()
    boosted: frozenset[str] = frozenset()
    small: frozenset[str] = frozenset()


NO_RELIEF: Final = Relief()


def relief_for(alarms: tuple[Alarm, ...], on_trial: frozenset[str]) -> Relief:
    """What alarms and running trials ask for."""
    alarmed = frozenset(a.deployment_id for a in alarms)
    waiting = frozenset(a.deployment_id for a in alarms if a.danger is not Danger.TPOT)
    slow = frozenset(a.deployment_id for a in alarms if a.danger is Danger.TPOT)
    # Fewer sequences together make a queue longer: with both, more hands are the answer, not smaller batches.
    return Relief(warm=alarmed | on_trial, woken=alarmed, boosted=alarmed, small=slow - waiting)


def smaller_batch(batch_limit: int) -> int:
    """Sequences together that a replica of a deployment in `small` is given."""
    return max(1, int(batch_limit * SMALLER_BATCH))
