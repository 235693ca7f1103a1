"""The real model, through the whole system: SmolLM2-135M-Instruct is asked for the capital of France."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.stack import CALL_S, running
from tests.real_model import smollm2
from tradewind.v1 import common_pb2, compiler_pb2, orchestrator_pb2


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
            messages=[{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
            temperature=0,
            max_tokens=30,
        )
        assert "Paris" in (answer.choices[0].message.content or "")
        assert answer.choices[0].finish_reason == "stop"
