"""The main job over the real wire: a deployment is planned, placed, served, changed, explained, ended."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.orchestrator.fake_agent import FakeAgent
from tests.orchestrator.stand import Stand, make_spec, new_id, standing, until
from tradewind.store.live import LiveState
from tradewind.v1 import node_pb2, orchestrator_pb2

READY = orchestrator_pb2.DEPLOYMENT_STATE_READY


@pytest.fixture
async def stand(database_url: str, redis_url: str) -> AsyncIterator[Stand]:
    async with standing(database_url, redis_url) as stand:
        yield stand


async def test_deploy_serve_explain_delete(stand: Stand, redis_url: str) -> None:
    live = LiveState(redis_url)
    async with FakeAgent(stand.address) as agent:
        await stand.until_node("n1", orchestrator_pb2.NODE_STATE_ACTIVE)
        made = await stand.deploy(ttft=300)
        assert made.explanation.candidates[0].chosen
        assert made.explanation.candidates[0].variant_name == "lean", "least energy that keeps 300 ms"
        deployment = await stand.until_state(READY)
        assert deployment.generation == deployment.observed_generation == 1
        assert deployment.variant_ids == ["sha256:lean"]

        async def routed() -> bool:
            routes = await live.routes()
            return "chat" in routes and len(routes["chat"].replicas) == 1

        await until(routed, "a route to the replica")
        route = (await live.routes())["chat"]
        assert (route.context_tokens, route.model_id) == (512, "sha256:tiny")
        assert route.replicas[0].address == "n1:7410"
        assert route.replicas[0].variant_name == "lean"
        assert [report.node_id for report in await live.nodes()] == ["n1"]

        explained = await stand.call("ExplainDeployment", orchestrator_pb2.ExplainDeploymentRequest(deployment="chat"))
        words = {
            (c.variant_name, c.point.partition_kind, c.point.batch_limit): c for c in explained.explanation.candidates
        }
        assert len(words) == 12, "two variants × two partition kinds × three batch limits"
        assert "dearer" in words["fast", "cpu/2", 4].reason
        decisions = await stand.call("ListDecisions", orchestrator_pb2.ListDecisionsRequest(deployment="chat"))
        assert [d.trigger for d in decisions.decisions] == ["deployment chat created"]

        await stand.call(
            "DeleteDeployment", orchestrator_pb2.DeleteDeploymentRequest(request_id=new_id(), deployment="chat")
        )
        await until(lambda: not agent.replicas, "the replica to end", agent.states)
        intents = [[(r.replica_id, r.intent) for r in t.replicas] for t in agent.targets]
        assert any(i == node_pb2.REPLICA_INTENT_DRAIN for t in intents for _, i in t), "drained before it was stopped"

        async def forgotten() -> bool:
            answer = await stand.call("ListDeployments", orchestrator_pb2.ListDeploymentsRequest())
            return not answer.deployments and not await live.routes()

        await until(forgotten, "the deployment to be forgotten")
    await live.close()


async def test_a_swap_is_make_before_break(stand: Stand) -> None:
    async with FakeAgent(stand.address, cores=2) as agent:
        await stand.until_node("n1", orchestrator_pb2.NODE_STATE_ACTIVE)
        await stand.deploy(ttft=300)
        await stand.until_state(READY)
        old = next(iter(agent.replicas))
        preview = await stand.call(
            "PreviewPlan", orchestrator_pb2.PreviewPlanRequest(name="chat", spec=make_spec(ttft=80))
        )
        assert [line[0] for line in preview.changes if line[0] in "+-"] == ["+", "-"]
        assert any("shares cores for the moment" in line for line in preview.changes), preview.changes
        request = orchestrator_pb2.UpdateDeploymentRequest(
            request_id=new_id(), deployment="chat", spec=make_spec(ttft=80), expected_generation=1
        )
        answer = await stand.call("UpdateDeployment", request)
        assert answer.deployment.generation == 2
        await until(lambda: old not in agent.replicas, "the old replica to end", agent.states)
        deployment = await stand.until_state(READY)
        assert deployment.variant_ids == ["sha256:fast"]
        new = next(iter(agent.replicas))
        both = [t for t in agent.targets if {r.replica_id for r in t.replicas} == {old, new}]
        assert both[0].replicas, "for a while both are wanted"
        assert all(r.intent == node_pb2.REPLICA_INTENT_SERVE for r in both[0].replicas), "first both serve"
        assert {r.replica_id: r.intent for r in both[-1].replicas}[old] == node_pb2.REPLICA_INTENT_DRAIN
        assert not agent.stale


async def test_a_wish_kept_is_met_when_a_node_comes_and_watchers_see_it(stand: Stand) -> None:
    call = stand.watch("chat")
    assert list((await call.read()).deployments) == []
    made = await stand.deploy(allow_infeasible=True)
    assert made.explanation.binding_limit == "NO_DEVICE"
    seen = [d.state for d in (await call.read()).deployments]
    async with FakeAgent(stand.address):
        while seen[-1] != READY:
            seen += [d.state for d in (await call.read()).deployments]
    call.cancel()
    assert seen[0] == orchestrator_pb2.DEPLOYMENT_STATE_INFEASIBLE


async def test_better_variants_and_profiles_are_taken_up_by_themselves(stand: Stand) -> None:
    async with FakeAgent(stand.address):
        await stand.until_node("n1", orchestrator_pb2.NODE_STATE_ACTIVE)
        await stand.deploy(ttft=300)
        await stand.until_state(READY)
        stand.shelf.put("leanest", ttft_ms=200, tpot_ms=40, energy_mj=60)

        async def swapped() -> bool:
            deployment = await stand.deployment()
            return deployment.state == READY and list(deployment.variant_ids) == ["sha256:leanest"]

        await until(swapped, "the swap to the better variant")
        decisions = await stand.call("ListDecisions", orchestrator_pb2.ListDecisionsRequest())
        triggers = [d.trigger for d in decisions.decisions]
        assert any("variants changed" in t or "profiles changed" in t for t in triggers), triggers
