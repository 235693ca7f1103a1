"""Replicas that die, queues that fill, clients that leave, Redis that goes: what requests see of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.gateway.core.choice import capacity
from services.gateway.limits import CONNECT_WAIT_S, QUEUED_PER_PLACE
from tests.gateway.conftest import WAIT_S, World, until
from tests.gateway.fake_node import FakeNode, Script
from tradewind.domain.errors import Internal, InvalidField, Overloaded, ReplicaLost

ASK: list[Any] = [{"role": "user", "content": "hi"}]


async def metric(world: World, name: str, **labels: str) -> float:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{world.url}/metrics")).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


@pytest.mark.parametrize("error", [ReplicaLost("gone"), Overloaded("full")], ids=lambda e: e.reason)
async def test_a_replica_that_fails_before_its_first_token_is_replaced_by_another(
    world: World, error: ReplicaLost | Overloaded
) -> None:
    world.node.scripts["r-bad"] = bad = Script(ids=world.ids("bad"), error=error)
    world.node.scripts["r-good"] = Script(ids=world.ids("good"))
    # More places: it is chosen first.
    await world.deploy("chat", world.replica("r-bad", batch_limit=8), world.replica("r-good", batch_limit=1))
    answer = await world.client().chat.completions.create(model="chat", messages=ASK)
    assert answer.choices[0].message.content == "good"
    assert len(bad.requests) == 1
    assert await metric(world, "tradewind_gateway_retries_total", deployment="chat", reason=error.reason) == 1


async def test_a_conversation_stays_with_the_replica_that_holds_it(world: World) -> None:
    scripts = {name: Script(ids=world.ids("yes")) for name in ("r-a", "r-b")}
    world.node.scripts.update(scripts)
    await world.deploy("chat", *(world.replica(name, batch_limit=2) for name in scripts))
    talks: list[list[Any]] = [[{"role": "user", "content": f"{who} " * 30}] for who in ("one", "two", "six")]
    for _turn in range(3):
        for talk in talks[:2]:
            await world.client().chat.completions.create(model="chat", messages=talk)
            talk += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "go on " * 4}]
    asked = [[tuple(request.token_ids.ids[:60]) for request in script.requests] for script in scripts.values()]
    assert [len(set(prompts)) for prompts in asked] == [1, 1], "a conversation changed its replica"
    assert [len(prompts) for prompts in asked] == [3, 3]
    salted: Any = {"cache_salt": "mine"}
    await world.client().chat.completions.create(model="chat", messages=talks[2], extra_body=salted)
    assert [r.sampling.cache_salt for s in scripts.values() for r in s.requests if r.sampling.cache_salt] == ["mine"]


async def test_a_node_that_is_gone_is_replaced_by_another(world: World) -> None:
    world.node.scripts["r-good"] = Script(ids=world.ids("good"))
    lost = world.replica("r-lost", address="127.0.0.1:1", batch_limit=8)
    await world.deploy("chat", lost, world.replica("r-good", batch_limit=1))
    answer = await world.client().chat.completions.create(model="chat", messages=ASK)
    assert answer.choices[0].message.content == "good"


async def test_a_node_that_swallows_everything_is_replaced_by_another(world: World) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    world.node.scripts["r-good"] = Script(ids=world.ids("good"))
    silent = world.replica("r-silent", address=f"{host}:{port}", batch_limit=8)
    await world.deploy("chat", silent, world.replica("r-good", batch_limit=1))
    async with asyncio.timeout(5 * CONNECT_WAIT_S):
        answer = await world.client().chat.completions.create(model="chat", messages=ASK)
    assert answer.choices[0].message.content == "good"
    server.close()


async def test_a_replica_stopped_since_the_table_was_read_is_replaced(world: World) -> None:
    world.node.scripts["r-new"] = Script(ids=world.ids("new"))
    await world.deploy("chat", world.replica("r-stopped", batch_limit=8), world.replica("r-new", batch_limit=1))
    answer = await world.client().chat.completions.create(model="chat", messages=ASK)
    assert answer.choices[0].message.content == "new"


async def test_the_replicas_own_refusal_is_told_and_not_retried(world: World) -> None:
    script = await world.serve("x", error=InvalidField("sampling", "absurd"))
    with pytest.raises(openai.BadRequestError, match="absurd"):
        await world.client().chat.completions.create(model="chat", messages=ASK)
    script.error = Internal("broken")
    with pytest.raises(openai.InternalServerError, match="broken"):
        await world.client().chat.completions.create(model="chat", messages=ASK)
    assert len(script.requests) == 2


async def test_a_replica_that_dies_mid_stream_ends_it_with_an_error_event(world: World) -> None:
    await world.serve("one two three", error=ReplicaLost("the replica died"), fail_at=3)
    stream = await world.client().chat.completions.create(model="chat", messages=ASK, stream=True)
    text = ""
    with pytest.raises(openai.APIError, match="the replica died"):
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert text
    assert "one two three".startswith(text)
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{world.url}/v1/chat/completions", json={"model": "chat", "messages": ASK, "stream": True}
        )
    assert answer.status_code == 200
    assert '"code":"replica_lost"' in answer.text.split("\n\n")[-2]
    assert "[DONE]" not in answer.text
    with pytest.raises(openai.InternalServerError) as caught:
        await world.client().chat.completions.create(model="chat", messages=ASK)
    assert (caught.value.status_code, caught.value.code) == (503, "replica_lost")


async def test_a_node_killed_mid_stream_ends_it_with_an_error_event(world: World) -> None:
    other = FakeNode()
    address = await other.start()
    other.scripts["r-1"] = script = Script(ids=world.ids("one two three"), hold_at=3)
    await world.deploy("chat", world.replica("r-1", address=address))
    stream = await world.client().chat.completions.create(model="chat", messages=ASK, stream=True)
    await anext(aiter(stream))
    await script.started.wait()
    await other.server.stop(0)
    with pytest.raises(openai.APIError, match="does not answer"):
        async for _ in stream:
            pass


async def test_a_client_that_leaves_a_stream_frees_the_replica_at_once(world: World) -> None:
    script = await world.serve("one two three four", hold_at=2)
    stream = await world.client().chat.completions.create(model="chat", messages=ASK, stream=True)
    await anext(aiter(stream))
    assert await metric(world, "tradewind_gateway_requests_in_flight", deployment="chat") == 1
    await stream.close()
    await asyncio.wait_for(script.cancelled.wait(), 5)
    assert await metric(world, "tradewind_gateway_requests_in_flight", deployment="chat") == 0
    assert await metric(world, "tradewind_gateway_requests_total", deployment="chat", code="CANCELLED") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_token_frees_the_replica_at_once(
    world: World, stream: bool
) -> None:
    script = await world.serve("one", hold_at=0)
    body = {"model": "chat", "messages": ASK, "stream": stream}
    async with httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.post(f"{world.url}/v1/chat/completions", json=body))
        await asyncio.wait_for(script.started.wait(), WAIT_S)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await asyncio.wait_for(script.cancelled.wait(), 5)


async def test_a_swap_fails_no_request(world: World) -> None:
    """The only replica goes before the new one is there: the worst swap there is."""
    world.node.scripts["r-new"] = Script(ids=world.ids("new"))
    await world.deploy("chat", world.replica("r-old", draining=True))
    asking = asyncio.create_task(world.client().chat.completions.create(model="chat", messages=ASK))
    async with httpx.AsyncClient() as client:
        models = (await client.get(f"{world.url}/v1/models")).json()["data"]
    assert models[0]["ready"] is False
    await world.deploy("chat", world.replica("r-new"))
    assert (await asking).choices[0].message.content == "new"


@pytest.mark.parametrize("gateway_settings", [{"wait_ready_s": 0.3}])
async def test_no_ready_replica_says_so_after_a_while(world: World, gateway_settings: dict[str, object]) -> None:
    await world.deploy("chat")
    with pytest.raises(openai.InternalServerError) as caught:
        await world.client().chat.completions.create(model="chat", messages=ASK)
    assert (caught.value.status_code, caught.value.code) == (503, "no_ready_replica")
    assert "tradewind explain chat" in caught.value.message
    assert caught.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize("gateway_settings", [{"wait_ready_s": 0.1}])
async def test_a_request_for_a_sleeping_deployment_waits_and_is_told_of(
    world: World, gateway_settings: dict[str, object]
) -> None:
    await world.serve("hello")
    awake = world.routes["chat"]
    world.routes["chat"] = replace(awake, replicas=(), asleep=True)
    await world.publish()
    asking = asyncio.create_task(world.client().chat.completions.create(model="chat", messages=ASK))

    async def counted() -> bool:
        return any(d.queued == 1 for g in await world.live.traffic() for d in g.deployments if d.name == "chat")

    async with asyncio.timeout(10.0):
        while not await counted():
            assert not asking.done(), "it waits far beyond wait_ready_s"
            await asyncio.sleep(0.05)
    world.routes["chat"] = awake
    await world.publish()
    answer = await asking
    assert answer.choices[0].message.content == "hello"


async def test_too_many_requests_are_told_to_come_later(world: World) -> None:
    script = await world.serve("x", hold_at=0)
    # The name of the variant tells `deploy` that the new table has arrived.
    route = replace(world.routes["chat"].replicas[0], batch_limit=1, variant_name="one")
    await world.deploy("chat", route)
    room = capacity([route], QUEUED_PER_PLACE)
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=None)) as client:

        async def ask() -> httpx.Response:
            return await client.post(f"{world.url}/v1/chat/completions", json={"model": "chat", "messages": ASK})

        waiting = [asyncio.create_task(ask()) for _ in range(room)]
        await until(lambda: len(script.requests) == room, "all places and the queue are taken")
        refused = await ask()
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert refused.headers["retry-after"] == "1"
        script.resume.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


@pytest.mark.parametrize("gateway_settings", [{"request_limit_s": 0.5}])
async def test_the_request_limit_holds(world: World, gateway_settings: dict[str, object]) -> None:
    script = await world.serve("one two", hold_at=0)
    with pytest.raises(openai.InternalServerError) as caught:
        await world.client().chat.completions.create(model="chat", messages=ASK)
    assert (caught.value.status_code, caught.value.code) == (504, "timeout")
    assert 0 < script.deadlines_s[0] <= 0.5
    script.hold_at = 1
    stream = await world.client().chat.completions.create(model="chat", messages=ASK, stream=True)
    with pytest.raises(openai.APIError, match="not done in time"):
        async for _ in stream:
            pass


async def test_load_is_shared_by_batch_limit(world: World) -> None:
    scripts = {name: Script(ids=world.ids("x"), hold_at=0) for name in ("r-small", "r-large")}
    world.node.scripts |= scripts
    await world.deploy("chat", world.replica("r-small", batch_limit=2), world.replica("r-large", batch_limit=6))
    client = world.client()
    asking = [asyncio.create_task(client.completions.create(model="chat", prompt="x", max_tokens=1)) for _ in range(16)]
    await until(lambda: sum(len(s.requests) for s in scripts.values()) == 16, "all have arrived")
    assert {name: len(script.requests) for name, script in scripts.items()} == {"r-small": 4, "r-large": 12}
    for script in scripts.values():
        script.resume.set()
    await asyncio.gather(*asking)


async def test_the_text_side_is_fetched_once_and_lives_without_the_compiler(world: World) -> None:
    await world.serve("hello")
    client = world.client()
    await asyncio.gather(*(client.chat.completions.create(model="chat", messages=ASK) for _ in range(8)))
    assert world.compiler.calls.count("GetModel") == 1
    assert world.compiler.calls.count("FetchArtifact") == 2
    await world.compiler.server.stop(0)
    assert (await client.chat.completions.create(model="chat", messages=ASK)).choices[0].message.content == "hello"


async def test_a_damaged_artifact_is_refused(world: World) -> None:
    world.compiler.add("m-bad", {"tokenizer.json": "{}"})
    digest = world.compiler.models["m-bad"].files[0].digest
    world.compiler.artifacts[digest] = b"something else"
    await world.deploy("chat", world.replica("r-1"), model_id="m-bad")
    with pytest.raises(openai.InternalServerError, match="has other content"):
        await world.client().chat.completions.create(model="chat", messages=ASK)


async def test_a_model_the_compiler_lost_is_our_trouble_not_the_clients(world: World) -> None:
    await world.deploy("chat", world.replica("r-1"), model_id="m-unknown")
    with pytest.raises(openai.InternalServerError) as caught:
        await world.client().chat.completions.create(model="chat", messages=ASK)
    assert caught.value.status_code == 503
