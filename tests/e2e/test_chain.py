"""A fallback chain from `variant build --chain` to an answer: the node serves the first link that it can load."""

from __future__ import annotations

import uuid

import pytest

from tests.e2e.conftest import Prepared
from tests.e2e.stack import CALL_S, until
from tradewind.v1 import compiler_pb2, orchestrator_pb2

pytestmark = pytest.mark.timeout(600)
SHORT = ("--prompt-tokens", "16", "--output-tokens", "8")


def test_a_chain_is_built_measured_deployed_and_answers(prepared: Prepared) -> None:
    stack, name = prepared.stack, f"anywhere-{uuid.uuid4().hex[:8]}"
    stack.run("variant", "build", "tiny", "--target", "metal,vmvx", "--chain", "--context", "64")
    search = stack.compiler.GetSearch(compiler_pb2.GetSearchRequest(model="tiny"), timeout=CALL_S).search
    metal, portable = search.chain.variant_ids
    stack.run("profile", "run", "tiny", "--chain", "--prompt", "16", "--concurrency", "1", "--partition", "cpu/2")
    stack.run("deploy", "tiny", "--name", name, "--chain", *SHORT)
    placed = stack.until_ready(name)
    assert list(placed.variant_ids) == [portable], "no device here loads Metal's"
    assert refusals_of(prepared, name)[metal] == "NO_PROFILE"
    text = stack.openai().completions.create(model=name, prompt="a", max_tokens=4, temperature=0)
    assert text.usage is not None and text.usage.completion_tokens > 0

    spec, native = placed.spec, prepared.variants[0].variant_id
    del spec.chain_variant_ids[:]
    spec.chain_variant_ids.extend([metal, native, portable])
    assert list(stack.update(name, spec).variant_ids) == [native]
    assert refusals_of(prepared, name)[portable] == "EARLIER_LINK"
    stack.orchestrator.DeleteDeployment(
        orchestrator_pb2.DeleteDeploymentRequest(request_id=uuid.uuid4().hex, deployment=name), timeout=CALL_S
    )
    until(lambda: not stack.processes("services.node_agent.replica"), "its replicas stopped")


def refusals_of(prepared: Prepared, name: str) -> dict[str, str]:
    """Why options of a deployment were not taken, by variant."""
    request = orchestrator_pb2.ExplainDeploymentRequest(deployment=name)
    explanation = prepared.stack.orchestrator.ExplainDeployment(request, timeout=CALL_S).explanation
    return {c.point.variant_id: c.refusal for c in explanation.candidates if not c.chosen}
