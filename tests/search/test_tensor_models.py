"""A search over recipes for a model that maps tensors to tensors: timed, compared, kept by the same rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.compiler.search.core.facts import Candidate, Cost, Measured
from services.compiler.search.core.front import pareto
from tests.compiler.conftest import Service
from tests.tiny_model import write_tiny_model
from tradewind.domain.errors import RemoteError
from tradewind.v1 import compiler_pb2, operation_pb2

KEPT, BELOW = compiler_pb2.CANDIDATE_FATE_KEPT, compiler_pb2.CANDIDATE_FATE_BELOW_FLOOR


@pytest.mark.timeout(600)
async def test_an_encoder_is_searched_within_its_own_kind_of_floor(
    service: Service,
    tmp_path: Path,
) -> None:
    folder = write_tiny_model(tmp_path / "bert", architecture="BertModel", num_hidden_layers=1)
    await service.end_of(await service.begin_import(folder, "bert"))
    for quality, words in (
        (compiler_pb2.MinQuality(top1_agreement=0.9), "ask for error="),
        (compiler_pb2.MinQuality(relative_error=-1.0), "0 or more"),
    ):
        with pytest.raises(RemoteError, match=words):
            await service.begin_build("bert", search=True, min_quality=quality)
    with pytest.raises(RemoteError, match="takes recipes in f32, f16, bf16"):
        await service.begin_build("bert", recipes=["w4-kernels"])

    floor = compiler_pb2.MinQuality(relative_error=1e-4)
    wanted = {"targets": ["cpu:host", "cuda:sm_80"], "search": True, "min_quality": floor, "context_tokens": 32}
    built = await service.end_of(await service.begin_build("bert", **wanted))
    assert built.state == operation_pb2.OPERATION_STATE_DONE, built.error
    with_search = compiler_pb2.GetSearchRequest(model="bert")
    search = (await service.compiler.GetSearch(with_search, timeout=10)).search
    here = {c.recipe: c for c in search.candidates if c.target == "cpu:host"}
    assert {"f32-grouped", "f32-grouped-gdt", "bf16-grouped"} <= set(here), "kernels of few bits are for text"
    assert {c.precision for c in here.values()} == {"f32", "f16", "bf16"}
    kept = [c for c in here.values() if c.fate == KEPT]
    assert kept and {c.precision for c in kept} == {"f32"}
    for candidate in kept:
        (trial,) = candidate.trials
        assert {cost.function for cost in trial.costs} == {"infer_b1_l32", "infer_b8_l32"}
        assert all(cost.time_ms > 0 and cost.cpu_ms > 0 for cost in trial.costs)
        assert 0 < trial.relative_error < 1e-4 and trial.memory_bytes > 0 and trial.measured_on
    assert here["bf16-grouped"].fate == BELOW and "relative error" in here["bf16-grouped"].reason
    there = [c for c in search.candidates if c.target == "cuda:sm_80"]
    assert [c.fate == KEPT for c in there].count(True) == 1
    assert "f16-gpu-picks" not in {c.recipe for c in there}, "without logits it is f16-gpu"
    again = await service.end_of(await service.begin_build("bert", **wanted))
    assert set(again.result_ids) == set(built.result_ids)


def test_a_larger_error_is_kept_only_for_something_better() -> None:
    def measured(time_ms: float, error: float) -> Measured:
        return Measured((Cost("infer_b1_l32", time_ms, time_ms),), 1 << 20, relative_error=error)

    candidates = [Candidate("exact", "f32"), Candidate("quick", "bf16"), Candidate("neither", "f16")]
    seen = {"exact": measured(2, 1e-6), "quick": measured(1, 1e-2), "neither": measured(2, 1e-3)}
    found = pareto(candidates, seen)
    assert found["exact"] is None and found["quick"] is None
    assert found["neither"] is not None and "relative error" in found["neither"].words
