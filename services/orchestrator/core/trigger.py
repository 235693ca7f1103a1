"""Words for what set a plan off: the difference between two situations. No decisions here."""

from __future__ import annotations

from typing import Final

from services.orchestrator.core.adaptation.adapt import Memory
from services.orchestrator.core.adaptation.hold import Hold
from services.orchestrator.core.facts.fleet import Node
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment

NOTHING_LEARNT: Final = Memory()


def trigger_words(
    before: Situation | None, after: Situation, learnt: Memory = NOTHING_LEARNT, *, waited: bool = False
) -> str:
    """What changed, for the decision journal.

    Args:
        learnt: says which deployments are left out of `after` because they sleep, and why some are held.
        waited: whether the time has come for a saving that was put off.
    """
    if before is None:
        return "start"
    words = [*_deployments(before, after, learnt), *_nodes(before, after)]
    if before.catalog.variants != after.catalog.variants:
        words.append("variants changed")
    if before.catalog.profiles != after.catalog.profiles:
        words.append("profiles changed")
    if before.budgets != after.budgets:
        words.append("power budgets changed")
    known, back = [q.key for q in before.quarantined], {q.key for q in learnt.rolled_back}
    for entry in after.quarantined:
        if entry.key not in known:
            why = "taken back" if entry.key in back else "failed to start"
            words.append(f"variant {entry.variant_id} {why}: {entry.reason}")
    if len(after.quarantined) < len(before.quarantined):
        words.append("a variant may be tried again")
    if before.gone != after.gone:
        words.append("replaced replicas ended")
    if before.settled != after.settled and not words:
        words.append("cool-down over" if len(after.settled) < len(before.settled) else "cool-down began")
    if waited:
        words.append("a saving that waited")
    return "; ".join(words) or "blueprint committed"


def _deployments(before: Situation, after: Situation, learnt: Memory) -> list[str]:
    holds = {hold.deployment_id: hold for hold in learnt.holds}
    old = {d.deployment_id: d for d in before.deployments}
    new = {d.deployment_id: d for d in after.deployments}
    placed = {r.deployment_id for r in (*after.parent.replicas, *after.parent.leaving)}
    words = []
    for name, wish in new.items():
        if name not in old:
            woken = wish.generation > 1 or name in placed
            words.append(f"deployment {wish.name} {'is back' if woken else 'created'}")
        elif old[name] != wish:
            words.append(_change(old[name], wish, holds.get(name)))
    words += [
        f"deployment {d.name} {'sleeps' if name in learnt.asleep else 'deleted'}"
        for name, d in old.items()
        if name not in new
    ]
    return words


def _change(before: Deployment, after: Deployment, hold: Hold | None) -> str:
    if before.generation != after.generation:
        return f"deployment {after.name} changed"
    if before.demand == after.demand:
        return f"{after.name} is held: {hold.reason}" if hold else f"{after.name} is not held any more"
    old, new = before.demand, after.demand
    words = f"demand of {after.name} {old.requests_per_s:.3g} → {new.requests_per_s:.3g} requests/s"
    if (old.prompt_tokens, old.output_tokens) != (new.prompt_tokens, new.output_tokens):
        words += (
            f", {old.prompt_tokens} + {old.output_tokens} → {new.prompt_tokens} + {new.output_tokens} tokens a request"
        )
    return words


def _nodes(before: Situation, after: Situation) -> list[str]:
    old = {n.node_id: n for n in before.nodes}
    words = []
    for node in after.nodes:
        was = old.get(node.node_id)
        if was is None or was.state is not node.state:
            words.append(f"node {node.node_id} is {node.state}")
        elif troubles := _troubles(was, node):
            words += troubles
        elif was.devices != node.devices or was.labels != node.labels:
            words.append(f"node {node.node_id} changed its devices or labels")
    here = {n.node_id for n in after.nodes}
    words += [f"node {name} is gone" for name in old if name not in here]
    return words


def _troubles(before: Node, after: Node) -> list[str]:
    """Layouts that a board would not take, and boards that may be cut again."""
    old = {d.device_id: d.layout_trouble for d in before.devices}
    changed = [d for d in after.devices if d.layout_trouble != old.get(d.device_id, "")]
    return [
        f"layout of {after.node_id} {d.device_id} failed: {d.layout_trouble}"
        if d.layout_trouble
        else f"{after.node_id} {d.device_id} may be cut as wished again"
        for d in changed
    ]
