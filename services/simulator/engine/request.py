"""One request of a trace on its way."""

from __future__ import annotations


class Request:
    """A request; times are seconds of the run, negative while they have not come.

    Attributes:
        number: its place in the trace.
        first_s: when its first token came.
        done_s: when its last token came.
        replica_id: where it is, or was last.
        attempts: replicas it was given to.
        cut: its replica ended after its first token; its stream broke, as it does live.
        refused: no replica had room for it; it was told to come later.
    """

    __slots__ = (
        *("arrival_s", "attempts", "cut", "done_s", "first_s", "number", "output_tokens", "prompt_tokens"),
        *("refused", "replica_id"),
    )

    def __init__(self, number: int, arrival_s: float, prompt_tokens: int, output_tokens: int) -> None:
        self.number, self.arrival_s = number, arrival_s
        self.prompt_tokens, self.output_tokens = prompt_tokens, output_tokens
        self.first_s = self.done_s = -1.0
        self.replica_id, self.attempts = "", 0
        self.cut = self.refused = False

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.first_s - self.arrival_s

    @property
    def tpot_s(self) -> float:
        """Mean time of a later token; 0 for answers of one token."""
        return (self.done_s - self.first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else 0.0

    @property
    def e2e_s(self) -> float:
        """Time to the last token."""
        return self.done_s - self.arrival_s

    @property
    def whole(self) -> bool:
        """Whether it was answered to its end."""
        return self.done_s >= 0.0 and not self.cut and not self.refused

    def within(self, ttft_s: float, tpot_s: float, e2e_s: float) -> bool:
        """Whether it is done, whole, and within every limit; an infinite one is none."""
        return self.whole and self.ttft_s <= ttft_s and self.tpot_s <= tpot_s and self.e2e_s <= e2e_s
