"""The real model, through the whole system: SmolLM2-135M-Instruct is asked for the capital of France."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.stack import CALL_S, running
from tests.real_model import smollm2
from tradewind.v1 import common_pb2, compiler_pb2, orchestrator_pb2

README: Final = Path(__file__).parents[2] / "README.md"
# Recipes of few bits move a difference of two log-probabilities by 0.2 nats in a prompt's answer, 0.42 seen at most.
LEAST_MARGIN_NATS: Final = 0.6


def first_question() -> str:
    """What the README has a newcomer ask, on the command line and in Python."""
    text = README.read_text(encoding="utf-8")
    typed = re.findall(r'tradewind chat chat "(.+)"', text)
    written = re.findall(r'question = "(.+)"', text)
    assert len(typed) == 1
    assert typed == written
    return str(typed[0])


@pytest.mark.smollm2
@pytest.mark.timeout(900)
def test_it_knows_the_capital_of_france(tmp_path: Path) -> None:
    with running(tmp_path / "state") as stack:
        stack.import_model(smollm2(), "smollm2")
        model = stack.compiler.GetModel(compiler_pb2.GetModelRequest(model="smollm2"), timeout=CALL_S).model
        assert (model.architecture, model.layer_count, model.vocabulary_size) == ("LlamaForCausalLM", 30, 49152)
        assert model.parameter_count == 134_515_008
        assert {file.name for file in model.files} == {"tokenizer.json", "chat_template.jinja"}
        # One recipe and its fewest functions: what is asked here is the answer, the demo builds them all.
        sizes = {"prefill_chunks": [64], "decode_batches": [2], "slots": 2, "context_tokens": 256}
        (variant,) = stack.build("smollm2", "f32-grouped", **sizes)
        assert variant.state == compiler_pb2.VARIANT_STATE_ADMITTED, variant.state_reason
        assert variant.quality.top1_agreement >= 0.99
        stack.profile("smollm2")
        limit = common_pb2.LatencyLimit(metric=common_pb2.LATENCY_METRIC_TTFT, percentile=95, limit_ms=60_000)
        stack.create("chat", orchestrator_pb2.DeploymentSpec(model="smollm2", slo=common_pb2.Slo(latency=[limit])))
        answer = stack.openai().chat.completions.create(
            model="chat",
            messages=[{"role": "user", "content": first_question()}],
            temperature=0,
            max_tokens=30,
            logprobs=True,
            top_logprobs=2,
        )
        assert "Paris" in (answer.choices[0].message.content or "")
        assert answer.choices[0].finish_reason == "stop"
        # The source's own margins: nothing that rounds may turn a newcomer's first answer into another one.
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None and logprobs.content
        for token in logprobs.content:
            likeliest, second = token.top_logprobs
            assert likeliest.logprob - second.logprob >= LEAST_MARGIN_NATS, token
