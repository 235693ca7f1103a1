"""The agent as a real process with real replicas: targets obeyed, tokens right, faults survived, nothing left."""

from __future__ import annotations

import asyncio
import signal
import socket

import grpc
import httpx
import psutil
import pytest

from tests.node_agent.agent_process import NODE_ID, Agent, generate, tokens_of
from tests.node_agent.conftest import StartAgent
from tests.node_agent.neighbours import FileCompiler, Orchestrator, serve_orchestrator, spec, target
from tests.node_agent.reference import torch_greedy
from tests.node_agent.wait import until
from tests.tiny_variant import TinyVariant
from tradewind.domain.errors import RemoteError
from tradewind.rpc.errors import translated
from tradewind.rpc.server import GrpcServer
from tradewind.v1 import common_pb2, inference_pb2, node_pb2

READY, DRAINED, FAILED = node_pb2.REPLICA_STATE_READY, node_pb2.REPLICA_STATE_DRAINED, node_pb2.REPLICA_STATE_FAILED
Neighbour = tuple[Orchestrator, GrpcServer]


async def ready_agent(
    start_agent: StartAgent, orchestrator: Orchestrator, tiny: TinyVariant, replica_id: str = "r1"
) -> Agent:
    orchestrator.push(target(NODE_ID, 1, spec(tiny, replica_id)))
    agent = await start_agent()
    await orchestrator.state(replica_id, READY)
    return agent


async def test_tokens_are_those_of_plain_pytorch(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    agent = await ready_agent(start_agent, orchestrator[0], tiny)
    # Lengths around the chunk sizes 16 and 64 and the context buckets 128 and 256; more requests than slots.
    lengths = [1, 15, 16, 17, 63, 64, 65, 130, 200, 40]
    prompts = [[3 + (7 * i + 11 * n) % 280 for i in range(n)] for n in lengths]
    answers = await asyncio.gather(
        *(generate(agent.inference, "r1", p, max_tokens=12, ignore_eos=True) for p in prompts)
    )
    expected = torch_greedy(tiny.model_folder, prompts, 12)
    assert [tokens_of(a) for a in answers] == expected
    for prompt, answer in zip(prompts, answers, strict=True):
        assert (answer[0].replica_id, answer[0].variant_id) == ("r1", tiny.variant.variant_id)
        last = answer[-1]
        assert last.finish_reason == inference_pb2.FINISH_REASON_LENGTH
        assert (last.usage.prompt_tokens, last.usage.output_tokens) == (len(prompt), 12)
        assert last.usage.energy.energy_mj > 0
        assert last.usage.energy.source in (
            common_pb2.FIGURE_SOURCE_MODELLED,
            common_pb2.FIGURE_SOURCE_ATTRIBUTED,
        )
        assert 0 <= last.usage.queue_ms <= last.usage.ttft_ms
    assert all(len(a) > 1 for a in answers), "tokens are streamed"


async def test_seeds_logprobs_and_refusals(start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant) -> None:
    agent = await ready_agent(start_agent, orchestrator[0], tiny)
    wish = {"max_tokens": 16, "temperature": 1.2, "top_p": 0.95, "ignore_eos": True}
    alone = tokens_of(await generate(agent.inference, "r1", [5, 6, 7], seed=42, **wish))
    crowd = await asyncio.gather(
        *(generate(agent.inference, "r1", [5, 6, 7], seed=seed, **wish) for seed in (1, 42, 2, 42, 3))
    )
    assert tokens_of(crowd[1]) == tokens_of(crowd[3]) == alone
    assert tokens_of(crowd[0]) != alone
    told = await generate(
        agent.inference, "r1", [5, 6, 7], max_tokens=3, logprobs=True, top_logprobs=4, ignore_eos=True
    )
    logprobs = [entry for response in told for entry in response.logprobs]
    assert [entry.token_id for entry in logprobs] == tokens_of(told)
    assert all(len(entry.top) == 4 and entry.top[0].logprob >= entry.top[3].logprob for entry in logprobs)
    for replica_id, prompt, sampling, reason in (
        ("other", [1], {}, "NOT_FOUND"),
        ("", [1], {}, "INVALID_FIELD"),
        ("r1", [], {}, "INVALID_FIELD"),
        ("r1", [999], {}, "INVALID_FIELD"),
        ("r1", [1], {"temperature": 3.0}, "INVALID_FIELD"),
        ("r1", [1] * 256, {}, "CONTEXT_EXCEEDED"),
        ("r1", [1] * 250, {"max_tokens": 7}, "CONTEXT_EXCEEDED"),
    ):
        with pytest.raises(RemoteError) as caught, translated("agent"):
            await generate(agent.inference, replica_id, prompt, **sampling)
        assert caught.value.remote_reason == reason, caught.value.message
    assert caught.value.metadata["context"] == "256"
    whole = await generate(agent.inference, "r1", [1] * 250, ignore_eos=True)
    assert len(tokens_of(whole)) == 6
    with pytest.raises(RemoteError, match="ask it by Generate") as caught, translated("agent"):
        await agent.inference.Infer(inference_pb2.InferRequest(replica_id="r1"), timeout=5)
    assert caught.value.remote_reason == "NOT_IMPLEMENTED"


async def test_a_client_that_goes_away_frees_its_slot(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    orchestrator[0].push(target(NODE_ID, 1, spec(tiny, "r1", batch_limit=1)))
    agent = await start_agent()
    await orchestrator[0].state("r1", READY)
    request = inference_pb2.GenerateRequest(
        replica_id="r1",
        token_ids=inference_pb2.TokenIds(ids=[9]),
        sampling=inference_pb2.Sampling(ignore_eos=True),
    )
    for _ in range(12):
        call = agent.inference.Generate(request, timeout=60)
        await call.read()
        call.cancel()
    # With one slot, each of the abandoned would hold it for 255 tokens: the next answer would be late.
    answer = await generate(agent.inference, "r1", [9], max_tokens=2, ignore_eos=True)
    assert answer[-1].usage.queue_ms < 1000
    await until(lambda: orchestrator[0].replica("r1").active_sequences == 0)  # type: ignore[union-attr]
    orchestrator[0].push(target(NODE_ID, 2, spec(tiny, "r1", batch_limit=1, drain=True)))
    await orchestrator[0].state("r1", DRAINED)


async def test_tokens_come_at_the_pace_of_the_target_in_force(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    link, hour_ms = orchestrator[0], 3.6e6
    link.push(target(NODE_ID, 1, spec(tiny, "r1", pace_ms=hour_ms)))
    agent = await start_agent()
    await link.state("r1", READY)
    pids = {child.pid for child in agent.children()}
    expected = torch_greedy(tiny.model_folder, [[5, 6, 7]], 100)[0]
    asked = asyncio.create_task(generate(agent.inference, "r1", [5, 6, 7], max_tokens=100, ignore_eos=True))
    await until(lambda: _active(link, "r1") == 1)
    heard = len(link.reports)
    await until(lambda: len(link.reports) > heard + 2)
    assert _active(link, "r1") == 1 and not asked.done(), "at once it takes a fraction of a second"
    link.push(target(NODE_ID, 2, spec(tiny, "r1")))
    answer = await asked
    assert tokens_of(answer) == expected
    assert {child.pid for child in agent.children()} == pids, "it needs no new process"


def _active(link: Orchestrator, replica_id: str) -> int:
    replica = link.replica(replica_id)
    return replica.active_sequences if replica is not None else 0


async def test_a_swap_under_load_fails_no_request(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    link = orchestrator[0]
    agent = await ready_agent(start_agent, link, tiny, "old")
    routes = ["old"]
    over = asyncio.Event()
    done: list[str] = []

    async def client(number: int) -> None:
        while not over.is_set():
            replica_id = routes[-1]
            answer = await generate(agent.inference, replica_id, [number, 5, 6], max_tokens=20, ignore_eos=True)
            assert len(tokens_of(answer)) == 20
            done.append(replica_id)

    clients = [asyncio.create_task(client(n + 3)) for n in range(3)]
    await until(lambda: len(done) > 3)
    link.push(target(NODE_ID, 2, spec(tiny, "old"), spec(tiny, "new", cpu_ids=(0, 1))))
    await link.state("new", READY)
    # Traffic moves first, as the orchestrator's routing table does; what was sent to the old one finishes there.
    routes.append("new")
    moved_at = len(done)
    await until(lambda: "new" in done[moved_at:])
    link.push(target(NODE_ID, 2, spec(tiny, "old", drain=True), spec(tiny, "new", cpu_ids=(0, 1)), step=1))
    await link.state("old", DRAINED)
    link.push(target(NODE_ID, 2, spec(tiny, "new", cpu_ids=(0, 1)), step=2))
    await link.gone("old")
    after = len(done)
    await until(lambda: len(done) > after + 3)
    over.set()
    await asyncio.gather(*clients)
    assert {"old", "new"} <= set(done)
    assert len(agent.children()) == 1


async def test_draining_finishes_what_is_in_hand_and_takes_nothing_new(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    link = orchestrator[0]
    agent = await ready_agent(start_agent, link, tiny)
    request = inference_pb2.GenerateRequest(
        replica_id="r1",
        token_ids=inference_pb2.TokenIds(ids=[9]),
        sampling=inference_pb2.Sampling(ignore_eos=True, max_tokens=250),
    )
    pieces = aiter(agent.inference.Generate(request, timeout=60))
    first = await anext(pieces)
    link.push(target(NODE_ID, 2, spec(tiny, "r1", drain=True)))
    await link.state("r1", node_pb2.REPLICA_STATE_DRAINING, DRAINED)
    with pytest.raises(RemoteError) as caught, translated("agent"):
        await generate(agent.inference, "r1", [9], max_tokens=1)
    assert caught.value.remote_reason == "NO_READY_REPLICA"
    count = len(first.token_ids) + sum([len(r.token_ids) async for r in pieces])
    assert count == 250
    await link.state("r1", DRAINED)
    link.push(target(NODE_ID, 3, spec(tiny, "r1")))
    await link.state("r1", READY)
    assert (await agent.describe()).replicas[0].starts == 1, "it was loaded still"


async def test_a_killed_replica_comes_back_and_its_callers_hear_of_it(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    link = orchestrator[0]
    agent = await ready_agent(start_agent, link, tiny)
    request = inference_pb2.GenerateRequest(
        replica_id="r1", token_ids=inference_pb2.TokenIds(ids=[9]), sampling=inference_pb2.Sampling(ignore_eos=True)
    )
    pieces = aiter(agent.inference.Generate(request, timeout=60))
    await anext(pieces)
    agent.children()[0].kill()
    with pytest.raises(RemoteError) as caught, translated("agent"):
        async for _ in pieces:
            pass
    assert (caught.value.remote_reason, caught.value.status) == ("REPLICA_LOST", "UNAVAILABLE")
    failed = await link.state("r1", FAILED)
    assert "REPLICA_LOST" in failed.reason and "signal 9" in failed.reason
    await until(lambda: (r := link.replica("r1")) is not None and r.state == READY and r.starts == 2)
    assert tokens_of(await generate(agent.inference, "r1", [9], max_tokens=2, ignore_eos=True))


async def test_callers_of_a_replica_that_is_removed_hear_of_it(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    agent = await ready_agent(start_agent, orchestrator[0], tiny)

    async def ask_until_lost() -> str:
        try:
            while True:
                with translated("agent"):
                    await generate(agent.inference, "r1", [9], max_tokens=250, ignore_eos=True)
        except RemoteError as error:
            return error.remote_reason

    callers = [asyncio.create_task(ask_until_lost()) for _ in range(6)]
    await until(lambda: orchestrator[0].replica("r1").active_sequences == 4)  # type: ignore[union-attr]
    orchestrator[0].push(target(NODE_ID, 2))
    async with asyncio.timeout(20):
        reasons = set(await asyncio.gather(*callers))
    # Those at work hear that it was lost, those that came a moment later that none is ready.
    assert reasons <= {"REPLICA_LOST", "NO_READY_REPLICA", "NOT_FOUND"}


async def test_older_targets_and_those_of_others_are_refused(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    link = orchestrator[0]
    link.push(target(NODE_ID, 5, spec(tiny, "r1"), fencing=3))
    agent = await start_agent()
    await link.state("r1", READY)
    for wrong in (
        target(NODE_ID, 4, fencing=3),
        target(NODE_ID, 9, fencing=2),
        target(NODE_ID, 5, fencing=3),
        target("another-node", 9, fencing=9),
    ):
        link.push(wrong)
        seen = len(link.reports)
        await until(lambda seen=seen: len(link.reports) > seen + 2)  # type: ignore[misc]
        report = link.report
        assert (report.observed_generation, report.observed_fencing) == (5, 3)
        assert [(r.replica_id, r.state, r.starts) for r in report.replicas] == [("r1", READY, 1)]
    log = agent.log_file.read_text()
    assert log.count("target refused") >= 4 and "is older than" in log and "differ" in log
    link.push(target(NODE_ID, 6, fencing=3))
    await link.gone("r1")


async def test_serving_goes_on_without_the_orchestrator_and_the_link_comes_back(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    link, server = orchestrator
    agent = await ready_agent(start_agent, link, tiny)
    address = server.address
    await server.stop(0)
    for _ in range(3):
        assert len(tokens_of(await generate(agent.inference, "r1", [4], max_tokens=5, ignore_eos=True))) == 5
    again = Orchestrator()
    second = await serve_orchestrator(again, address)
    try:
        await again.state("r1", READY, limit_s=20)
        assert again.report.agent_epoch == link.report.agent_epoch
        assert again.report.sequence > link.report.sequence
        again.push(target(NODE_ID, 2))
        await again.gone("r1")
    finally:
        await second.stop(0)


async def test_a_killed_agent_takes_its_replicas_along_and_a_new_one_brings_them_back(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant, compiler: tuple[FileCompiler, GrpcServer]
) -> None:
    link, server = orchestrator
    agent = await ready_agent(start_agent, link, tiny)
    children = agent.children()
    assert len(children) == 1
    await server.stop(0)
    await compiler[1].stop(0)
    await agent.signal(signal.SIGKILL)
    await until(lambda: not any(psutil.pid_exists(c.pid) and c.status() != psutil.STATUS_ZOMBIE for c in children), 10)
    again = await start_agent()
    state = None

    async def ready() -> bool:
        nonlocal state
        replicas = (await again.describe()).replicas
        state = replicas[0].state if replicas else None
        return state == READY

    async with asyncio.timeout(60):
        while not await ready():
            await asyncio.sleep(0.1)
    assert tokens_of(await generate(again.inference, "r1", [9], max_tokens=2, ignore_eos=True))
    assert (await again.describe()).observed_generation == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_leaves_nothing_behind(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant, number: signal.Signals
) -> None:
    # At this pace the answer takes a second, so that a report falls into it however fast the machine is.
    orchestrator[0].push(target(NODE_ID, 1, spec(tiny, "r1", pace_ms=5)))
    agent = await start_agent()
    await orchestrator[0].state("r1", READY)
    children = agent.children()
    request = inference_pb2.GenerateRequest(
        replica_id="r1",
        token_ids=inference_pb2.TokenIds(ids=[9]),
        sampling=inference_pb2.Sampling(ignore_eos=True, max_tokens=200),
    )
    pieces = aiter(agent.inference.Generate(request, timeout=60))
    first = await anext(pieces)
    ending = asyncio.create_task(agent.signal(number))
    assert len(first.token_ids) + sum([len(r.token_ids) async for r in pieces]) == 200
    assert await ending == 0
    assert not [c for c in children if psutil.pid_exists(c.pid)]
    assert not list((agent.log_file.with_name("state") / "run").glob("*"))
    assert link_last_state(orchestrator[0]) != READY, "the orchestrator heard that it drains"


def link_last_state(link: Orchestrator) -> int:
    return link.report.replicas[0].state


async def test_metrics_tell_of_replicas_and_devices(
    start_agent: StartAgent, orchestrator: Neighbour, tiny: TinyVariant
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    orchestrator[0].push(target(NODE_ID, 1, spec(tiny, "r1")))
    agent = await start_agent(metrics_listen=f"127.0.0.1:{port}", labels="rack=r1")
    await orchestrator[0].state("r1", READY)
    assert dict(orchestrator[0].report.labels) == {"rack": "r1"}
    await generate(agent.inference, "r1", [5] * 20, max_tokens=5, ignore_eos=True)
    await until(lambda: orchestrator[0].replica("r1").generated_tokens == 5)  # type: ignore[union-attr]
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    assert values['tradewind_replica_state{replica="r1",state="ready"}'] == 1
    assert values['tradewind_replica_starts_total{replica="r1"}'] == 1
    # The canary's tokens are in it too.
    assert values['tradewind_replica_tokens_total{phase="prefill",replica="r1"}'] >= 20
    assert values['tradewind_replica_step_seconds_total{phase="decode",replica="r1"}'] > 0
    assert values['tradewind_device_energy_joules_total{device="cpu0",source="modelled"}'] > 0


async def test_a_call_without_a_deadline_is_refused(start_agent: StartAgent) -> None:
    agent = await start_agent()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await agent.node.DescribeNode(node_pb2.DescribeNodeRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_second_agent_in_the_same_folder_is_refused(start_agent: StartAgent) -> None:
    await start_agent()
    with pytest.raises(AssertionError, match="is used by another node agent"):
        await start_agent()
