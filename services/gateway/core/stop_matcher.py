"""Finds stop texts in a stream of text pieces and never lets a character of one slip out. Pure."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Cuts a text at the first stop text in it, however the text is cut into pieces.

    Of several stop texts the one that is complete first counts (and of those that end together the longest), so that
    the outcome does not depend on where pieces end. Holds back at most one character less than the longest stop text.

    Args:
        stops: stop texts, none empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.stopped = False

    @property
    def held_chars(self) -> int:
        """Characters held back because they may be the beginning of a stop text."""
        return len(self._held)

    def push(self, piece: str) -> str:
        """Takes the next piece; returns what may go out. After a stop text was found: nothing, ever."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = self._first_complete(text)
        if found is not None:
            self.stopped, self._held = True, ""
            return text[:found]
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The end of the text came: what was held back and is no stop text after all."""
        held, self._held = self._held, ""
        return held

    def _first_complete(self, text: str) -> int | None:
        """Where the stop text that is complete first begins."""
        spans = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        return min(spans)[1] if spans else None

    def _possible_beginning(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop text."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
