"""How much of a plan is done now, by the policy's bound on changes for savings, and the words for what waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.orchestrator.core.adaptation.pace import Touch, pressing, recent
from services.orchestrator.core.adaptation.portion import Figures, Portion, portion_of
from services.orchestrator.core.checking.check import check
from services.orchestrator.core.facts.change_bound import DEFAULT_BOUND, ChangeBound
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.planning.plan import Plan
from services.orchestrator.core.state import State


@dataclass(frozen=True, slots=True)
class Counted:
    """Devices that count against the bound: changed for savings, or because people asked.

    Attributes:
        changed: within the window.
        now_s: on the clock of `changed`.
    """

    bound: ChangeBound = DEFAULT_BOUND
    changed: tuple[Touch, ...] = ()
    now_s: float = 0.0

    def room(self, situation: Situation) -> int:
        """Devices that may still change for savings."""
        return max(self.bound.admits(devices_of(situation)) - len(self.changed), 0)


NOTHING_COUNTED: Final = Counted()


def counted(state: State, now_s: float) -> Counted:
    """What counts now."""
    bound = state.policy.bound
    return Counted(bound, recent(state.savings, bound.window_s, now_s), now_s)


def portion_now(state: State, situation: Situation, planned: Situation, plan: Plan, now_s: float) -> Portion:
    """What of a plan is done now; all of it when everybody waits for it, or nothing adapts."""
    unmet = (e.deployment_id for e in state.explanations if not e.feasible)
    waited = pressing(state.acted, situation, unmet)
    if not state.policy.adaptive or waited is None:
        return Portion(plan.blueprint)
    return portion_of(
        situation.parent,
        plan.blueprint,
        Figures(plan.explanations),
        waited,
        counted(state, now_s).room(situation),
        lambda blueprint: not check(planned, blueprint, plan.explanations),
    )


def bounded(done: Counted, situation: Situation, plan: Plan, portion: Portion) -> tuple[Plan, float | None, str]:
    """The plan as far as the bound admits it, when there is room for more, and why it is not all of it."""
    bound, devices, now_s = done.bound, devices_of(situation), done.now_s
    ends_s = [t.at_s + bound.window_s for t in done.changed]
    due_s = min([*ends_s, *([now_s + bound.window_s] if portion.savings else [])], default=None)
    admitted, watts = bound.admits(devices), portion.waiting_mw / 1000.0
    words = (
        f"changes of {len(portion.places)} devices wait that would draw {abs(watts):.3g} W "
        f"{'more' if watts < 0.0 else 'less'} (modelled): at most {admitted} of {devices} change "
        f"for savings in {bound.window_s:.0f} s, {len(ends_s)} did or were asked to, {len(portion.savings)} do now"
    )
    words += "; these change together or not at all" if due_s is None else f"; more may in {due_s - now_s:.0f} s"
    names = {name for name, _ in portion.waiting}
    explanations = tuple(
        replace(
            e,
            blueprint_id=portion.blueprint.blueprint_id,
            summary=f"{e.summary} Not all of it is in force: {words}." if e.deployment_id in names else e.summary,
        )
        for e in plan.explanations
    )
    return replace(plan, blueprint=portion.blueprint, explanations=explanations), due_s, f"a saving waits: {words}"


def devices_of(situation: Situation) -> int:
    """Devices of the fleet."""
    return sum(len(node.devices) for node in situation.nodes)
