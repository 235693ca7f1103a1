"""Which figures let a variant serve. The only such table; docs/compiler.md says where its numbers come from. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from services.compiler.quality.comparison import Figures


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits for a precision.

    Attributes:
        top1_least: least share of positions with the reference's most likely token.
        kl_most_nats: most mean Kullback-Leibler divergence.
        perplexity_increase_most: most relative increase of perplexity; it must be below with 95 % confidence.
        greedy_least: least share of the source's greedy answer before the first token that is neither the source's
            nor, within `token_slack_nats`, a tie with it.
        rounded_weights: whether weights have fewer bits than any arithmetic.
    """

    top1_least: float
    kl_most_nats: float
    perplexity_increase_most: float
    greedy_least: float
    rounded_weights: bool = False


# One-sided 95 % of a normal distribution, in standard errors: near its limit an increase counts as too large until
# it is known not to be.
_CONFIDENCE: Final = 1.645
# A function is seen on few rows, so that its mean may stray this many times as far as the mean of all.
_FUNCTION_SLACK: Final = 5

# Rounding explains the differences between precisions; nothing explains more. f32 differs by the order of additions
# only; f16 has 11 bits and bf16 8 bits of mantissa.
TABLE: Final[dict[str, Thresholds]] = {
    "f32": Thresholds(0.99, kl_most_nats=1e-5, perplexity_increase_most=0.001, greedy_least=1.0),
    "f16": Thresholds(0.97, kl_most_nats=0.002, perplexity_increase_most=0.01, greedy_least=0.75),
    "bf16": Thresholds(0.93, kl_most_nats=0.03, perplexity_increase_most=0.03, greedy_least=0.5),
    # Rounded weights: a loss of 1 % of perplexity is what a variant of fewer bits may cost, however few they are.
    "w8": Thresholds(0.96, 0.005, perplexity_increase_most=0.01, greedy_least=0.75, rounded_weights=True),
    "w8a8": Thresholds(0.90, 0.03, perplexity_increase_most=0.01, greedy_least=0.5, rounded_weights=True),
    "w4": Thresholds(0.90, 0.03, perplexity_increase_most=0.01, greedy_least=0.5, rounded_weights=True),
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


class Check(StrEnum):
    """What a variant is held to; the same names as `tradewind.v1.QualityCheck`."""

    TOP1 = "top-1"
    KL_DIVERGENCE = "KL"
    PERPLEXITY = "perplexity increase"
    FUNCTION = "worst function"
    GREEDY = "greedy tokens"


class Verdict(NamedTuple):
    """Whether a variant may serve.

    Attributes:
        admitted: it may.
        why: with figures, in a person's words.
        failed: what it is outside of; nothing when admitted.
    """

    admitted: bool
    why: str
    failed: tuple[Check, ...]


class _Looked(NamedTuple):
    """One check: whether it holds, the figure in words, and what is needed."""

    check: Check
    holds: bool
    said: str
    needed: str


def judge(precision: str, figures: Figures, kl_by_function: Mapping[str, float]) -> Verdict:
    """Whether a variant may serve, and why.

    Args:
        precision: of the recipe.
        figures: over all rows.
        kl_by_function: mean divergence of each function's rows: one wrong function must not drown among right ones.

    Raises:
        KeyError: no thresholds for the precision.
    """
    looked = _looks(TABLE[precision], figures, kl_by_function)
    failed = tuple(one.check for one in looked if not one.holds)
    said = ", ".join(one.said if one.holds else f"{one.said} where {precision} needs {one.needed}" for one in looked)
    where = f"on {figures.positions} positions of {figures.text}"
    return Verdict(not failed, f"{'rejected' if failed else 'admitted'} {where}: {said}", failed)


def _looks(limits: Thresholds, figures: Figures, kl_by_function: Mapping[str, float]) -> tuple[_Looked, ...]:
    worst, worst_kl = max(kl_by_function.items(), key=lambda item: item[1])
    function_limit = limits.kl_most_nats * _FUNCTION_SLACK
    increase, error = figures.perplexity_increase, figures.perplexity_increase_error
    return (
        _Looked(
            Check.TOP1,
            figures.top1_agreement >= limits.top1_least,
            f"{Check.TOP1} {figures.top1_agreement:.3f}",
            f"≥ {limits.top1_least}",
        ),
        _Looked(
            Check.KL_DIVERGENCE,
            figures.kl_divergence_nats <= limits.kl_most_nats,
            f"{Check.KL_DIVERGENCE} {figures.kl_divergence_nats:.2g} nats",
            f"≤ {limits.kl_most_nats}",
        ),
        _Looked(
            Check.PERPLEXITY,
            increase + _CONFIDENCE * error <= limits.perplexity_increase_most,
            f"{Check.PERPLEXITY} {increase:+.2%} ± {error:.2%}",
            f"≤ {limits.perplexity_increase_most:.1%} with 95 % confidence",
        ),
        _Looked(
            Check.FUNCTION,
            worst_kl <= function_limit,
            f"{Check.FUNCTION} {worst} KL {worst_kl:.2g} nats",
            f"≤ {function_limit:.2g}",
        ),
        _Looked(
            Check.GREEDY,
            figures.greedy_agreement >= limits.greedy_least,
            f"{Check.GREEDY} {figures.greedy_agreed_tokens} of {figures.greedy_tokens} but for ties",
            f"≥ {limits.greedy_least:.0%}",
        ),
    )
