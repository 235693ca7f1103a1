"""The main job on a tiny model: every service a process of its own, real stores, real compile, real inference."""

from __future__ import annotations

import json
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.e2e.conftest import Prepared
from tests.e2e.stack import CALL_S, refusals, until
from tradewind.domain.errors import TradewindError, reason_of
from tradewind.v1 import common_pb2, orchestrator_pb2, profiler_pb2

ASK = [{"role": "user", "content": "hello"}]


@pytest.fixture
def chat(prepared: Prepared) -> Iterator[str]:
    """Name of a ready deployment, deleted afterwards."""
    name = f"chat-{uuid.uuid4().hex[:8]}"
    prepared.stack.create(name, prepared.spec())
    yield name
    request = orchestrator_pb2.DeleteDeploymentRequest(request_id=uuid.uuid4().hex, deployment=name)
    prepared.stack.orchestrator.DeleteDeployment(request, timeout=CALL_S)
    until(lambda: not prepared.stack.processes("services.node_agent.replica"), "its replicas stopped")


def test_an_openai_client_gets_the_same_answer_streamed_and_not(prepared: Prepared, chat: str) -> None:
    client = prepared.stack.openai()
    whole = client.chat.completions.create(model=chat, messages=ASK, max_tokens=12, temperature=0)  # type: ignore[arg-type]
    pieces = client.chat.completions.create(
        model=chat,
        messages=ASK,
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},  # type: ignore[arg-type]
    )
    chunks = list(pieces)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole.choices[0].message.content
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert 1 <= whole.usage.completion_tokens <= 12
    assert whole.usage.prompt_tokens > len("hello")
    extra = whole.usage.model_dump()
    assert extra["energy_mj"] > 0
    assert extra["energy_source"] in ("modelled", "attributed", "measured_counter")
    assert extra["energy_method"]


def test_the_next_turn_of_a_conversation_works_out_only_what_is_new(prepared: Prepared, chat: str) -> None:
    client, talk = prepared.stack.openai(), [{"role": "user", "content": "tell me of the sea " * 6}]
    cached = []
    for _turn in range(2):
        answer = client.chat.completions.create(model=chat, messages=talk, max_tokens=12, temperature=0)  # type: ignore[arg-type]
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        cached.append((answer.usage.prompt_tokens_details.cached_tokens, answer.usage.prompt_tokens))
        again = {"role": "assistant", "content": answer.choices[0].message.content or ""}
        talk += [again, {"role": "user", "content": "and?"}]
    (_, before), (reused, prompt) = cached
    assert before / 2 < (reused or 0) < prompt
    fresh = client.chat.completions.create(
        model=chat,
        messages=talk[:-2],
        max_tokens=12,
        temperature=0,
        extra_body={"cache_salt": uuid.uuid4().hex},  # type: ignore[arg-type]
    )
    # The text may be another: reused rows differ in their last bits (ADR 116), and this model has near-ties everywhere.
    assert fresh.usage is not None and fresh.usage.prompt_tokens_details is not None
    assert not fresh.usage.prompt_tokens_details.cached_tokens, "another salt finds nothing"


def test_models_lists_deployments_and_an_unknown_one_is_a_404_that_names_them(prepared: Prepared, chat: str) -> None:
    client = prepared.stack.openai()
    assert chat in [model.id for model in client.models.list()]
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nonesuch", messages=ASK)  # type: ignore[arg-type]
    assert chat in str(caught.value)


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(prepared: Prepared, chat: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        prepared.stack.openai().completions.create(model=chat, prompt="x" * 50_000)
    assert caught.value.code == "context_length_exceeded"
    assert "50000" in str(caught.value).replace(",", "").replace("50001", "50000")


def test_explain_names_the_chosen_variant_and_a_number_for_every_other(prepared: Prepared, chat: str) -> None:
    request = orchestrator_pb2.ExplainDeploymentRequest(deployment=chat)
    explanation = prepared.stack.orchestrator.ExplainDeployment(request, timeout=CALL_S).explanation
    chosen = [c for c in explanation.candidates if c.chosen]
    assert len(chosen) == 1
    energy = chosen[0].energy_per_token.energy_mj
    assert energy > 0
    assert all(c.reason for c in explanation.candidates)
    feasible = [c for c in explanation.candidates if not c.refusal]
    assert energy <= min(c.energy_per_token.energy_mj for c in feasible) * 1.05


def test_the_pareto_front_is_labelled_and_undominated(prepared: Prepared) -> None:
    request = profiler_pb2.GetParetoFrontRequest(model="tiny", include_dominated=True)
    points = prepared.stack.profiler.GetParetoFront(request, timeout=CALL_S).points
    assert any(p.on_front for p in points)
    sources = {p.load.energy_per_token.source for p in points}
    assert common_pb2.FIGURE_SOURCE_UNSPECIFIED not in sources


def test_a_swap_of_variants_loses_no_request(prepared: Prepared, chat: str) -> None:
    stack, client = prepared.stack, prepared.stack.openai()
    failures: list[str] = []
    done: list[int] = []
    stopping = threading.Event()

    def ask(number: int) -> None:
        try:
            pieces = client.completions.create(
                model=chat, prompt=f"ask {number}", max_tokens=24, stream=True, temperature=0
            )
            finish = [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1]
            assert finish in ("length", "stop"), finish
            done.append(number)
        except Exception as error:  # noqa: BLE001  every failure counts
            failures.append(repr(error))

    def load() -> None:
        """Open loop: sends on time whether or not answers came."""
        with ThreadPoolExecutor(32) as pool:
            number = 0
            while not stopping.wait(0.15):
                pool.submit(ask, number)
                number += 1

    sender = threading.Thread(target=load)
    sender.start()
    try:
        for variant in (*prepared.variants[:2], *prepared.variants[:2]):
            changed = stack.update(chat, prepared.spec(pinned=variant.variant_id))
            assert list(changed.variant_ids) == [variant.variant_id]
    finally:
        stopping.set()
        sender.join()
    assert not failures, failures[:3]
    assert len(done) > 10


def test_a_killed_replica_is_replaced(prepared: Prepared, chat: str) -> None:
    stack = prepared.stack
    (replica,) = stack.processes("services.node_agent.replica")
    replica.send_signal(signal.SIGKILL)
    until(lambda: [p for p in stack.processes("services.node_agent.replica") if p.pid != replica.pid], "a new process")
    answer = stack.openai().chat.completions.create(model=chat, messages=ASK, max_tokens=4)  # type: ignore[arg-type]
    assert answer.usage is not None


def test_an_agent_killed_mid_generation_ends_the_stream_with_an_error_and_comes_back(
    prepared: Prepared, chat: str
) -> None:
    stack, client = prepared.stack, prepared.stack.openai()
    with pytest.raises((openai.APIError, openai.APIConnectionError)):
        for _ in range(20):
            until(lambda: _answers(prepared, chat), "answers")
            (agent,) = [p for p in stack.processes("services.node_agent") if "replica" not in " ".join(p.cmdline())]
            stream = client.completions.create(
                model=chat, prompt="a", max_tokens=400, stream=True, extra_body={"ignore_eos": True}
            )
            next(iter(stream))
            agent.send_signal(signal.SIGKILL)
            for _piece in stream:
                pass
            until(lambda killed=agent: not killed.is_running(), "it is gone")  # type: ignore[misc]
    until(lambda: _answers(prepared, chat), "answers again")


def test_the_orchestrator_away_does_not_stop_serving(prepared: Prepared, chat: str) -> None:
    stack = prepared.stack
    (orchestrator,) = stack.processes("services.orchestrator")
    orchestrator.send_signal(signal.SIGSTOP)
    try:
        assert _answers(prepared, chat)
    finally:
        orchestrator.send_signal(signal.SIGKILL)
    until(lambda: [p for p in stack.processes("services.orchestrator") if p.pid != orchestrator.pid], "a new process")
    until(lambda: _is_ready(prepared, chat), "the new orchestrator knows the deployment")
    assert _answers(prepared, chat)


def test_a_flushed_redis_is_filled_again(prepared: Prepared, chat: str) -> None:
    import redis

    from tradewind.embedded.layout import Layout

    socket = Layout(prepared.stack.state).redis_socket
    client = redis.Redis(unix_socket_path=str(socket))
    began = time.monotonic()
    client.flushall()
    until(lambda: client.hexists("tradewind:routes", chat), "routes are back", 10)
    assert time.monotonic() - began < 10
    assert _answers(prepared, chat)


def test_an_infeasible_wish_is_refused_with_the_nearest_that_would_do(prepared: Prepared) -> None:
    spec = prepared.spec()
    spec.slo.latency[1].limit_ms = 0.001
    request = orchestrator_pb2.CreateDeploymentRequest(request_id=uuid.uuid4().hex, name="dream", spec=spec)
    with pytest.raises(TradewindError) as caught, refusals():
        prepared.stack.orchestrator.CreateDeployment(request, timeout=CALL_S)
    assert reason_of(caught.value) == "SLO_INFEASIBLE"
    assert "TPOT" in caught.value.message.upper()
    assert any(character.isdigit() for character in caught.value.message)


def test_the_command_line_shows_the_same(prepared: Prepared, chat: str) -> None:
    stack = prepared.stack
    assert [m["name"] for m in json.loads(stack.run("model", "list", "--json").stdout)["models"]] == ["tiny"]
    assert chat in stack.run("status").stdout
    assert "chosen" in stack.run("explain", chat).stdout
    assert stack.run("chat", chat, "hello").stdout.strip() != ""
    missing = stack.run("explain", "nonesuch", code=2)
    assert "Traceback" not in missing.stderr
    assert "nonesuch" in missing.stderr


def _answers(prepared: Prepared, name: str) -> bool:
    try:
        prepared.stack.openai().chat.completions.create(model=name, messages=ASK, max_tokens=3)  # type: ignore[arg-type]
    except openai.APIError:
        return False
    return True


def _is_ready(prepared: Prepared, name: str) -> bool:
    try:
        with refusals():
            return prepared.stack.deployment(name).state == orchestrator_pb2.DEPLOYMENT_STATE_READY
    except TradewindError:
        return False
