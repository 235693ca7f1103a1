"""What a look asks to be done. Repeating or dropping an effect does no harm."""

from __future__ import annotations

from dataclasses import dataclass

from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.planning.plan import Plan
from services.orchestrator.core.rollout.fills import Fill
from services.orchestrator.core.rollout.rollout import Target


@dataclass(frozen=True, slots=True)
class Commit:
    """A checked plan to be committed by compare-and-set. Its blueprint is the parent when only reports changed."""

    plan: Plan
    parent: Blueprint
    trigger: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A plan that the independent check refused; a fault of ours, never committed."""

    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Push:
    """Whole targets of all nodes, from this generation."""

    generation: int
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """The whole routing table.

    Attributes:
        routes: ready replicas by deployment id.
        weights: share of requests for its size that a replica is given, where that is not 1, by replica id.
        limits: sequences together that a replica is given, where that is less than its batch limit, by replica id.
        asleep: deployments that run nothing until a request comes; gateways hold requests for them.
        fills: how far each replica is filled before the next one works, by replica id.
    """

    routes: tuple[tuple[str, tuple[Replica, ...]], ...]
    weights: tuple[tuple[str, float], ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    asleep: tuple[str, ...] = ()
    fills: tuple[tuple[str, Fill], ...] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """Something learnt, in words with figures; for the log. Nothing follows from it but what other effects say."""

    words: str


Effect = Commit | Broken | Push | Publish | Note
