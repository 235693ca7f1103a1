"""Everything that can be seen at a moment, put together for the core. Reads what others keep, and keeps nothing."""

from __future__ import annotations

from services.orchestrator.catalogue import Catalogue
from services.orchestrator.core.state import Observation
from services.orchestrator.links import Links
from services.orchestrator.listener import TrafficListener
from services.orchestrator.register import Register
from services.orchestrator.translate.work import power_of, queued_at, speeds_of


class Observer:
    """Where an observation comes from.

    Args:
        register: wishes and blueprint.
        links: nodes.
        catalogue: what can be chosen from.
        listener: traffic as gateways tell it.
    """

    def __init__(self, register: Register, links: Links, catalogue: Catalogue, listener: TrafficListener) -> None:
        self._register, self._links, self._catalogue, self._listener = register, links, catalogue, listener

    def observe(self) -> Observation:
        """What can be seen now."""
        register, links = self._register, self._links.all()
        wishes = register.wishes()
        return Observation(
            deployments=wishes,
            nodes=self._links.sights(),
            traffic=self._listener.traffic({w.name: w.deployment_id for w in wishes}, queued_at(links)),
            power=power_of(links),
            speeds=speeds_of(links),
            catalog=self._catalogue.catalog,
            blueprint=register.blueprint,
            budgets=register.limits(),
            draining=register.draining,
            catalog_known=self._catalogue.known,
        )
