"""Mistakes of clients: each a clear error in OpenAI's form, none of them reaches a replica."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest

from services.gateway.limits import MAX_BODY_BYTES
from tests.gateway.conftest import CONTEXT_TOKENS, World
from tests.gateway.tokenizers_made import byte_level

ASK: list[Any] = [{"role": "user", "content": "hi"}]


async def post(world: World, path: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"{world.url}/v1/{path}", **arguments)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error


async def test_unknown_model_lists_what_is_there(world: World) -> None:
    await world.serve("x")
    with pytest.raises(openai.NotFoundError) as caught:
        await world.client().chat.completions.create(model="chatt", messages=ASK)
    assert caught.value.code == "model_not_found"
    assert "deployed are: chat" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        await world.client().models.retrieve("nothing")


async def test_prompt_longer_than_the_context_says_the_numbers(world: World) -> None:
    script = await world.serve("x")
    with pytest.raises(openai.BadRequestError) as caught:
        await world.client().completions.create(model="chat", prompt=[9] * 300)
    assert caught.value.code == "context_length_exceeded"
    assert str(CONTEXT_TOKENS) in caught.value.message
    assert "300" in caught.value.message
    with pytest.raises(openai.BadRequestError, match="150 tokens in the prompt and 51 to generate"):
        await world.client().completions.create(model="chat", prompt=[9] * 150, max_tokens=51)
    await world.client().completions.create(model="chat", prompt=[9] * 150, max_tokens=50)
    assert len(script.requests) == 1


async def test_a_long_text_is_tokenised_aside_and_refused(world: World) -> None:
    await world.serve("x")
    with pytest.raises(openai.BadRequestError) as caught:
        await world.client().completions.create(model="chat", prompt="word " * 50_000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="at most 1000000"):
        await world.client().completions.create(model="chat", prompt="a" * 1_000_001)


BROKEN_BODIES = [
    (b'{"model": "chat", "prompt": "\xff\xfe"}', "invalid_encoding", "not UTF-8 (byte 29"),
    ('{"model": "chat"}'.encode("utf-16"), "invalid_encoding", "UTF-8"),
    (b'{"model": "chat", "prompt": ', "invalid_json", "not JSON"),
    (b"", "invalid_json", "not JSON"),
    (b"[1, 2]", "invalid_value", "the body"),
    (b'{"model": "chat", "prompt": "x", "temperature": NaN}', "invalid_json", "NaN"),
    (b'{"model": "chat", "prompt": "x", "temperature": 1e999}', "invalid_value", "temperature"),
    (b"[" * 100_000, "invalid_json", "nested"),
    (b'{"model": "chat", "prompt": "\\ud800"}', "invalid_value", "surrogate"),
]


async def test_broken_bodies(world: World) -> None:
    script = await world.serve("x")
    for content, code, words in BROKEN_BODIES:
        status, error = await post(world, "completions", content=content)
        assert (status, error["code"]) == (400, code), (content[:40], error)
        assert words in error["message"], (content[:40], error)
    assert not script.requests


async def test_huge_bodies_are_refused(world: World) -> None:
    status, error = await post(world, "completions", content=b"x" * (MAX_BODY_BYTES + 1))
    assert (status, error["code"]) == (413, "request_too_large")

    async def endless() -> Any:
        for _ in range(MAX_BODY_BYTES // 65_536 + 2):
            yield b" " * 65_536

    status, error = await post(world, "completions", content=endless())
    assert (status, error["code"]) == (413, "request_too_large")


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_fault_of_ours(world: World) -> None:
    host, port = world.gateway.http.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"model":')
    await writer.drain()
    # Half closed: the gateway sees the end of the body and may still answer, which ends the wait here.
    writer.write_eof()
    await asyncio.wait_for(reader.read(), 10)
    writer.close()
    async with httpx.AsyncClient() as client:
        assert "tradewind_gateway_faults_total 0.0" in (await client.get(f"{world.url}/metrics")).text


ABSURD_CHATS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 10**12}, "max_completion_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": "x" * 257}, "stop"),
    ({"seed": 2**65}, "seed"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"presence_penalty": 1.0}, "presence_penalty"),
    ({"frequency_penalty": 3.0}, "frequency_penalty"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
    ({"model": ""}, "model"),
    ({"model": 5}, "model"),
]
ABSURD_COMPLETIONS: list[tuple[dict[str, Any], str]] = [
    ({"echo": True}, "echo"),
    ({"suffix": "x"}, "suffix"),
    ({"best_of": 3}, "best_of"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": ["a"] * 9, "n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
]


async def test_absurd_parameters_of_a_chat(world: World) -> None:
    for change, param in ABSURD_CHATS:
        status, error = await post(world, "chat/completions", json={"model": "chat", "messages": ASK} | change)
        assert (status, error["type"]) == (400, "invalid_request_error"), (change, error)
        assert (error["param"] or "").split(".")[:3] == param.split("."), (change, error)
        assert error["message"], change


async def test_absurd_parameters_of_a_completion(world: World) -> None:
    for change, param in ABSURD_COMPLETIONS:
        status, error = await post(world, "completions", json={"model": "chat", "prompt": "x"} | change)
        assert (status, (error["param"] or "").split(".")[0]) == (400, param), (change, error)


async def test_unknown_tokens_and_empty_prompts(world: World) -> None:
    await world.serve("x")
    status, error = await post(world, "completions", json={"model": "chat", "prompt": [100_000]})
    assert (status, error["param"]) == (400, "prompt")
    assert "not in [0, " in error["message"]
    status, error = await post(world, "completions", json={"model": "chat", "prompt": ""})
    assert (status, error["param"]) == (400, "prompt")


async def test_unknown_and_harmless_parameters_are_ignored(world: World) -> None:
    await world.serve("fine")
    extra = {"user": "u1", "store": False, "metadata": {"a": "b"}, "wonder": 1, "tools": [], "presence_penalty": 0}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{world.url}/v1/chat/completions", json={"model": "chat", "messages": ASK} | extra)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "fine"


async def test_a_model_without_template_completes_and_does_not_chat(world: World) -> None:
    await world.serve("text")
    await world.deploy("plain", world.replica("r-chat"), model_id="m-plain")
    answer = await world.client().completions.create(model="plain", prompt="x")
    assert answer.choices[0].text == "text"
    with pytest.raises(openai.BadRequestError, match="has no chat template; use /v1/completions"):
        await world.client().chat.completions.create(model="plain", messages=ASK)


async def test_a_template_may_refuse(world: World) -> None:
    await world.serve("x")
    tokenizer = byte_level().to_str()
    sources = {
        "m-strict": "{{ raise_exception('roles must alternate') }}",
        "m-broken": "{% for %}",
        "m-curious": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "m-huge": "{{ 'x' * 100000000 }}",
        "m-wrong": "{{ messages[7]['content'] + 1 }}",
    }
    for model_id, source in sources.items():
        world.compiler.add(model_id, {"tokenizer.json": tokenizer, "chat_template.jinja": source})
        await world.deploy(model_id, world.replica("r-chat"), model_id=model_id)
        status, error = await post(world, "chat/completions", json={"model": model_id, "messages": ASK})
        assert (status, error["param"]) == (400, "messages"), model_id
    status, error = await post(world, "chat/completions", json={"model": "m-strict", "messages": ASK})
    assert "roles must alternate" in error["message"]


async def test_unknown_places_answer_in_the_same_form(world: World) -> None:
    status, error = await post(world, "embeddings", json={})
    assert (status, error["code"]) == (404, "unknown_url")
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{world.url}/v1/chat/completions")
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "unknown_url"


@pytest.mark.parametrize("gateway_settings", [{"api_keys": ("secret-one", "secret-two")}])
async def test_api_keys(world: World, gateway_settings: dict[str, object]) -> None:
    async with httpx.AsyncClient() as client:
        bare = await client.get(f"{world.url}/v1/models")
        assert bare.status_code == 401
        assert bare.json()["error"]["code"] == "invalid_api_key"
        assert bare.headers["www-authenticate"] == "Bearer"
        assert (await client.get(f"{world.url}/readyz")).status_code == 200
    with pytest.raises(openai.AuthenticationError):
        await world.client(api_key="secret-three").models.list()
    assert [m async for m in await world.client(api_key="secret-two").models.list()] == []
    assert "secret" not in str(world.settings.effective())
    assert "secret" not in repr(world.settings)
