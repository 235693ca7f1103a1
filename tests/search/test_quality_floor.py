"""--min-quality: what it means, what is refused, and that variants below it do not serve."""

from __future__ import annotations

import pytest

from services.compiler.search.verdict_words import floor_of, message_of, with_floor
from tradewind.domain.quality_floor import QualityFloor, quality_floor
from tradewind.v1 import compiler_pb2


def test_it_is_read_with_per_cent_and_crosses_the_wire() -> None:
    floor = quality_floor("top1=97%, kl=0.01,ppl=0.5%")
    assert floor == QualityFloor(0.97, 0.01, 0.005)
    assert floor_of(message_of(floor)) == floor
    assert floor_of(message_of(QualityFloor(kl_most_nats=0.0))) == QualityFloor(kl_most_nats=0.0)


def test_tensors_have_a_figure_of_their_own() -> None:
    floor = quality_floor("error=0.1%")
    assert floor == QualityFloor(error_most=0.001) and floor_of(message_of(floor)) == floor
    assert floor.asks and not floor.asks_of_text and quality_floor("error=1e-3,kl=0.1").asks_of_text
    quality = compiler_pb2.Quality(relative_error=0.004, positions=12)
    variant = compiler_pb2.Variant(state=compiler_pb2.VARIANT_STATE_ADMITTED, quality=quality)
    assert with_floor(variant, quality_floor("error=0.5%")) is variant
    below = with_floor(variant, floor)
    assert below.state == compiler_pb2.VARIANT_STATE_REJECTED
    assert below.state_reason == (
        "rejected on 12 answers: below --min-quality: relative error 0.004 where ≤ 0.001 is asked for"
    )


@pytest.mark.parametrize(
    "text", ["", "top1", "top1=", "top1=1.2", "top5=0.9", "kl=nan", "kl=-1", "kl=1%", "ppl=inf", "top1=0.9,top1=0.8"]
)
def test_nonsense_is_refused_with_what_it_should_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"top1=|kl=|ppl=|stands twice"):
        quality_floor(text)


def test_a_variant_below_it_is_rejected_with_figures_and_others_are_not() -> None:
    quality = compiler_pb2.Quality(
        top1_agreement=0.95, kl_divergence_nats=0.02, perplexity=33.5, reference_perplexity=33.3, positions=400
    )
    variant = compiler_pb2.Variant(state=compiler_pb2.VARIANT_STATE_ADMITTED, quality=quality)
    assert with_floor(variant, QualityFloor()) is variant
    assert with_floor(variant, QualityFloor(top1_least=0.95)).state == compiler_pb2.VARIANT_STATE_ADMITTED
    below = with_floor(variant, quality_floor("top1=0.97,ppl=0.5%"))
    assert below.state == compiler_pb2.VARIANT_STATE_REJECTED
    assert "top-1 0.9500 where ≥ 0.97" in below.state_reason
    assert "perplexity +0.60% where ≤ 0.500%" in below.state_reason
    assert variant.state == compiler_pb2.VARIANT_STATE_ADMITTED
