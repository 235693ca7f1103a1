"""Whole machines by a short text, for settings and tests: "h100-80x2", "a100-40x8", "a100-80,a30,h200-141"."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from services.node_agent.gpu.simulated.machine import SimulatedMachine
from services.node_agent.gpu.simulated.products import PRODUCTS, Product
from tradewind.domain.errors import InvalidField

# More boards than any host has; a typing error must not make a million.
MAX_BOARDS: Final = 16
_PART: Final = re.compile(r"(?P<product>[a-z0-9-]+?)(x(?P<count>[1-9]\d?))?")


def simulated_machine(
    text: str, seed: int, now_s: Callable[[], float], pause: Callable[[float], None] = lambda _seconds: None
) -> SimulatedMachine:
    """The machine of a text.

    Raises:
        InvalidField: a product that cannot be simulated, or too many boards.
    """
    products = [product for part in text.split(",") for product in _boards(part.strip())]
    if len(products) > MAX_BOARDS:
        raise InvalidField("simulated_machine", f"{len(products)} boards; {MAX_BOARDS} can be simulated")
    return SimulatedMachine(products, seed, now_s, pause)


def _boards(part: str) -> list[Product]:
    match = _PART.fullmatch(part)
    if match is None or match["product"] not in PRODUCTS:
        raise InvalidField("simulated_machine", f"{part!r} is none of {', '.join(PRODUCTS)}, with x2 for two")
    return [PRODUCTS[match["product"]]] * int(match["count"] or 1)
