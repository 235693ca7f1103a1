"""What one call of a model says of the next tokens: its logits, and the largest of them where the variant finds them.

Holds what the runtime gave; a row is brought to the host when it is asked for, and on a GPU the logits cross only then.
"""

from __future__ import annotations

from typing import Any

from services.node_agent.core.sampling import Choice, Logits, Picks, choose, choose_picked, picks_suffice
from tradewind.iree_arrays import to_host


class Scores:
    """Answers of the sequences of one call, valid until the model's next call.

    Args:
        logits: f32 [B, V]; an array, or one on the device.
        values: f32 [B, K], the largest logits of each row, largest first, equals by id; None where not found.
        ids: i32 [B, K], their tokens.
    """

    def __init__(self, logits: Any, values: Any = None, ids: Any = None) -> None:
        self._logits, self._values, self._ids = logits, values, ids
        self._here: dict[str, Any] = {}

    @classmethod
    def of(cls, answer: Any) -> Scores:
        """From what a function of the module gave: logits, or logits, values and ids."""
        return cls(*answer) if isinstance(answer, list | tuple) else cls(answer)

    def logits(self, row: int) -> Logits:
        """All logits [V] of a sequence."""
        found: Logits = self._fetched("logits", self._logits)[row]
        return found

    def choose(self, row: int, choice: Choice, draw: float) -> int:
        """A sequence's next token, from its largest logits where they suffice and from all of them else."""
        if self._ids is None:
            return choose(self.logits(row), choice, draw)
        ids = self._fetched("ids", self._ids)[row]
        if not picks_suffice(choice, len(ids)):
            return choose(self.logits(row), choice, draw)
        return choose_picked(Picks(self._fetched("values", self._values)[row], ids), choice, draw)

    def _fetched(self, name: str, held: Any) -> Any:
        if name not in self._here:
            self._here[name] = to_host(held)
        return self._here[name]
