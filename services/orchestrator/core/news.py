"""What is news: whether a situation would be planned otherwise, whether a plan says anything new. Decides nothing."""

from __future__ import annotations

from services.orchestrator.core.facts.explanation import Explanation
from services.orchestrator.core.facts.fleet import Device, Node
from services.orchestrator.core.facts.situation import Situation


def alike(situation: Situation, planned: Situation | None) -> bool:
    """Whether a plan would be the same. Reports of progress are left out, and what follows a plan: settings, sleep."""
    return (
        planned is not None
        and len(situation.nodes) == len(planned.nodes)
        and all(a is b or _outline(a) == _outline(b) for a, b in zip(situation.nodes, planned.nodes, strict=True))
        and (situation.deployments, situation.parent.blueprint_id) == (planned.deployments, planned.parent.blueprint_id)
        and (situation.catalog is planned.catalog or situation.catalog == planned.catalog)
        and (situation.budgets, situation.settled, situation.gone) == (planned.budgets, planned.settled, planned.gone)
        and _failures(situation) == _failures(planned)
    )


def _failures(situation: Situation) -> list[object]:
    return [q.key for q in situation.quarantined]


def _outline(node: Node) -> object:
    return (node.node_id, node.state, [_lasting(d) for d in node.devices], node.labels)


def _lasting(device: Device) -> object:
    """The device but for what follows the blueprint in force by itself and is told again at each look."""
    return (
        *(device.device_id, device.device_class, device.memory_bytes, device.cpu_ids, device.partitions),
        *(device.idle_power_mw, device.power_settings, device.table, device.can_sleep, device.price_per_hour),
        *(device.barred, device.kept, device.layout_trouble),
    )


def verdicts(explanations: tuple[Explanation, ...]) -> object:
    """What makes an explanation news."""

    def verdict(explanation: Explanation) -> object:
        options = [
            (c.variant_id, c.device_class, c.partition_kind, c.batch_limit, c.refusal, c.chosen)
            for c in explanation.candidates
        ]
        return (explanation.deployment_id, explanation.binding_limit, explanation.nearest_slo, sorted(options))

    return [verdict(explanation) for explanation in explanations]
