"""A mean that forgets: exponentially weighted in time, without the bias of its first values. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Faded:
    """Sum and weight of values; each loses 1/e of its weight in the time constant it is added with."""

    total: float = 0.0
    weight: float = 0.0

    def plus(self, value: float, share: float, keep: float) -> Faded:
        """With one more value of this share of weight, after the others kept `keep` of theirs."""
        return Faded(self.total * keep + value * share, self.weight * keep + share)

    def after(self, value: float, length_s: float, constant_s: float) -> Faded:
        """With a value that held for `length_s`."""
        keep = math.exp(-length_s / constant_s)
        return self.plus(value, 1.0 - keep, keep)

    @property
    def mean(self) -> float:
        """The mean of what was added; 0 of nothing."""
        return self.total / self.weight if self.weight > 0.0 else 0.0


NOTHING: Final = Faded()
