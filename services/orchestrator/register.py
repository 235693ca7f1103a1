"""What is wished and what is in force, in memory as PostgreSQL has it; changed once it is committed, or read anew."""

from __future__ import annotations

import contextlib

from services.orchestrator.catalogue import Catalogue
from services.orchestrator.core.facts.blueprint import Blueprint
from services.orchestrator.core.facts.fleet import Budget
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.plan import Plan
from services.orchestrator.departed import Gone
from services.orchestrator.records import DeploymentRecord, Records
from services.orchestrator.translate.blueprints import blueprint_of, explanation_message
from services.orchestrator.translate.wishes import wish_of
from tradewind.domain.errors import NotFound, ServiceUnavailable
from tradewind.v1 import orchestrator_pb2


class Register:
    """Deployments, blueprint, drains, budgets, explanations and nodes that are gone.

    Args:
        records: PostgreSQL.
        catalogue: for the models that wishes name.

    Attributes:
        loaded: whether it was read once.
    """

    def __init__(self, records: Records, catalogue: Catalogue) -> None:
        self.records, self._catalogue = records, catalogue
        self.loaded = False
        self.blueprint = Blueprint("", 0, "")
        self.deployments: dict[str, DeploymentRecord] = {}
        self.draining: tuple[str, ...] = ()
        self.budgets: dict[str, int] = {}
        self.gone: tuple[Gone, ...] = ()
        self.explanations: dict[str, orchestrator_pb2.Explanation] = {}

    async def load(self) -> None:
        """Reads what is stored.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer; what was known stays.
        """
        stored = await self.records.load()
        self.deployments = {record.deployment_id: record for record in stored.deployments}
        self.blueprint = blueprint_of(stored.blueprint)
        self.draining, self.budgets = stored.draining, dict(stored.budgets)
        self.gone = stored.gone
        self.explanations = stored.explanations
        self.loaded = True

    def require_loaded(self) -> None:
        """Refuses while nothing was read yet.

        Raises:
            ServiceUnavailable: it just started.
        """
        if not self.loaded:
            raise ServiceUnavailable("the orchestrator just started and reads what is stored; retry in a second")

    def adopt(self, plan: Plan) -> None:
        """A committed plan is in force."""
        self.blueprint = plan.blueprint
        self.explanations.update({e.deployment_id: explanation_message(e) for e in plan.explanations})

    def forget(self, deployment_id: str) -> None:
        """A deployment is gone."""
        del self.deployments[deployment_id]
        self.explanations.pop(deployment_id, None)

    def ended(self, gone: tuple[str, ...]) -> list[str]:
        """Deployments on their way out of which nothing is left.

        Args:
            gone: replaced replicas that have ended.
        """
        return [
            name
            for name, record in self.deployments.items()
            if record.deleting
            and not self.blueprint.of(name)
            and all(r.replica_id in gone for r in self.blueprint.leaving_of(name))
        ]

    def limits(self) -> tuple[Budget, ...]:
        """Power budgets, by scope."""
        return tuple(Budget(scope, float(limit)) for scope, limit in sorted(self.budgets.items()))

    def wishes(self, *, without: str = "") -> tuple[Deployment, ...]:
        """Wishes in force, oldest first; `without` leaves one deployment out."""
        return tuple(
            self.wish(record)
            for record in self.deployments.values()
            if not record.deleting and record.deployment_id != without
        )

    def wish(self, record: DeploymentRecord) -> Deployment:
        """A record as a wish. A model that is not known (any more) has no variants: the wish keeps what runs."""
        model_id = self._model_id(record)
        return wish_of(record.deployment_id, record.name, record.generation, record.spec, model_id)

    def find(self, name: str) -> DeploymentRecord:
        """A deployment by name or id.

        Raises:
            NotFound: there is none.
            ServiceUnavailable: nothing was read yet.
        """
        self.require_loaded()
        for record in self.deployments.values():
            if name in (record.deployment_id, record.name):
                return record
        names = ", ".join(sorted(r.name for r in self.deployments.values()))
        raise NotFound("deployment", name, f"there are: {names}" if names else "there are none")

    def _model_id(self, record: DeploymentRecord) -> str:
        with contextlib.suppress(NotFound, ServiceUnavailable):
            return self._catalogue.model(record.spec.model).model_id
        running = (*self.blueprint.of(record.deployment_id), *self.blueprint.leaving_of(record.deployment_id))
        return running[0].model_id if running else record.spec.model
