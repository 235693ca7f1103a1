"""Makes a decision again from its kept inputs, with today's code. Any other action is a difference. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from services.orchestrator.core.asking import Asked, granted
from services.orchestrator.core.effects import Commit
from services.orchestrator.core.memo import from_text, to_text
from services.orchestrator.core.planning.plan import Plan, make_plan
from services.orchestrator.core.state import Observation, State
from services.orchestrator.core.step import step


@dataclass(frozen=True, slots=True)
class Look:
    """Inputs of a decision that the loop made by itself."""

    state: State
    seen: Observation
    now_s: float


Inputs = Look | Asked


@dataclass(frozen=True, slots=True)
class Again:
    """What today's code decides.

    Attributes:
        plan: None when it would not have decided anything.
        trigger: what it says set it off; empty for what was asked for.
    """

    plan: Plan | None
    trigger: str = ""


def written(inputs: Inputs) -> tuple[str, str]:
    """Kind and text of inputs, to keep."""
    return type(inputs).__name__, to_text(inputs)


def read(kind: str, text: str) -> Inputs:
    """Inputs as kept.

    Raises:
        Unreadable: they do not fit this version.
    """
    return from_text(Look, text) if kind == Look.__name__ else from_text(Asked, text)


def decide_again(inputs: Inputs) -> Again:
    """The decision, made anew."""
    if isinstance(inputs, Asked):
        plan, _ = granted(inputs, make_plan(inputs.situation))
        return Again(plan)
    _, effects = step(inputs.state, inputs.seen, inputs.now_s)
    commits = [effect for effect in effects if isinstance(effect, Commit)]
    return Again(commits[0].plan, commits[0].trigger) if commits else Again(None)


def answer_of(plan: Plan) -> str:
    """Digest of everything that a plan does; reasons are words and may change."""
    chosen = [(e.deployment_id, e.binding_limit, e.chosen) for e in plan.explanations]
    points = [
        (name, limit, c and (c.variant_id, c.device_class, c.partition_kind, c.batch_limit, c.replicas))
        for name, limit, c in chosen
    ]
    return hashlib.sha256(repr((plan.blueprint, points)).encode()).hexdigest()
