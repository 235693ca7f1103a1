"""The least quality a user accepts, such as "top1=0.97,kl=0.01,ppl=0.5%" or, of tensors, "error=0.1%". Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

EXAMPLE: Final = "top1=0.97,kl=0.01,ppl=0.5%"


@dataclass(frozen=True, slots=True)
class QualityFloor:
    """Limits on top of the thresholds of each precision; None asks for nothing.

    Attributes:
        top1_least: least share of positions with the source's most likely token.
        kl_most_nats: most mean divergence, in nats a token.
        perplexity_increase_most: most relative increase of perplexity.
        error_most: most relative error (L2) of a tensor model's answers, which have no other figure.
    """

    top1_least: float | None = None
    kl_most_nats: float | None = None
    perplexity_increase_most: float | None = None
    error_most: float | None = None

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a limit that nothing can meet, or that is no number.
        """
        if self.top1_least is not None and not 0 <= self.top1_least <= 1:
            raise ValueError(f"top1={self.top1_least:g} is no share between 0 and 1")
        limits = (("kl", self.kl_most_nats), ("ppl", self.perplexity_increase_most), ("error", self.error_most))
        for name, value in limits:
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value:g} is no limit; it is 0 or more")

    @property
    def asks(self) -> bool:
        """Whether it asks for anything."""
        return self != QualityFloor()

    @property
    def asks_of_text(self) -> bool:
        """Whether it asks for a figure that only models which generate have."""
        return replace(self, error_most=None).asks

    def missed(self, top1: float, kl_nats: float, perplexity_increase: float) -> str:
        """What figures fall short of, in a person's words; "" when they do not."""
        said = []
        if self.top1_least is not None and not top1 >= self.top1_least:
            said.append(f"top-1 {top1:.4f} where ≥ {self.top1_least:g} is asked for")
        if self.kl_most_nats is not None and not kl_nats <= self.kl_most_nats:
            said.append(f"KL {kl_nats:.2g} nats where ≤ {self.kl_most_nats:g} is asked for")
        limit = self.perplexity_increase_most
        if limit is not None and not perplexity_increase <= limit:
            said.append(f"perplexity {perplexity_increase:+.2%} where ≤ {limit:.3%} is asked for")
        return ", ".join(said)

    def missed_by_tensors(self, error: float) -> str:
        """As `missed`, of a tensor model's largest relative error."""
        if self.error_most is None or error <= self.error_most:
            return ""
        return f"relative error {error:.2g} where ≤ {self.error_most:g} is asked for"


def quality_floor(text: str) -> QualityFloor:
    """What "top1=0.97,kl=0.01,ppl=0.5%" means; shares may be written in per cent.

    Raises:
        ValueError: no such figure, one given twice, or no number.
    """
    names = {"top1": "top1_least", "kl": "kl_most_nats", "ppl": "perplexity_increase_most", "error": "error_most"}
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in names:
            raise ValueError(f"{part.strip()!r} is none of {', '.join(names)}; write for instance {EXAMPLE}")
        if names[name] in found:
            raise ValueError(f"{name} stands twice in {text!r}")
        found[names[name]] = _number(name, value)
    return QualityFloor(**found)


def _number(name: str, text: str) -> float:
    per_cent = text.endswith("%") and name != "kl"
    try:
        number = float(text.removesuffix("%") if per_cent else text)
    except ValueError:
        raise ValueError(f"{name}={text} is no number; write for instance {EXAMPLE}") from None
    if number != number:
        raise ValueError(f"{name}={text} is no number; write for instance {EXAMPLE}")
    return number / 100 if per_cent else number
