"""Figures and what they are called: sums take the weakest label, what is not known is null, estimates say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.gateway.core.energy_estimate import PROMPT_TOKEN_SHARE, EnergyEstimates
from services.gateway.openai.figures import usage_json
from services.gateway.text.artifact_cache import ArtifactCache, digest_of
from tradewind.domain.errors import ArtifactRejected
from tradewind.v1 import common_pb2, inference_pb2

COUNTER = common_pb2.FIGURE_SOURCE_MEASURED_COUNTER
MODELLED = common_pb2.FIGURE_SOURCE_MODELLED
UNAVAILABLE = common_pb2.FIGURE_SOURCE_UNAVAILABLE


def usage(
    energy_mj: float, source: common_pb2.FigureSource.ValueType, method: str = "m@1", prompt: int = 10, output: int = 4
) -> inference_pb2.Usage:
    energy = common_pb2.Energy(energy_mj=energy_mj, source=source, method=method)
    return inference_pb2.Usage(prompt_tokens=prompt, output_tokens=output, energy=energy)


def test_sums_take_the_weakest_label() -> None:
    total = usage_json([usage(10, COUNTER, "nvml@1"), usage(5, MODELLED, "cpu@1")], prompts=2)
    assert (total["energy_mj"], total["energy_source"]) == (15, "modelled")
    assert total["energy_method"] == "cpu@1, nvml@1"
    assert usage_json([usage(10, COUNTER)], prompts=1)["energy_source"] == "measured_counter"


@pytest.mark.parametrize("source", [UNAVAILABLE, common_pb2.FIGURE_SOURCE_UNSPECIFIED])
def test_a_part_without_a_figure_leaves_the_sum_without_one(source: common_pb2.FigureSource.ValueType) -> None:
    total = usage_json([usage(10, COUNTER), usage(0, source)], prompts=2)
    assert (total["energy_mj"], total["energy_source"]) == (None, "unavailable")


def test_a_prompt_counts_once_for_all_its_choices() -> None:
    usages = [usage(1, COUNTER, prompt=10), usage(1, COUNTER, prompt=10)]
    usages += [usage(1, COUNTER, prompt=7), usage(1, COUNTER, prompt=7)]
    total = usage_json(usages, prompts=2)
    assert (total["prompt_tokens"], total["completion_tokens"], total["total_tokens"]) == (17, 16, 33)


def test_estimates_are_modelled_and_proportional() -> None:
    estimates = EnergyEstimates()
    assert estimates.estimate("v", 10, 5).source == UNAVAILABLE
    estimates.learn("v", usage(0, UNAVAILABLE))
    assert estimates.estimate("v", 10, 5).source == UNAVAILABLE, "no figure teaches nothing"
    estimates.learn("v", usage(100, COUNTER, prompt=100, output=90))
    guess = estimates.estimate("v", 0, 10)
    assert guess.source == MODELLED
    assert guess.energy_mj == pytest.approx(100 / (100 * PROMPT_TOKEN_SHARE + 90) * 10)
    assert estimates.estimate("other", 10, 5).source == UNAVAILABLE


def test_the_file_cache_checks_what_it_reads_and_stays_small(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, max_bytes=250)
    contents = [bytes([number]) * 100 for number in range(3)]
    for content in contents:
        cache.write(digest_of(content), content)
    kept = [cache.read(digest_of(content)) for content in contents]
    assert kept[2] == contents[2]
    assert kept.count(None) == 1, "250 bytes hold two of three"
    with pytest.raises(ArtifactRejected, match="has other content"):
        cache.write(digest_of(b"one"), b"two")
    with pytest.raises(ArtifactRejected, match="no digest"):
        cache.read("sha256:../../etc/passwd")
    for file in tmp_path.iterdir():
        file.write_bytes(b"damaged")
    assert cache.read(digest_of(contents[2])) is None
