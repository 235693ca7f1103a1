"""Bad wishes get a clear error with its reason and lose nothing; infeasible ones name what would do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.orchestrator.fake_agent import FakeAgent
from tests.orchestrator.stand import Stand, make_spec, new_id, standing, until
from tradewind.domain.errors import RemoteError
from tradewind.v1 import common_pb2, compiler_pb2, orchestrator_pb2

TTFT, TPOT, E2E = (
    common_pb2.LATENCY_METRIC_TTFT,
    common_pb2.LATENCY_METRIC_TPOT,
    common_pb2.LATENCY_METRIC_E2E,
)


@pytest.fixture
async def stand(database_url: str, redis_url: str) -> AsyncIterator[Stand]:
    async with standing(database_url, redis_url) as stand, FakeAgent(stand.address):
        await stand.until_node("n1", orchestrator_pb2.NODE_STATE_ACTIVE)
        yield stand


def limits(*given: tuple[Any, float, float], **others: Any) -> dict[str, Any]:
    rows = [common_pb2.LatencyLimit(metric=m, percentile=p, limit_ms=v) for m, p, v in given]
    return {"slo": common_pb2.Slo(latency=rows, **others)}


def demand(**fields: Any) -> dict[str, Any]:
    return {"demand": common_pb2.Demand(**fields)}


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("negative limit", limits((TTFT, 95, -1)), "limit_ms"),
    ("zero limit", limits((TTFT, 95, 0)), "limit_ms"),
    ("NaN limit", limits((TTFT, 95, math.nan)), "limit_ms"),
    ("endless limit", limits((TTFT, 95, math.inf)), "limit_ms"),
    ("percentile 0", limits((TTFT, 0, 100)), "percentile"),
    ("percentile 100", limits((TTFT, 100, 100)), "percentile"),
    ("percentile NaN", limits((TTFT, math.nan, 100)), "percentile"),
    ("no metric", limits((common_pb2.LATENCY_METRIC_UNSPECIFIED, 95, 100)), "metric"),
    ("limit twice", limits((TTFT, 95, 100), (TTFT, 95, 200)), "latency[1]"),
    ("p99 below p95", limits((TTFT, 95, 300), (TTFT, 99, 200)), "latency"),
    ("TTFT above E2E", limits((TTFT, 95, 500), (E2E, 95, 300)), "latency"),
    ("energy 0", limits(energy_per_token_mj=0.0), "energy_per_token_mj"),
    ("energy NaN", limits(energy_per_token_mj=math.nan), "energy_per_token_mj"),
    ("power below 0", limits(power_mw=-5.0), "power_mw"),
    ("agreement 1.5", limits(min_top1_agreement=1.5), "min_top1_agreement"),
    ("perplexity below 0", limits(max_perplexity_increase=-0.1), "max_perplexity_increase"),
    ("availability 1", limits(availability=1.0), "availability"),
    ("negative demand", demand(requests_per_s=-1), "requests_per_s"),
    ("NaN demand", demand(requests_per_s=math.nan), "requests_per_s"),
    ("absurd demand", demand(requests_per_s=1e9), "requests_per_s"),
    ("absurd prompt", demand(prompt_tokens=4_000_000_000), "prompt_tokens"),
    ("min above max", {"min_replicas": 3, "max_replicas": 2}, "min_replicas"),
    ("absurd replicas", {"min_replicas": 1_000_000}, "min_replicas"),
    ("pin and chain", {"pinned_variant_id": "fast", "chain_variant_ids": ["lean"]}, "chain_variant_ids"),
    ("link twice", {"chain_variant_ids": ["fast", "lean", "fast"]}, "chain_variant_ids"),
    ("endless chain", {"chain_variant_ids": [str(n) for n in range(17)]}, "chain_variant_ids"),
    ("no model", {"model": ""}, "model"),
    ("no such objective", {"objective": 77}, "objective"),
]


async def test_a_wish_that_makes_no_sense_names_the_field(stand: Stand) -> None:
    for what, spec, field in BAD:
        with pytest.raises(RemoteError) as refused:
            await stand.deploy(**spec)
        assert (refused.value.remote_reason, refused.value.status) == ("INVALID_FIELD", "INVALID_ARGUMENT"), what
        assert field in refused.value.metadata["field"], what
    for name in ("", "a" * 64, "-chat", "ch at", "chat/1", "чат", "a\n"):
        with pytest.raises(RemoteError) as refused:
            await stand.deploy(name)
        assert refused.value.metadata == {"field": "name"}, name
    answer = await stand.call("ListDeployments", orchestrator_pb2.ListDeploymentsRequest())
    assert not answer.deployments


async def test_what_does_not_exist_lists_what_does(stand: Stand) -> None:
    for work, word in (
        (stand.deploy(model="smollm3"), "there are: tiny"),
        (stand.deploy(pinned_variant_id="sha256:nothing"), "tiny has: fast, lean"),
        (stand.deployment("nobody"), "there are none"),
        (stand.call("DrainNode", orchestrator_pb2.DrainNodeRequest(request_id=new_id(), node_id="n9")), "n1"),
    ):
        with pytest.raises(RemoteError, match=word) as refused:
            await work
        assert refused.value.remote_reason == "NOT_FOUND"


async def test_pinned_variants(stand: Stand) -> None:
    stand.shelf.put("wrong", state=compiler_pb2.VARIANT_STATE_REJECTED)
    with pytest.raises(RemoteError, match=r"KL divergence 9.1 nats") as refused:
        await stand.deploy(pinned_variant_id="sha256:wrong")
    assert refused.value.remote_reason == "VARIANT_REJECTED"
    made = await stand.deploy(pinned_variant_id="fast")
    assert made.deployment.spec.pinned_variant_id == "sha256:fast", "a name is taken too"
    assert made.explanation.candidates[0].variant_name == "fast"


async def test_chains(stand: Stand) -> None:
    with pytest.raises(RemoteError, match="tiny has: fast, lean"):
        await stand.deploy(chain_variant_ids=["fast", "nothing"])
    made = await stand.deploy(chain_variant_ids=["fast", "lean"])
    assert list(made.deployment.spec.chain_variant_ids) == ["sha256:fast", "sha256:lean"], "names are taken too"
    refusals = {(c.variant_name, c.refusal) for c in made.explanation.candidates if not c.chosen and c.refusal}
    assert ("lean", "EARLIER_LINK") in refusals, "though it costs less"
    assert {c.variant_name for c in made.explanation.candidates if c.chosen} == {"fast"}


async def test_without_profiles_it_says_what_to_run(stand: Stand) -> None:
    stand.shelf.variants.clear()
    stand.shelf.profiles.clear()
    stand.shelf.put("new", profiled=False)
    with pytest.raises(RemoteError) as refused:
        await stand.deploy()
    assert refused.value.remote_reason == "PROFILE_MISSING"
    assert refused.value.metadata["hint"] == "tradewind profile run tiny"


async def test_infeasible_names_the_limit_and_the_nearest_which_is_then_met(stand: Stand) -> None:
    with pytest.raises(RemoteError) as refused:
        await stand.deploy(ttft=10)
    error = refused.value
    assert (error.remote_reason, error.status) == ("SLO_INFEASIBLE", "FAILED_PRECONDITION")
    assert error.metadata["binding_limit"] == "TTFT_LIMIT"
    nearest = float(error.metadata["nearest_ttft_p95_ms"])
    assert nearest > 50, "two cores of the fast variant take about 57 ms"
    assert f"{nearest:g} ms" in error.message and "Ask for the nearest" in error.message
    made = await stand.deploy(ttft=nearest)
    assert made.explanation.binding_limit == ""


async def test_too_much_demand_says_how_much_would_do(stand: Stand) -> None:
    with pytest.raises(RemoteError) as refused:
        await stand.deploy(ttft=400, rate=1000)
    assert refused.value.metadata["binding_limit"] in ("CAPACITY", "TTFT_LIMIT")
    most = float(refused.value.metadata["nearest_requests_per_s"])
    made = await stand.deploy(ttft=400, rate=most)
    assert made.explanation.candidates[0].chosen
    await stand.until_state(orchestrator_pb2.DEPLOYMENT_STATE_READY)
    more = make_spec(ttft=400, rate=1000)
    with pytest.raises(RemoteError) as refused:
        await stand.call(
            "UpdateDeployment",
            orchestrator_pb2.UpdateDeploymentRequest(request_id=new_id(), deployment="chat", spec=more),
        )
    assert refused.value.remote_reason == "SLO_INFEASIBLE", "not planned for what was provisioned before"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"min_replicas": 500}, "at least 500 replicas are asked for, the nodes take at most"),
        ({"node_selector": {"zone": "x"}}, "no node with the labels asked for"),
    ],
)
async def test_what_no_other_limit_would_help_is_refused_without_a_nearest(
    stand: Stand, wanted: dict[str, Any], words: str
) -> None:
    with pytest.raises(RemoteError) as refused:
        await stand.deploy(**wanted)
    message = refused.value.message
    assert words in message and "Ask for the nearest" not in message
    assert ("More devices would do: +1 cpu:test" in message) == ("node_selector" in wanted)


async def test_an_infeasible_wish_can_be_kept(stand: Stand) -> None:
    made = await stand.deploy(ttft=10, allow_infeasible=True)
    assert made.deployment.state == orchestrator_pb2.DEPLOYMENT_STATE_INFEASIBLE
    assert "TTFT" in made.deployment.state_reason
    assert made.explanation.nearest_slo.latency[0].limit_ms > 50


async def test_writes_are_idempotent_and_compared(stand: Stand) -> None:
    request = orchestrator_pb2.CreateDeploymentRequest(request_id="r1", name="chat", spec=make_spec(ttft=300))
    first = await stand.call("CreateDeployment", request)
    assert await stand.call("CreateDeployment", request) == first
    with pytest.raises(RemoteError) as refused:
        await stand.call(
            "CreateDeployment", orchestrator_pb2.CreateDeploymentRequest(request_id="r1", name="b", spec=make_spec())
        )
    assert refused.value.remote_reason == "REQUEST_ID_REUSED"
    with pytest.raises(RemoteError) as refused:
        await stand.deploy("chat")
    assert refused.value.remote_reason == "ALREADY_EXISTS"
    with pytest.raises(RemoteError) as refused:
        await stand.call(
            "UpdateDeployment",
            orchestrator_pb2.UpdateDeploymentRequest(
                request_id=new_id(), deployment="chat", spec=make_spec(), expected_generation=7
            ),
        )
    assert refused.value.remote_reason == "GENERATION_CONFLICT"
    assert refused.value.metadata == {"expected": "7", "actual": "1"}
    same = orchestrator_pb2.UpdateDeploymentRequest(request_id=new_id(), deployment="chat", spec=make_spec(ttft=300))
    assert (await stand.call("UpdateDeployment", same)).deployment.generation == 1, "the same wish changes nothing"
    with pytest.raises(RemoteError) as refused:
        await stand.call("CreateDeployment", orchestrator_pb2.CreateDeploymentRequest(name="c", spec=make_spec()))
    assert refused.value.metadata == {"field": "request_id"}


async def test_of_two_operators_who_change_one_deployment_at_once_one_wins_and_the_other_is_told(stand: Stand) -> None:
    await stand.deploy("chat", ttft=300)
    changes = [
        orchestrator_pb2.UpdateDeploymentRequest(
            request_id=new_id(), deployment="chat", spec=make_spec(ttft=ttft), expected_generation=1
        )
        for ttft in (250, 280)
    ]
    answers = await asyncio.gather(
        *(stand.call("UpdateDeployment", change) for change in changes), return_exceptions=True
    )
    won = [answer for answer in answers if not isinstance(answer, BaseException)]
    told = [answer for answer in answers if isinstance(answer, RemoteError)]
    assert (len(won), len(told)) == (1, 1), answers
    assert (told[0].remote_reason, told[0].metadata) == ("GENERATION_CONFLICT", {"expected": "1", "actual": "2"})
    now = await stand.call("GetDeployment", orchestrator_pb2.GetDeploymentRequest(deployment="chat"))
    assert now.deployment.spec == won[0].deployment.spec, "what the loser asked for is nowhere"
    assert now.deployment.generation == 2


async def test_power_budgets_bind_when_work_is_placed(stand: Stand) -> None:
    async def limit(scope: str, limit_mw: int) -> Any:
        request = orchestrator_pb2.SetPowerBudgetRequest(request_id=new_id(), scope=scope, limit_mw=limit_mw)
        return await stand.call("SetPowerBudget", request)

    # The device idles at 10 W; one more watt is not enough for 2 requests/s of 32 tokens.
    await limit("node/n1", 11_000)
    with pytest.raises(RemoteError) as refused:
        await stand.deploy(rate=1.0)
    assert refused.value.metadata["binding_limit"] == "POWER_BUDGET"
    await limit("node/n1", 0)
    await stand.deploy(rate=1.0, objective=common_pb2.OBJECTIVE_LATENCY)

    async def serves(variant: str) -> bool:
        return list((await stand.deployment()).variant_ids) == [f"sha256:{variant}"]

    await until(lambda: serves("fast"), "the fast variant to serve")
    # 32 tokens a second of 0.4 J fit no more, of 0.25 J they do: running work moves.
    await limit("node/n1", 20_000)
    await until(lambda: serves("lean"), "the lean variant to serve")
    await limit("node/n1", 5_000)
    assert await serves("lean"), "a budget takes nothing down"
    for scope in ("rack/1", "node/", "device/n1", ""):
        with pytest.raises(RemoteError) as refused:
            await limit(scope, 5)
        assert refused.value.metadata == {"field": "scope"}
    with pytest.raises(RemoteError) as refused:
        await limit("device/n1/gpu7", 5)
    assert refused.value.remote_reason == "NOT_FOUND"


async def test_pages(stand: Stand) -> None:
    for name in ("a", "b", "c"):
        await stand.deploy(name)
    first = await stand.call("ListDeployments", orchestrator_pb2.ListDeploymentsRequest(page_size=2))
    assert [d.name for d in first.deployments] == ["a", "b"]
    rest = orchestrator_pb2.ListDeploymentsRequest(page_size=2, page_token=first.next_page_token)
    second = await stand.call("ListDeployments", rest)
    assert ([d.name for d in second.deployments], second.next_page_token) == (["c"], "")
    decisions = await stand.call("ListDecisions", orchestrator_pb2.ListDecisionsRequest(page_size=2))
    assert [d.trigger for d in decisions.decisions] == ["deployment c created", "deployment b created"]
    more = orchestrator_pb2.ListDecisionsRequest(page_size=2, page_token=decisions.next_page_token)
    assert (await stand.call("ListDecisions", more)).decisions[0].trigger == "deployment a created"
