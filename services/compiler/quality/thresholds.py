"""Which figures let a variant serve. The only such table; docs/compiler.md says where its numbers come from. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.compiler.quality.comparison import Figures


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits for a precision.

    Attributes:
        top1_least: least share of positions with the reference's most likely token.
        kl_most_nats: most mean Kullback-Leibler divergence.
        perplexity_increase_most: most relative increase of perplexity; it must be below with 95 % confidence.
        rounded_weights: whether weights have fewer bits than any arithmetic.
    """

    top1_least: float
    kl_most_nats: float
    perplexity_increase_most: float
    rounded_weights: bool = False


# One-sided 95 % of a normal distribution, in standard errors: near its limit an increase counts as too large until
# it is known not to be.
_CONFIDENCE: Final = 1.645
# A function is seen on few rows, so that its mean may stray this many times as far as the mean of all.
_FUNCTION_SLACK: Final = 5

# Rounding explains the differences between precisions; nothing explains more. f32 differs by the order of additions
# only; f16 has 11 bits and bf16 8 bits of mantissa.
TABLE: Final[dict[str, Thresholds]] = {
    "f32": Thresholds(top1_least=0.99, kl_most_nats=1e-5, perplexity_increase_most=0.001),
    "f16": Thresholds(top1_least=0.97, kl_most_nats=0.002, perplexity_increase_most=0.01),
    "bf16": Thresholds(top1_least=0.93, kl_most_nats=0.03, perplexity_increase_most=0.03),
    # Rounded weights: a loss of 1 % of perplexity is what a variant of fewer bits may cost, however few they are.
    "w8": Thresholds(top1_least=0.96, kl_most_nats=0.005, perplexity_increase_most=0.01, rounded_weights=True),
    "w8a8": Thresholds(top1_least=0.90, kl_most_nats=0.03, perplexity_increase_most=0.01, rounded_weights=True),
    "w4": Thresholds(top1_least=0.90, kl_most_nats=0.03, perplexity_increase_most=0.01, rounded_weights=True),
}


# Standard errors worth having, as shares of what a limit allows: a tenth of the allowed increase of perplexity, an
# eighth of the allowed disagreement.
_PRECISE_INCREASE: Final = 1 / 10
_PRECISE_TOP1: Final = 1 / 8


# Standard deviations of a difference of two log-probabilities that rounding explains.
_TOKEN_SLACK: Final = 4


def token_slack_nats(precision: str) -> float:
    """By how much another token than the source's may be likelier, in nats.

    Logits that differ from the source's by independent errors of variance s² diverge by s²/2 nats at most, so that the
    difference of two log-probabilities has a standard deviation of 2·√KL.

    Raises:
        KeyError: no thresholds for the precision.
    """
    return _TOKEN_SLACK * 2 * math.sqrt(TABLE[precision].kl_most_nats)


def reads_windows(precision: str) -> bool:
    """Whether a variant of this precision reads more text than the first pieces.

    What rounded weights cost comes near its limit and has to be told from it. Other precisions differ by the rounding
    of arithmetic, far below their limits or, when something is wrong, far above: the pieces tell, and who is near has
    to prove itself on them (see `judge`).

    Raises:
        KeyError: no thresholds for the precision.
    """
    return TABLE[precision].rounded_weights


def precise_enough(precision: str, figures: Figures) -> bool:
    """Whether more text would tell little more, or the divergence, which more text leaves as it is, rejects already.

    Else it looks at standard errors only, so that stopping favours no verdict.

    Raises:
        KeyError: no thresholds for the precision.
    """
    limits = TABLE[precision]
    if figures.kl_divergence_nats > limits.kl_most_nats:
        return True
    return (
        figures.perplexity_increase_error <= limits.perplexity_increase_most * _PRECISE_INCREASE
        and figures.top1_error <= (1 - limits.top1_least) * _PRECISE_TOP1
    )


def judge(precision: str, figures: Figures, kl_by_function: Mapping[str, float]) -> tuple[bool, str]:
    """Whether a variant may serve, and why, with figures, in a person's words.

    Args:
        precision: of the recipe.
        figures: over all rows.
        kl_by_function: mean divergence of each function's rows: one wrong function must not drown among right ones.

    Raises:
        KeyError: no thresholds for the precision.
    """
    limits = TABLE[precision]
    worst, worst_kl = max(kl_by_function.items(), key=lambda item: item[1])
    function_limit = limits.kl_most_nats * _FUNCTION_SLACK
    checks = (
        (figures.top1_agreement >= limits.top1_least, "top-1", f"{figures.top1_agreement:.3f}", "≥", limits.top1_least),
        (
            figures.kl_divergence_nats <= limits.kl_most_nats,
            "KL",
            f"{figures.kl_divergence_nats:.2g} nats",
            "≤",
            limits.kl_most_nats,
        ),
        (
            figures.perplexity_increase + _CONFIDENCE * figures.perplexity_increase_error
            <= limits.perplexity_increase_most,
            "perplexity increase",
            f"{figures.perplexity_increase:+.2%} ± {figures.perplexity_increase_error:.2%}",
            "≤",
            f"{limits.perplexity_increase_most:.1%} with 95 % confidence",
        ),
        (
            worst_kl <= function_limit,
            f"worst function {worst} KL",
            f"{worst_kl:.2g} nats",
            "≤",
            f"{function_limit:.2g}",
        ),
    )
    admitted = all(ok for ok, *_ in checks)
    said = ", ".join(
        f"{name} {value}" if ok else f"{name} {value} where {precision} needs {sign} {limit}"
        for ok, name, value, sign, limit in checks
    )
    where = f"on {figures.positions} positions of {figures.text}"
    return admitted, f"{'admitted' if admitted else 'rejected'} {where}: {said}"
