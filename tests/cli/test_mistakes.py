"""Mistakes and absent services: one clear message, what to do next, the right exit code, never a traceback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Stage

HEAD = "version: 1\nmodel: {name: m, source: x}\n"
DEPLOYMENT = HEAD + "deployment: {name: chat}\n"


@pytest.mark.parametrize(
    ("arguments", "service"),
    [
        (("model", "list"), "compiler"),
        (("profile", "list"), "profiler"),
        (("nodes",), "orchestrator"),
        (("deploy", "m", "--name", "x"), "orchestrator"),
        (("chat", "chat", "hi"), "gateway"),
    ],
)
async def test_a_service_that_is_not_there_is_named_with_its_address(
    bare_cli: Cli, arguments: tuple[str, ...], service: str
) -> None:
    ran = await bare_cli.inside(*arguments)
    assert (ran.code, ran.out) == (1, "")
    assert f"the {service} does not answer at" in ran.err
    assert "127.0.0.1:1" in ran.err
    assert "tradewind up" in ran.err
    as_json = await bare_cli.inside(*arguments, "--json")
    assert (as_json.code, as_json.document["error"]["reason"]) == (1, "SERVICE_UNAVAILABLE")


async def test_a_port_that_something_else_holds_is_no_traceback(bare_cli: Cli) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 not gRPC\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(shout, "127.0.0.1", 0)
    bare_cli.environment["TRADEWIND_COMPILER"] = f"127.0.0.1:{other.sockets[0].getsockname()[1]}"
    ran = await bare_cli("model", "list")
    other.close()
    assert ran.code == 1
    assert "compiler" in ran.err


async def test_status_says_what_is_away(stage: Stage) -> None:
    await stage.servers["profiler"].stop(0)
    ran = await stage.cli("status")
    assert ran.code == 1
    assert "profiler" in ran.out
    assert "away" in ran.out
    assert "tradewind up" in ran.err
    states = {s["name"]: s["state"] for s in (await stage.cli("status", "--json")).document["services"]}
    assert states == {"orchestrator": "SERVING", "compiler": "SERVING", "profiler": "AWAY", "gateway": "SERVING"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("variant", "build", "m", "--prefill", "128,much"), "'much' is no size; write whole numbers"),
        (("variant", "build", "m", "--batch", "0"), "'0' is no size"),
        (("deploy", "m", "--ttft-p95", "300"), "has no unit; write a duration such as 300ms"),
        (("deploy", "m", "--ttft-p95", "-300ms"), "must be above 0"),
        (("deploy", "m", "--ttft-p95", "soon"), "is no duration"),
        (("deploy", "m", "--ttft-p95", "300MB"), "no unit of duration"),
        (("deploy", "m", "--ttft-p95"), "--ttft-p95 300ms"),
        (("deploy", "m", "--ttft-p100", "1s"), "is no percentile"),
        (("deploy", "m", "--latency", "speed-p95=1s"), "choose ttft, tpot, e2e"),
        (("deploy", "m", "--ttft-p95", "1s", "--ttft-p95.0", "2s"), "two limits for ttft p95"),
        (("deploy", "m", "--energy-per-token", "5W"), "no unit of energy"),
        (("deploy", "m", "--power", "0W"), "must be above 0"),
        (("deploy", "m", "--min-quality", "1.2"), "is no share"),
        (("deploy", "m", "--rate", "5"), "has no unit"),
        (("deploy", "m", "--objective", "speed"), "choose energy, latency, cost"),
        (("deploy", "m", "--node-label", "rack"), "key=value"),
        (("deploy", "m", "--spread", "rack"), "such as rack=2"),
        (("deploy", "m", "--mean-rate", "5"), "has no unit"),
        (("nodes", "budget", "site", "300"), "has no unit"),
        (("nodes", "budget", "rack/7", "300W"), "is none of 'site'"),
        (("model", "import", "none.gguf"), "no such file or folder"),
        (("model", "import", "package:none_such/x.gguf"), "no Python package"),
        (("model", "import", ".", "--name", "m", "--format", "zip"), "choose hugging_face, gguf"),
        (("model", "show", "none"), "no model named 'none'"),
        (("variant", "show", "beef"), "no variant named 'beef'"),
        (("deployment", "show", "none"), "no deployment named 'none'"),
        (("explain", "none"), "tradewind deployment list"),
        (("nodes", "drain", "n9"), "no node named 'n9'"),
        (("operation", "show", "x"), "is no operation"),
        (("operation", "show", "operations/compiler-99"), "no operation named"),
        (("chat", "none", "hi"), "no deployment named 'none'"),
        (("chat", "chat", " "), "is empty"),
        (("top", "--every", "0s"), "must be above 0"),
        (("apply",), "-f deployment.yaml"),
        (("deploy", "m", "--objectiv", "energy"), "--objective"),
        (("modell", "list"), "modell"),
        (("profile", "run", "m", "--prompt", "0"), "--prompt"),
    ],
)
async def test_misuse_is_code_2_and_says_what_would_do(stage: Stage, arguments: tuple[str, ...], words: str) -> None:
    ran = await stage.cli.inside(*arguments)
    assert ran.code == 2, ran.err
    assert words in " ".join(ran.err.replace("│", " ").split())
    assert not ran.out
    assert not stage.world.calls


async def test_a_failed_operation_gives_its_reason(stage: Stage) -> None:
    (stage.cli.folder / "truncated.gguf").write_bytes(b"GGUF")
    ran = await stage.cli.inside("model", "import", "truncated.gguf")
    assert ran.code == 2
    assert "ends after 10 bytes of 100" in ran.err
    assert "GGUF" not in ran.out
    (stage.cli.folder / "m.gguf").write_bytes(b"GGUF")
    await stage.cli.inside("model", "import", "m.gguf")
    stage.world.compile_fails = True
    ran = await stage.cli.inside("variant", "build", "m", "--json")
    assert (ran.code, ran.document["error"]["reason"]) == (1, "COMPILE_FAILED")


async def test_a_front_of_nothing_says_what_to_run(stage: Stage) -> None:
    (stage.cli.folder / "m.gguf").write_bytes(b"GGUF")
    await stage.cli.inside("model", "import", "m.gguf")
    ran = await stage.cli.inside("pareto", "m")
    assert ran.code == 1
    assert "run `tradewind profile run m`" in ran.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD, ["deployment: missing"]),
        (DEPLOYMENT.replace("name: chat", "name: chat, slo: {ttft: {p95: 300}}"), ["slo.ttft.p95: 300 has no unit"]),
        (DEPLOYMENT.replace("name: chat", "name: chat, slo: {ttft: {p95: -1s}}"), ["slo.ttft.p95", "above 0"]),
        (DEPLOYMENT.replace("name: chat", "name: chat, slo: {ttft: {p0: 1s}}"), ["slo.ttft.p0", "no percentile"]),
        (
            DEPLOYMENT.replace("name: chat", "name: chat, objectiv: energy"),
            ["deployment.objectiv: unknown key; did you mean objective?"],
        ),
        (
            DEPLOYMENT.replace("name: chat", "name: chat, slo: {tftt: {p95: 1s}}"),
            ["deployment.slo.tftt: unknown key; did you mean ttft?"],
        ),
        (DEPLOYMENT + "deploymnt: {}\n", ["deploymnt: unknown key; did you mean deployment?"]),
        (DEPLOYMENT.replace("version: 1", "version: 2"), ["version"]),
        (DEPLOYMENT.replace("name: chat", "name: a b"), ["deployment.name"]),
        (DEPLOYMENT.replace("name: chat", "name: chat, max_replicas: -1"), ["deployment.max_replicas"]),
        ("a: [1\n", ["is not YAML"]),
        ("- 1\n", ["must hold version, model and deployment"]),
        ("", ["must hold version"]),
        (DEPLOYMENT + "variants: {chain: true}\n", ["variants.chain: is a chain of two or more targets"]),
        (
            DEPLOYMENT + "variants: {chain: true, targets: [a, b], recipes: [c]}\n",
            ["variants.chain", "variants.recipes"],
        ),
        (
            DEPLOYMENT.replace("name: chat", "name: chat, variant: x") + "variants: {chain: true, targets: [a, b]}\n",
            ["deployment.variant: variants.chain says"],
        ),
        (DEPLOYMENT + "variants: {target: [x]}\nprofile: {prompts: [1]}\n", ["variants.target", "profile.prompts"]),
    ],
)
async def test_a_mistake_in_a_declaration_is_named_with_its_place(stage: Stage, text: str, words: list[str]) -> None:
    (stage.cli.folder / "d.yaml").write_text(text)
    for verb in ("apply", "plan"):
        ran = await stage.cli.inside(verb, "-f", "d.yaml")
        assert ran.code == 2
        assert "d.yaml" in ran.err
        for word in words:
            assert word in ran.err
    assert not stage.world.calls


async def test_a_declaration_that_cannot_be_read(stage: Stage) -> None:
    missing = await stage.cli.inside("apply", "-f", "none.yaml")
    assert (missing.code, "no such file" in missing.err) == (2, True)
    (stage.cli.folder / "latin.yaml").write_bytes(b"version: 1\nmodel: {name: caf\xe9}\n")
    latin = await stage.cli.inside("apply", "-f", "latin.yaml")
    assert latin.code == 2
    assert "is not UTF-8 text (line 2, byte 28)" in latin.err
    folder = await stage.cli.inside("apply", "-f", ".")
    assert (folder.code, "cannot be read" in folder.err) == (2, True)


async def test_a_declared_model_without_files_is_refused_before_anything_is_made(stage: Stage) -> None:
    (stage.cli.folder / "d.yaml").write_text(DEPLOYMENT)
    ran = await stage.cli.inside("apply", "-f", "d.yaml")
    assert ran.code == 2
    assert "no such file or folder" in ran.err
    assert not stage.world.calls


async def test_text_that_is_not_utf8_is_refused(stage: Stage) -> None:
    ran = await stage.cli("chat", "chat", stdin=b"caf\xe9")
    assert ran.code == 2
    assert "stdin: is not UTF-8 text (byte 3)" in ran.err


@pytest.mark.parametrize(("content", "words"), [("{", "cannot be read"), ("[]", "not a JSON object")])
async def test_a_broken_endpoints_file_is_named(bare_cli: Cli, content: str, words: str) -> None:
    state = bare_cli.folder / "state"
    state.mkdir()
    (state / "endpoints.json").write_text(content)
    ran = await bare_cli.inside("model", "list", "--state-dir", "state")
    assert ran.code == 2
    assert words in ran.err
    assert "endpoints.json" in ran.err


async def test_a_bad_address_is_misuse(bare_cli: Cli) -> None:
    bare_cli.environment["TRADEWIND_COMPILER"] = "nowhere"
    ran = await bare_cli.inside("model", "list")
    assert (ran.code, "write host:port" in ran.err) == (2, True)


async def test_debug_shows_the_traceback(bare_cli: Cli) -> None:
    process = await bare_cli.start("model", "list", "--debug")
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"Traceback" in err


def test_the_example_is_valid_and_the_schema_is_written_down() -> None:
    import json

    from tradewind.cli.declaration import json_schema, read_declaration

    root = Path(__file__).parents[2]
    for file in (root / "deploy" / "examples").glob("*.yaml"):
        read_declaration(file)
    assert json.loads((root / "deploy" / "examples" / "deployment.schema.json").read_text()) == json_schema()
