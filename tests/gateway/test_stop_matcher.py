"""Stop texts: nothing of one ever goes out, nothing else is lost, wherever pieces end."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.core.stop_matcher import StopMatcher

ALPHABET = "abcd"
texts = st.text(ALPHABET, max_size=40)
stop_lists = st.lists(st.text(ALPHABET, min_size=1, max_size=5), max_size=4)


def run(pieces: list[str], stops: list[str]) -> tuple[str, bool, int]:
    matcher = StopMatcher(stops)
    out, most_held = "", 0
    for piece in pieces:
        out += matcher.push(piece)
        most_held = max(most_held, matcher.held_chars)
    return out + matcher.finish(), matcher.stopped, most_held


def model(text: str, stops: list[str]) -> tuple[str, bool]:
    """The plain definition: read character by character until some stop text is complete."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(texts, stop_lists, st.lists(st.integers(0, 40), max_size=10))
@settings(deadline=None)
def test_outcome_is_that_of_the_plain_definition_wherever_pieces_end(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    bounds = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[a:b] for a, b in itertools.pairwise(bounds)]
    out, stopped, most_held = run(pieces, stops)
    assert (out, stopped) == model(text, stops)
    assert most_held <= max((len(stop) - 1 for stop in stops), default=0)


def test_a_stop_text_over_three_pieces_never_leaks() -> None:
    matcher = StopMatcher(["STOP"])
    assert [matcher.push(piece) for piece in ("go S", "TO", "P on", "x")] == ["go ", "", "", ""]
    assert matcher.stopped
    assert matcher.finish() == ""


def test_a_false_beginning_is_given_back() -> None:
    matcher = StopMatcher(["STOP"])
    assert matcher.push("ST") == ""
    assert matcher.held_chars == 2
    assert matcher.push("AY") == "STAY"
    assert matcher.held_chars == 0
