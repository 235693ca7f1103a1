"""What a gateway knows of the prompts that replicas hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.core.held import BLOCK_TOKENS, HeldPrompts, chain_of

TURN = list(range(3 * BLOCK_TOKENS))


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_whole_blocks_that_begin_alike_are_found(common: int, one: int, other: int) -> None:
    held = HeldPrompts()
    first, second = [7] * common + [1] * one, [7] * common + [2] * other
    held.took("r", chain_of(first), 4)
    alike = common + min(one, other) * (first == second)
    blocks = alike // BLOCK_TOKENS
    assert held.tokens(["r", "new"], chain_of(second)) == ({"r": blocks * BLOCK_TOKENS} if blocks else {})


def test_a_turn_takes_the_place_of_the_one_before() -> None:
    held = HeldPrompts()
    other = [99] * BLOCK_TOKENS
    held.took("r", chain_of(other), 2)
    for turns in (1, 2, 3):
        held.took("r", chain_of(TURN * turns), 2)
    assert held.tokens(["r"], chain_of(other)) == {"r": BLOCK_TOKENS}
    assert held.tokens(["r"], chain_of(TURN * 4)) == {"r": 9 * BLOCK_TOKENS}


def test_prompts_that_only_open_alike_are_remembered_side_by_side() -> None:
    held = HeldPrompts()
    talks = [[*TURN, *[who] * BLOCK_TOKENS] for who in (201, 202)]
    for talk in talks:
        held.took("r", chain_of(talk), 2)
    assert [held.tokens(["r"], chain_of(talk)) for talk in talks] == [{"r": len(talk)} for talk in talks]


def test_the_prompt_before_the_last_slots_is_forgotten() -> None:
    held = HeldPrompts()
    for first in range(3):
        held.took("r", chain_of([first] * BLOCK_TOKENS), 2)
    assert held.tokens(["r"], chain_of([0] * BLOCK_TOKENS)) == {}
    assert held.tokens(["r"], chain_of([1] * BLOCK_TOKENS)) == {"r": BLOCK_TOKENS}


def test_another_salt_is_another_prompt() -> None:
    held = HeldPrompts()
    held.took("r", chain_of(TURN, "mine"), 2)
    assert held.tokens(["r"], chain_of(TURN)) == {}
    assert held.tokens(["r"], chain_of(TURN, "mine")) == {"r": len(TURN)}
