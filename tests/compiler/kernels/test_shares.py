"""Work in equal shares: even numbers for even numbers of workers, but not at the price of most of the workers."""

from __future__ import annotations

import pytest

from services.compiler.kernels.text import equal_shares


@pytest.mark.parametrize(
    ("pieces", "most", "shares"),
    [(30, 15, 10), (32, 15, 8), (22, 15, 11), (14, 8, 7), (12, 15, 12), (7, 15, 7), (5, 0, 1)],
)
def test_an_even_number_unless_it_is_far_smaller(pieces: int, most: int, shares: int) -> None:
    assert equal_shares(pieces, most) == shares
