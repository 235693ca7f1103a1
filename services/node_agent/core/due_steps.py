"""When the next decode step of a schedule is due, and what fits before it: `Pacer` for sequences in slots. Pure."""

from __future__ import annotations

from services.node_agent.core.in_hand import Paces
from services.node_agent.core.pacing import Pacer
from services.node_agent.core.schedule import State
from services.node_agent.core.shapes import Shapes


class DueSteps:
    """Holds decode steps back as long as the pace allows. All times by one monotonic clock.

    Args:
        shapes: the engine's functions.
        paces: what its steps took lately; read only.
    """

    def __init__(self, shapes: Shapes, paces: Paces) -> None:
        self._shapes, self._paces, self._pacer = shapes, paces, Pacer()
        self._decoding: dict[int, int] = {}

    def repace(self, pace_s: float, now_s: float) -> None:
        """Another pace from now on; 0 for steps as soon as they can."""
        self._pacer.repace(pace_s, now_s)

    def stepped(self, began_s: float) -> None:
        """A decode step, which began then, is done."""
        self._pacer.stepped(began_s)

    def follow(self, state: State, now_s: float) -> None:
        """Takes note of who decodes: a first token came just now, an answer ended or was cancelled. Idempotent."""
        decoding = {one.sequence_id: slot for slot, one in enumerate(state.slots) if one is not None and one.decoding}
        for sequence_id in self._decoding.keys() - decoding.keys():
            self._pacer.leaves(sequence_id)
        for sequence_id in decoding.keys() - self._decoding.keys():
            self._pacer.joins(sequence_id, now_s)
        self._decoding = decoding

    def wait_s(self, now_s: float) -> float | None:
        """How long the next decode step is held back, 0 when it is not; None when nothing decodes."""
        if not self._decoding:
            return None
        return max(0.0, self._pacer.wait_s(self._step_s, now_s)) if self._pacer.pace_s else 0.0

    def room_tokens(self, now_s: float) -> int | None:
        """The largest chunk that can be taken in before the next decode step is due; None when none is held back."""
        wait_s = self.wait_s(now_s)
        if not wait_s:
            return None
        sizes = {function.tokens for function in self._shapes.prefills}
        return max((size for size in sizes if self._paces.chunk_s(size) <= wait_s), default=0)

    @property
    def _step_s(self) -> float:
        """What the step takes; as any step when none of its function was seen yet."""
        batch = self._shapes.batch_of(max(self._decoding.values()))
        return self._paces.by_batch.get(batch, self._paces.decode).each_s
