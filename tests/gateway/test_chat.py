"""Chats and completions with the stock openai client, streaming and not."""

from __future__ import annotations

import asyncio

import httpx
import openai
import pytest

from tests.gateway.conftest import VARIANT_ID, World
from tests.gateway.fake_node import ENERGY_PER_TOKEN_MJ, METHOD

ASK = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "Paris 🎉 is the capital; naïve café, 東京 👩‍👩‍👧‍👦."


async def test_a_chat_in_one_piece(world: World) -> None:
    script = await world.serve(ANSWER)
    answer = await world.client().chat.completions.create(model="chat", messages=ASK, temperature=0, seed=7)
    choice = answer.choices[0]
    assert choice.message.content == ANSWER
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert answer.system_fingerprint == f"f32/cpu-host@{VARIANT_ID[7:19]}"
    prompt = world.model.encode(world.model.render(ASK), special=False)
    assert list(script.requests[0].token_ids.ids) == prompt
    assert script.requests[0].sampling.temperature == 0
    assert script.requests[0].sampling.seed == 7
    usage = answer.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt), len(script.ids))
    assert usage.total_tokens == len(prompt) + len(script.ids)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == len(prompt) // 2
    extra = usage.model_extra or {}
    assert extra["energy_mj"] == pytest.approx(ENERGY_PER_TOKEN_MJ * len(script.ids))
    assert (extra["energy_source"], extra["energy_method"]) == ("modelled", METHOD)


async def test_a_streamed_chat_holds_no_half_characters(world: World) -> None:
    script = await world.serve(ANSWER)
    stream = await world.client().chat.completions.create(
        model="chat", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == ANSWER
    assert not any("\ufffd" in text for text in texts)
    assert len([text for text in texts if text]) > 10, "it came in pieces"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(script.ids)
    assert (chunks[-1].usage.model_extra or {})["energy_source"] == "modelled"
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_synchronous_client(world: World) -> None:
    await world.serve("hello there")

    def ask() -> tuple[str, str]:
        with openai.OpenAI(base_url=f"{world.url}/v1", api_key="unused", max_retries=0) as client:
            whole = client.chat.completions.create(model="chat", messages=ASK)
            pieces = client.completions.create(model="chat", prompt="say", max_tokens=50, stream=True)
            return whole.choices[0].message.content or "", "".join(piece.choices[0].text for piece in pieces)

    assert await asyncio.to_thread(ask) == ("hello there", "hello there")


async def test_the_stream_ends_with_done(world: World) -> None:
    await world.serve("hi")
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{world.url}/v1/chat/completions", json={"model": "chat", "messages": ASK, "stream": True}
        )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-tradewind-variant"] == f"f32/cpu-host {VARIANT_ID}"
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert '"usage"' not in answer.text, "figures are sent only when asked for"


async def test_content_parts_and_developer_role(world: World) -> None:
    script = await world.serve("ok")
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "ok"}]},
    ]
    await world.client().chat.completions.create(model="chat", messages=messages)
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say ok"}]
    assert list(script.requests[0].token_ids.ids) == world.model.encode(world.model.render(plain), special=False)


async def test_max_tokens_cuts_and_says_length(world: World) -> None:
    script = await world.serve("one two three four five")
    answer = await world.client().chat.completions.create(model="chat", messages=ASK, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    assert script.requests[0].sampling.max_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_text_over_token_borders_never_leaks(world: World, stream: bool) -> None:
    text = "first line\nEND of it and much more"
    script = await world.serve(text, hold_at=len(text))
    assert len(script.ids) > 0
    client = world.client()
    # Teaches the gateway what a token of this variant costs.
    await client.completions.create(model="chat", prompt="x", max_tokens=5)
    options = {"model": "chat", "messages": ASK, "stop": ["\nEND of", "never"]}
    if stream:
        chunks = await client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **options)
        seen = [chunk async for chunk in chunks]
        out = "".join(chunk.choices[0].delta.content or "" for chunk in seen if chunk.choices)
        reason = [chunk.choices[0].finish_reason for chunk in seen if chunk.choices][-1]
        usage = seen[-1].usage
    else:
        answer = await client.chat.completions.create(**options)
        out, reason, usage = answer.choices[0].message.content, answer.choices[0].finish_reason, answer.usage
    assert (out, reason) == ("first line", "stop")
    assert usage is not None
    assert 0 < usage.completion_tokens < len(script.ids)
    extra = usage.model_extra or {}
    assert (extra["energy_source"], extra["energy_method"]) == ("modelled", "gateway-mean-per-token@1")
    assert extra["energy_mj"] > 0


async def test_a_stop_text_frees_the_replica(world: World) -> None:
    ids = world.ids("go STOP")
    script = await world.serve("go STOP and on", hold_at=len(ids))
    answer = await world.client().completions.create(model="chat", prompt="x", stop="STOP", max_tokens=50)
    assert answer.choices[0].text == "go "
    await asyncio.wait_for(script.cancelled.wait(), 5)
    extra = answer.usage.model_extra if answer.usage else {}
    assert (extra or {})["energy_source"] == "unavailable", "nothing was learned of this variant yet"
    assert (extra or {})["energy_mj"] is None


async def test_logprobs_of_a_chat(world: World) -> None:
    script = await world.serve("é ok")
    answer = await world.client().chat.completions.create(model="chat", messages=ASK, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == len(script.ids)
    assert bytes(byte for token in logprobs.content for byte in token.bytes or []).decode() == "é ok"
    assert logprobs.content[0].top_logprobs[0].logprob == -0.5
    assert script.requests[0].sampling.top_logprobs == 2


async def test_logprobs_do_not_tell_what_a_stop_text_hides(world: World) -> None:
    await world.serve("ab STOPPED")
    answer = await world.client().completions.create(
        model="chat", prompt="x", stop=" STOPPED", logprobs=0, max_tokens=50
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == answer.choices[0].text == "ab"
    assert logprobs.text_offset == [0, 1] or logprobs.text_offset == [0]


async def test_several_prompts_and_choices(world: World) -> None:
    script = await world.serve("one two")
    answer = await world.client().completions.create(
        model="chat", prompt=["first prompt", "second"], n=2, seed=10, max_tokens=20
    )
    assert [choice.text for choice in answer.choices] == ["one two"] * 4
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert sorted(request.sampling.seed for request in script.requests) == [10, 10, 11, 11]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(world.ids("first prompt")) + len(world.ids("second"))
    assert answer.usage.completion_tokens == 4 * len(script.ids)


async def test_several_streamed_choices(world: World) -> None:
    await world.serve("one two three")
    stream = await world.client().chat.completions.create(model="chat", messages=ASK, n=3, stream=True)
    texts = ["", "", ""]
    async for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["one two three"] * 3


async def test_token_ids_as_prompt(world: World) -> None:
    script = await world.serve("x")
    await world.client().completions.create(model="chat", prompt=[5, 6, 7], max_tokens=1)
    await world.client().completions.create(model="chat", prompt=[[5, 6], [8]], max_tokens=1)
    assert [list(request.token_ids.ids) for request in script.requests] == [[5, 6, 7], [5, 6], [8]]


async def test_models(world: World) -> None:
    await world.serve("x")
    await world.deploy("empty")
    client = world.client()
    listed = [model async for model in await client.models.list()]
    assert [model.id for model in listed] == ["chat", "empty"]
    one = await client.models.retrieve("chat")
    assert (one.model_extra or {})["context_length"] == 200
    assert (one.model_extra or {})["variants"] == ["f32/cpu-host"]
