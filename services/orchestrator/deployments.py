"""Writes of deployments: validate → plan → check → commit, each in one transaction with its answer."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.control import Control
from services.orchestrator.core.facts.variant import Admission
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.proposals import Proposal
from services.orchestrator.records import (
    DeploymentRecord,
    add_deployment,
    change_deployment,
    conflict,
    mark_deleting,
)
from services.orchestrator.refusals import refusal_of
from services.orchestrator.translate.blueprints import blueprint_message, explanation_message
from services.orchestrator.translate.wishes import wish_of
from services.orchestrator.validate import check_name, check_spec
from tradewind.domain.errors import AlreadyExists, InvalidField, NotFound, VariantRejected
from tradewind.store.requests import check_request_id, earlier_answer, remember_answer
from tradewind.v1 import compiler_pb2, orchestrator_pb2

SERVICE: Final = "orchestrator"
# After a restart a write waits so long for nodes to come back before it plans.
PATIENCE_S: Final = 25.0

M = TypeVar("M", bound=Message)


class DeploymentWrites:
    """Creates, changes, ends and previews deployments.

    Args:
        control: the control loop.
    """

    def __init__(self, control: Control) -> None:
        self._control = control

    async def create(
        self, request: orchestrator_pb2.CreateDeploymentRequest, time_left_s: float
    ) -> orchestrator_pb2.CreateDeploymentResponse:
        """See the contract."""
        kind = orchestrator_pb2.CreateDeploymentResponse
        check_request_id(request.request_id)
        check_name(request.name)
        if earlier := await self._earlier("CreateDeployment", request, kind):
            return earlier
        spec = await self._resolved(request.spec, time_left_s)
        deployment_id = f"dep-{uuid.uuid4().hex[:12]}"
        control = self._control
        async with control.exclusive():
            if earlier := await self._earlier("CreateDeployment", request, kind):
                return earlier
            self._refuse_taken(request.name)
            wish = self._wish(deployment_id, request.name, 1, spec)
            proposal = await control.propose((*control.register.wishes(), wish), about=deployment_id)
            self._refuse_infeasible(proposal, wish, spec, allowed=request.allow_infeasible)
            async with control.records.begin() as session:
                record = await add_deployment(session, deployment_id, request.name, spec)
                await control.proposals.write(session, f"deployment {request.name} created", proposal)
                response = kind(**self._shown(record, proposal))
                await self._remember(session, "CreateDeployment", request, response)
            control.register.deployments[deployment_id] = record
            control.adopt(proposal)
        return response

    async def update(
        self, request: orchestrator_pb2.UpdateDeploymentRequest, time_left_s: float
    ) -> orchestrator_pb2.UpdateDeploymentResponse:
        """See the contract. The same wish again changes nothing."""
        kind = orchestrator_pb2.UpdateDeploymentResponse
        check_request_id(request.request_id)
        if earlier := await self._earlier("UpdateDeployment", request, kind):
            return earlier
        self._current(request)
        spec = await self._resolved(request.spec, time_left_s)
        control = self._control
        async with control.exclusive():
            if earlier := await self._earlier("UpdateDeployment", request, kind):
                return earlier
            record = self._current(request)
            if record.spec == spec:
                explanation = control.register.explanations.get(record.deployment_id)
                return kind(deployment=control.showing.one(record), explanation=explanation)
            wish = self._wish(record.deployment_id, record.name, record.generation + 1, spec)
            wishes = tuple(wish if w.deployment_id == record.deployment_id else w for w in control.register.wishes())
            proposal = await control.propose(wishes, about=wish.deployment_id)
            self._refuse_infeasible(proposal, wish, spec, allowed=request.allow_infeasible)
            async with control.records.begin() as session:
                changed = await change_deployment(session, record.deployment_id, record.generation, spec)
                await control.proposals.write(session, f"deployment {record.name} changed", proposal)
                response = kind(**self._shown(changed, proposal))
                await self._remember(session, "UpdateDeployment", request, response)
            control.register.deployments[record.deployment_id] = changed
            control.adopt(proposal)
        return response

    async def delete(
        self, request: orchestrator_pb2.DeleteDeploymentRequest, time_left_s: float
    ) -> orchestrator_pb2.DeleteDeploymentResponse:
        """See the contract. Works also while the compiler is away."""
        kind = orchestrator_pb2.DeleteDeploymentResponse
        check_request_id(request.request_id)
        if earlier := await self._earlier("DeleteDeployment", request, kind):
            return earlier
        control = self._control
        control.register.find(request.deployment)
        await control.until_plannable(min(time_left_s, PATIENCE_S))
        async with control.exclusive():
            if earlier := await self._earlier("DeleteDeployment", request, kind):
                return earlier
            record = control.register.find(request.deployment)
            if record.deleting:
                return kind(deployment=control.showing.one(record))
            proposal = await control.propose(control.register.wishes(without=record.deployment_id))
            gone = replace(record, deleting=True)
            async with control.records.begin() as session:
                await mark_deleting(session, record.deployment_id)
                await control.proposals.write(session, f"deployment {record.name} deleted", proposal)
                response = kind(deployment=control.showing.one(gone))
                await self._remember(session, "DeleteDeployment", request, response)
            control.register.deployments[record.deployment_id] = gone
            control.adopt(proposal)
        return response

    async def preview(
        self, request: orchestrator_pb2.PreviewPlanRequest, time_left_s: float
    ) -> orchestrator_pb2.PreviewPlanResponse:
        """See the contract. An infeasible wish is an answer here, not an error."""
        check_name(request.name)
        spec = await self._resolved(request.spec, time_left_s)
        control = self._control
        async with control.exclusive():
            record = next((r for r in control.register.deployments.values() if r.name == request.name), None)
            if record is None or record.deleting:
                wish = self._wish("preview", request.name, 1, spec)
                wishes = (*control.register.wishes(), wish)
            else:
                same = record.spec == spec
                wish = self._wish(record.deployment_id, record.name, record.generation + (0 if same else 1), spec)
                wishes = tuple(
                    wish if w.deployment_id == record.deployment_id else w for w in control.register.wishes()
                )
            proposal = await control.propose(wishes, about=wish.deployment_id)
        explanation = proposal.plan.explanation_of(wish.deployment_id)
        response = orchestrator_pb2.PreviewPlanResponse(
            changes=[line for line in proposal.changes if not line.startswith("=")],
            explanation=explanation_message(explanation),
        )
        if explanation.feasible:
            response.blueprint.CopyFrom(blueprint_message(proposal.plan.blueprint))
        return response

    async def _resolved(
        self, spec: orchestrator_pb2.DeploymentSpec, time_left_s: float
    ) -> orchestrator_pb2.DeploymentSpec:
        """The spec, checked, with the variants it names as ids; reads the catalogue first."""
        check_spec(spec)
        control = self._control
        await control.catalogue.refresh()
        model = control.catalogue.model(spec.model)
        await control.until_plannable(max(min(time_left_s - 2.0, PATIENCE_S), 0.0))
        resolved = orchestrator_pb2.DeploymentSpec()
        resolved.CopyFrom(spec)
        if spec.pinned_variant_id:
            resolved.pinned_variant_id = self._named(spec.pinned_variant_id, model)
        del resolved.chain_variant_ids[:]
        resolved.chain_variant_ids.extend(self._named(name, model) for name in spec.chain_variant_ids)
        return resolved

    def _named(self, name: str, model: compiler_pb2.Model) -> str:
        """The id of a variant of the model that is asked for by id or name.

        Raises:
            NotFound: the model has no such variant.
            VariantRejected: it may not serve.
        """
        variants = self._control.catalogue.catalog.variants_of(model.model_id)
        found = next((v for v in variants if name in (v.variant_id, v.name)), None)
        if found is None:
            names = ", ".join(v.name for v in variants)
            raise NotFound("variant", name, f"{model.name} has: {names}" if names else "it has none")
        if found.admission in (Admission.REJECTED, Admission.FAILED):
            raise VariantRejected(
                f"{found.name} may not serve: {found.admission_reason}; pin another one or none",
                {"variant_id": found.variant_id, "state": str(found.admission)},
            )
        return found.variant_id

    def _wish(
        self, deployment_id: str, name: str, generation: int, spec: orchestrator_pb2.DeploymentSpec
    ) -> Deployment:
        model = self._control.catalogue.model(spec.model)
        return wish_of(deployment_id, name, generation, spec, model.model_id)

    def _refuse_taken(self, name: str) -> None:
        for record in self._control.register.deployments.values():
            if name in (record.name, record.deployment_id):
                how = "it is on its way out, retry in some seconds" if record.deleting else "update it"
                raise AlreadyExists(f"a deployment named {name!r} exists; choose another name or {how}", {"name": name})

    def _refuse_infeasible(
        self, proposal: Proposal, wish: Deployment, spec: orchestrator_pb2.DeploymentSpec, *, allowed: bool
    ) -> None:
        refusal = refusal_of(proposal.plan.explanation_of(wish.deployment_id), spec.model)
        if refusal is not None and not allowed:
            raise refusal

    def _current(self, request: orchestrator_pb2.UpdateDeploymentRequest) -> DeploymentRecord:
        record = self._control.register.find(request.deployment)
        if record.deleting:
            raise InvalidField("deployment", f"{record.name} is on its way out and cannot be changed")
        if request.expected_generation and request.expected_generation != record.generation:
            raise conflict(request.expected_generation, record.generation)
        return record

    def _shown(self, record: DeploymentRecord, proposal: Proposal) -> dict[str, Any]:
        explanation = explanation_message(proposal.plan.explanation_of(record.deployment_id))
        return {
            "deployment": self._control.showing.one(record, proposal.plan.blueprint, explanation),
            "explanation": explanation,
        }

    async def _earlier(self, method: str, request: Any, kind: type[M]) -> M | None:
        async with self._control.records.read() as session:
            return await earlier_answer(session, SERVICE, method, request.request_id, request, kind)

    async def _remember(self, session: AsyncSession, method: str, request: Any, response: Message) -> None:
        await remember_answer(session, SERVICE, method, request.request_id, request, response)
