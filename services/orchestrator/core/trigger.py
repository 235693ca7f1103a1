"""Words for what set a plan off: the difference between two situations. No decisions here."""

from __future__ import annotations

from services.orchestrator.core.situation import Situation


def trigger_words(before: Situation | None, after: Situation) -> str:
    """What changed, for the decision journal."""
    if before is None:
        return "start"
    words = [*_deployments(before, after), *_nodes(before, after)]
    if before.catalog.variants != after.catalog.variants:
        words.append("variants changed")
    if before.catalog.profiles != after.catalog.profiles:
        words.append("profiles changed")
    if before.budgets != after.budgets:
        words.append("power budgets changed")
    known = [(q.deployment_id, q.variant_id) for q in before.quarantined]
    for entry in after.quarantined:
        if (entry.deployment_id, entry.variant_id) not in known:
            words.append(f"variant {entry.variant_id} failed to start: {entry.reason}")
    if len(after.quarantined) < len(before.quarantined):
        words.append("a variant may be tried again")
    if before.gone != after.gone:
        words.append("replaced replicas ended")
    if before.settled != after.settled and not words:
        words.append("cool-down over" if len(after.settled) < len(before.settled) else "cool-down began")
    return "; ".join(words) or "blueprint committed"


def _deployments(before: Situation, after: Situation) -> list[str]:
    old = {d.deployment_id: d for d in before.deployments}
    new = {d.deployment_id: d for d in after.deployments}
    words = [f"deployment {d.name} created" for name, d in new.items() if name not in old]
    words += [f"deployment {d.name} deleted" for name, d in old.items() if name not in new]
    words += [f"deployment {d.name} changed" for name, d in new.items() if name in old and old[name] != d]
    return words


def _nodes(before: Situation, after: Situation) -> list[str]:
    old = {n.node_id: n for n in before.nodes}
    words = []
    for node in after.nodes:
        was = old.get(node.node_id)
        if was is None or was.state is not node.state:
            words.append(f"node {node.node_id} is {node.state}")
        elif was.devices != node.devices or was.labels != node.labels:
            words.append(f"node {node.node_id} changed its devices or labels")
    words += [f"node {name} is gone" for name in old if after.node(name) is None]
    return words
