"""The main job by hand and from one file, as a person or a script does it: a real process, real gRPC and HTTP."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import LIMIT_S, Stage
from tradewind.v1 import compiler_pb2, orchestrator_pb2

EXAMPLE = Path(__file__).parents[2] / "deploy" / "examples" / "chat.yaml"


@pytest.fixture
def gguf(stage: Stage) -> str:
    """A file that looks like a model to the command line."""
    (stage.cli.folder / "SmolLM2.gguf").write_bytes(b"GGUF")
    return "SmolLM2.gguf"


async def prepare(stage: Stage, gguf: str) -> None:
    for arguments in (("model", "import", gguf, "--name", "m"), ("variant", "build", "m"), ("profile", "run", "m")):
        ran = await stage.cli.inside(*arguments)
        assert ran.code == 0, ran.err


async def test_the_main_job_step_by_step(stage: Stage, gguf: str) -> None:
    imported = await stage.cli("model", "import", gguf, "--name", "smollm2")
    assert imported.code == 0, imported.err
    assert "LlamaForCausalLM, 134.5 M parameters" in imported.out
    assert "halfway there" in imported.err
    assert "tradewind variant build smollm2" in imported.out

    built = await stage.cli("variant", "build", "smollm2", "--target", "auto")
    assert built.code == 0
    for words in ("bf16-grouped/cpu-host", "99.4 %", "rejected", "perplexity 4801", "w4-kernels", "crash", "signal 11"):
        assert words in built.out

    measured = await stage.cli("profile", "run", "smollm2")
    assert measured.code == 0
    assert "modelled" in measured.out

    front = await stage.cli("pareto", "smollm2")
    assert all(words in front.out for words in ("cpu/2", "modelled", "620 MiB", "mJ for each token", "cpu-linear@1"))
    assert len([line for line in front.out.splitlines() if "┤" in line]) == 12
    assert max(map(len, front.out.splitlines())) <= 100

    deployed = await stage.cli(
        "deploy", "smollm2", "--name", "chat", "--ttft-p95", "300ms", "--tpot-p99.9=40ms", "--objective", "energy"
    )
    assert deployed.code == 0, deployed.err
    assert "chat created, ready; SLO TTFT p95 ≤ 300 ms, TPOT p99.9 ≤ 40 ms" in deployed.out
    assert "TTFT_LIMIT: 440 ms > 300 ms" in " ".join(deployed.out.split())

    said = await stage.cli("chat", "chat", "What is the capital of France?")
    assert (said.code, said.out) == (0, "It is Paris.\n")
    assert "3 tokens" in said.err
    assert "1.23 J (modelled)" in said.err

    explained = await stage.cli("explain", "chat")
    assert "two cores of n1" in explained.out
    status = await stage.cli("status")
    assert status.code == 0, status.err
    for words in ("1 models (smollm2)", "2 admitted, 1 rejected", "chat", "31.5 W", "serving"):
        assert words in status.out


async def test_json_is_pure_and_has_the_contracts_names(stage: Stage, gguf: str) -> None:
    imported = await stage.cli.inside("model", "import", gguf, "--json")
    assert imported.document["model"]["parameter_count"] == "134515008"
    assert imported.document["operation"]["state"] == "OPERATION_STATE_DONE"
    assert imported.document["model"]["name"] == "smollm2"
    built = (await stage.cli.inside("variant", "build", "smollm2", "--json")).document
    assert [v["state"] for v in built["variants"]][-1] == "VARIANT_STATE_REJECTED"
    measured = (await stage.cli.inside("profile", "run", "smollm2", "--json")).document
    assert measured["profiles"][0]["loads"][0]["energy_per_token"]["source"] == "FIGURE_SOURCE_MODELLED"
    deployed = (await stage.cli.inside("deploy", "smollm2", "--name", "chat", "--json")).document
    assert (deployed["change"], deployed["deployment"]["state"]) == ("created", "DEPLOYMENT_STATE_READY")
    keys = {
        ("model", "list"): "models",
        ("model", "show", "smollm2"): "model",
        ("variant", "list"): "variants",
        ("variant", "candidates", "smollm2"): "search",
        ("variant", "show", "bf16-grouped/cpu-host"): "variant",
        ("profile", "list"): "profiles",
        ("pareto", "smollm2"): "points",
        ("deployment", "list"): "deployments",
        ("deployment", "show", "chat"): "deployment",
        ("explain", "chat"): "explanation",
        ("status",): "services",
        ("nodes",): "nodes",
        ("nodes", "list"): "nodes",
        ("nodes", "drain", "n1"): "node",
        ("top",): "nodes",
        ("decisions",): "decisions",
        ("replay",): "replays",
        ("targets",): "targets",
        ("operation", "show", "operations/compiler-0"): "operation",
        ("chat", "chat", "Hi"): "content",
        ("version",): "tradewind",
        ("delete", "chat"): "deployment",
    }
    for arguments, key in keys.items():
        ran = await stage.cli.inside(*arguments, "--json")
        assert ran.code == 0, (arguments, ran.err)
        assert key in ran.document, arguments


async def test_a_variant_says_what_was_asked_what_was_compiled_and_where_it_ran(stage: Stage, gguf: str) -> None:
    await prepare(stage, gguf)
    show = ("variant", "show", "bf16-grouped/cpu-host")
    for arguments, ran_on in {
        show: ["cpu:x86_64-f25m1-avx2", "cpu:amd-epyc-milan"],
        ("variant", "show", "f32-fast-and-wrong/cpu-host"): ["cpu:x86_64-f25m1-avx2"],
    }.items():
        ran = await stage.cli.inside(*arguments, "--json")
        assert ran.document["ran_on"] == ran_on
        assert (ran.document["variant"]["target"], ran.document["variant"]["compiled_target"]) == (
            "cpu:host",
            "cpu:znver3",
        )
    shown = " ".join((await stage.cli.inside(*show)).out.split())
    assert "asked for cpu:host compiled for cpu:znver3 ran on cpu:x86_64-f25m1-avx2, cpu:amd-epyc-milan" in shown
    await stage.servers["profiler"].stop(0)
    ran = await stage.cli.inside(*show)
    assert ran.code == 0 and "where it was measured is not known" in ran.err


async def test_sizes_of_functions_are_sent_as_asked(stage: Stage, gguf: str) -> None:
    await stage.cli.inside("model", "import", gguf, "--name", "m")
    arguments = ("--prefill", "128,512", "--batch", "1, 4,8", "--slots", "8")
    ran = await stage.cli.inside("variant", "build", "m", *arguments)
    assert ran.code == 0, ran.err
    (wanted,) = [one for one in stage.world.requests if isinstance(one, compiler_pb2.BuildVariantsRequest)]
    assert (list(wanted.prefill_chunks), list(wanted.decode_batches), wanted.slots) == ([128, 512], [1, 4, 8], 8)
    file = stage.cli.folder / "sized.yaml"
    file.write_text(
        f"version: 1\nmodel: {{name: m, source: {gguf}}}\ndeployment: {{name: chat}}\n"
        "variants: {sizes: {prefill: [128, 512], batch: [1, 4, 8], slots: 8}}\n"
    )
    planned = await stage.cli.inside("plan", "-f", "sized.yaml")
    assert "build for auto: none with these sizes is admitted" in planned.out, planned.err
    await stage.cli.inside("apply", "-f", "sized.yaml")
    _, again = [one for one in stage.world.requests if isinstance(one, compiler_pb2.BuildVariantsRequest)]
    assert (again.prefill_chunks, again.decode_batches, again.slots) == ([128, 512], [1, 4, 8], 8)
    for variant in stage.world.variants:
        variant.recipe.prefill_chunks[:], variant.recipe.decode_batches[:] = [128, 512], [1, 4, 8]
        variant.recipe.slots = 8
    planned = await stage.cli.inside("plan", "-f", "sized.yaml", "--json")
    assert not planned.document["steps"][1]["needed"]
    file.write_text(file.read_text().replace("[1, 4, 8]", "[1, 4, 4]"))
    assert "none with these sizes" in (await stage.cli.inside("plan", "-f", "sized.yaml")).out


async def test_lists_are_readable(stage: Stage, gguf: str) -> None:
    await prepare(stage, gguf)
    await stage.cli.inside("deploy", "m", "--name", "chat")
    for arguments, words in {
        ("model", "list"): "134.5 M",
        ("variant", "list", "m"): "bf16-grouped/cpu-host",
        ("variant", "show", "f32-grouped/cpu-host"): "+0.99% ± 0.12%",
        ("profile", "list", "m"): "128 tokens × 1",
        ("deployment", "list"): "1/1",
        ("deployment", "show", "chat"): "cpu0:cores=0-1",
        ("nodes",): "cpu:amd-epyc-milan",
        ("nodes", "drain", "n1"): "draining",
        ("nodes", "undrain", "n1"): "active",
        ("top",): "42%",
        ("decisions", "chat"): "placed chat [1 replica]",
        ("replay", "chat"): "same",
        ("targets",): "znver3",
        ("operation", "show", "operations/profiler-0"): "done",
    }.items():
        ran = await stage.cli.inside(*arguments)
        assert ran.code == 0, ran.err
        assert words in ran.out, ran.out
        assert max(map(len, ran.out.splitlines())) <= 100


async def test_deploying_again_changes_only_what_differs(stage: Stage, gguf: str) -> None:
    await prepare(stage, gguf)
    slo = ("--ttft-p95", "300ms")
    await stage.cli.inside("deploy", "m", "--name", "chat", *slo)
    again = await stage.cli.inside("deploy", "m", "--name", "chat", *slo)
    assert (again.code, stage.world.calls.count("UpdateDeployment")) == (0, 0)
    assert "chat unchanged" in again.out
    changed = await stage.cli.inside("deploy", "m", "--name", "chat", "--ttft-p95", "0.2s", "--rate", "30/min")
    assert changed.code == 0, changed.err
    kept = stage.world.deployments["chat"]
    assert (kept.generation, kept.spec.slo.latency[0].limit_ms, kept.spec.demand.requests_per_s) == (2, 200, 0.5)


async def test_an_slo_that_nothing_meets_fails_and_names_the_nearest(stage: Stage, gguf: str) -> None:
    await prepare(stage, gguf)
    ran = await stage.cli.inside("deploy", "m", "--ttft-p95", "1ms")
    assert ran.code == 1
    assert "the nearest is 50 ms" in ran.err
    assert "--allow-infeasible" in ran.err
    as_json = await stage.cli.inside("deploy", "m", "--ttft-p95", "1ms", "--json")
    assert as_json.document["error"]["reason"] == "SLO_INFEASIBLE"
    assert as_json.document["error"]["metadata"]["nearest_ms"] == "50"


async def test_a_stream_that_breaks_is_watched_on(stage: Stage, gguf: str) -> None:
    stage.compiler_jobs.drop = True
    ran = await stage.cli.inside("model", "import", gguf, "--name", "m")
    assert ran.code == 0, ran.err
    assert stage.compiler_jobs.watches == 2


async def test_ctrl_c_leaves_the_work_running_and_says_how_to_go_on(stage: Stage, gguf: str) -> None:
    stage.compiler_jobs.stuck = True
    process = await stage.cli.start("model", "import", gguf, "--name", "m")
    assert process.stderr is not None
    async with asyncio.timeout(LIMIT_S):
        while b"halfway" not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 130
    assert b"tradewind operation watch operations/compiler-0" in err
    assert b"tradewind operation cancel operations/compiler-0" in err
    assert not stage.compiler_jobs.cancelled.is_set()
    watched = asyncio.create_task(stage.cli("operation", "watch", "operations/compiler-0"))
    cancelled = await stage.cli("operation", "cancel", "operations/compiler-0")
    assert cancelled.code == 0
    assert (await watched).code == 1


async def test_ctrl_c_cancels_when_asked_to(stage: Stage, gguf: str) -> None:
    stage.compiler_jobs.stuck = True
    process = await stage.cli.start("model", "import", gguf, "--name", "m", "--cancel-on-interrupt")
    assert process.stderr is not None
    async with asyncio.timeout(LIMIT_S):
        while b"halfway" not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        await process.communicate()
        await stage.compiler_jobs.cancelled.wait()
    assert process.returncode == 130


async def test_not_waiting_prints_the_operation(stage: Stage, gguf: str) -> None:
    ran = await stage.cli.inside("model", "import", gguf, "--no-wait", "--json")
    assert ran.document["operation"]["state"] == "OPERATION_STATE_RUNNING"


async def test_apply_does_everything_once_and_then_nothing(stage: Stage) -> None:
    planned = await stage.cli("plan", "-f", str(EXAMPLE))
    assert planned.code == 0, planned.err
    assert "import smollm2" in planned.out
    assert not stage.world.calls
    applied = await stage.cli("apply", "-f", str(EXAMPLE))
    assert applied.code == 0, applied.err
    assert stage.world.calls == ["ImportModel", "BuildVariants", "RunProfile", "CreateDeployment"]
    assert "chat created, ready" in applied.out
    again = await stage.cli("apply", "-f", str(EXAMPLE))
    assert again.code == 0
    assert "nothing to change" in again.out
    assert len(stage.world.calls) == 4
    assert (await stage.cli("apply", "-f", str(EXAMPLE), "--json")).document["change"] == "unchanged"
    planned = await stage.cli("plan", "-f", str(EXAMPLE), "--json")
    assert [s["needed"] for s in planned.document["steps"]] == [False] * 4
    assert planned.document["preview"]["changes"] == ["+ replica of chat on n1 cpu/2"]


async def test_apply_changes_what_the_file_changed(stage: Stage) -> None:
    file = stage.cli.folder / "chat.yaml"
    text = EXAMPLE.read_text()
    file.write_text(text)
    await stage.cli.inside("apply", "-f", "chat.yaml")
    file.write_text(text.replace("p95: 3s", "p95: 2s").replace("profile: {}", "profile: {prompt_tokens: [64]}"))
    planned = await stage.cli.inside("plan", "-f", "chat.yaml")
    assert "change chat, generation 1" in planned.out
    applied = await stage.cli.inside("apply", "-f", "chat.yaml")
    assert applied.code == 0, applied.err
    assert stage.world.calls[4:] == ["RunProfile", "UpdateDeployment"]
    assert list(stage.world.requests[-1].prompt_tokens) == [64]


async def test_a_declared_chain_is_searched_measured_and_deployed_once(stage: Stage, gguf: str) -> None:
    (stage.cli.folder / "chain.yaml").write_text(
        f"version: 1\nmodel: {{name: m, source: {gguf}}}\nvariants: {{targets: [metal, 'cpu:host'], chain: true}}\n"
        "deployment: {name: chat}\n"
    )
    planned = await stage.cli.inside("plan", "-f", "chain.yaml")
    assert "build for metal, cpu:host" in planned.out, planned.err
    applied = await stage.cli.inside("apply", "-f", "chain.yaml")
    assert applied.code == 0, applied.err
    links = list(stage.world.chain.variant_ids)
    built, measured = (
        r for r in stage.world.requests if type(r).__name__ in ("BuildVariantsRequest", "RunProfileRequest")
    )
    assert (built.search, built.chain, list(built.targets)) == (True, True, ["metal", "cpu:host"])
    assert list(measured.variant_ids) == links
    assert list(stage.world.deployments["chat"].spec.chain_variant_ids) == links
    stage.world.calls.clear()
    again = await stage.cli.inside("apply", "-f", "chain.yaml")
    assert "nothing to change" in again.out, "no node has a device for metal, so that nobody waits for its profile"
    assert not stage.world.calls
    stage.world.chain.targets[0] = "cuda:sm_80"
    planned = await stage.cli.inside("plan", "-f", "chain.yaml")
    assert "search for the chain metal → cpu:host" in planned.out


async def test_text_comes_from_stdin_too(stage: Stage) -> None:
    said = await stage.cli("chat", "chat", stdin="Grüße aus Köln".encode())
    assert (said.code, said.out) == (0, "It is Grüße aus Köln.\n")


async def test_a_replay_that_comes_out_otherwise_fails(stage: Stage) -> None:
    ran = await stage.cli.inside("replay", "other")
    assert (ran.code, "nothing would be decided" in ran.out) == (1, True)


async def test_all_that_the_planner_knows_can_be_said_in_both_ways(stage: Stage, gguf: str) -> None:
    await stage.cli.inside("model", "import", gguf, "--name", "m")
    options = ("--spread", "rack=3", "--trust-level", "red", "--rate", "4/s", "--mean-rate", "1/s")
    lengths = ("--prompt-tokens", "100", "--prompt-tokens-p95", "900", "--output-tokens-p95", "300")
    ran = await stage.cli.inside("deploy", "m", "--name", "chat", *options, *lengths, "--max-replicas", "6")
    assert ran.code == 0, ran.err
    said = stage.world.deployments["chat"].spec
    assert (said.spread.label, said.spread.domains, said.trust_level) == ("rack", 3, "red")
    assert (said.demand.mean_requests_per_s, said.demand.prompt_tokens_p95) == (1.0, 900)
    assert said.demand.output_tokens_p95 == 300
    (stage.cli.folder / "chat.yaml").write_text(
        "version: 1\nmodel: {name: m}\ndeployment:\n  name: chat\n  max_replicas: 6\n  trust_level: red\n"
        "  spread: {label: rack, domains: 3}\n"
        "  demand: {rate: 4/s, mean_rate: 1/s, prompt_tokens: 100, prompt_tokens_p95: 900, output_tokens_p95: 300}\n"
    )
    stage.world.calls.clear()
    ran = await stage.cli.inside("apply", "-f", "chat.yaml")
    assert ran.code == 0, ran.err
    assert not {"CreateDeployment", "UpdateDeployment"} & set(stage.world.calls), "the file means the same"


async def test_a_power_budget_is_set_and_taken_away(stage: Stage) -> None:
    ran = await stage.cli.inside("nodes", "budget", "node/n1", "1.5kW", "--json")
    assert ran.document == {"scope": "node/n1", "limit_mw": 1_500_000}
    assert "has no power budget" in (await stage.cli.inside("nodes", "budget", "node/n1", "none")).out


async def test_nodes_that_are_gone_are_listed_and_not_counted(stage: Stage) -> None:
    stage.world.gone.append("n0")
    told = (await stage.cli.inside("nodes", "--json")).document["nodes"]
    assert [(n["report"]["node_id"], n["state"]) for n in told] == [
        ("n0", "NODE_STATE_GONE"),
        ("n1", "NODE_STATE_ACTIVE"),
    ]
    listed = (await stage.cli.inside("nodes")).out
    assert "gone" in listed and "it is a node again when it reports" in listed
    assert "1 nodes" in (await stage.cli.inside("top")).out


async def test_limits_end_to_end_are_told_where_there_are_any(stage: Stage, gguf: str) -> None:
    await prepare(stage, gguf)
    looks = (("top",), ("deployment", "show", "chat"), ("deployment", "list"), ("status",), ("explain", "chat"))
    await stage.cli.inside("deploy", "m", "--name", "chat", "--ttft-p95", "300ms")
    for look in looks:
        assert "E2E" not in (await stage.cli.inside(*look)).out
    deployed = await stage.cli.inside("deploy", "m", "--name", "chat", "--e2e-p50", "4s", "--e2e-p95", "8s")
    assert "E2E  energy/token" in deployed.out and "3.10 s" in deployed.out
    assert "chat: E2E p95 ≤ 8.00 s not judged" in (await stage.cli.inside("top")).out
    told = orchestrator_pb2.Attainment(requests=53, kept=0.9433)
    stage.world.deployments["chat"].e2e_attainment.CopyFrom(told)
    line = "chat: E2E p95 ≤ 8.00 s kept by 94.3 % of 53 requests in 2 min"
    for look, words in zip(looks, (line, line, "94.3 %", "94.3 %", "3.10 s"), strict=True):
        assert words in (await stage.cli.inside(*look)).out, look
    shown = (await stage.cli.inside("deployment", "show", "chat", "--json")).document["deployment"]
    assert shown["e2e_attainment"] == {"requests": 53, "kept": 0.9433}
