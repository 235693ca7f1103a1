"""Power budgets of boards, nodes and sites: which caps may be asked for now. Pure.

Until a lower cap has been read back, the board is charged for the higher one it may still draw. So the sum of what all
boards can draw is within every budget at every moment, also between a request and its effect, whatever fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on what some boards may draw together.

    Attributes:
        name: for instance "node n1".
        limit_mw: for all of them.
        boards: their ids.
    """

    name: str
    limit_mw: int
    boards: frozenset[str]


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be asked of boards now, and what has to wait or cannot be.

    Attributes:
        now_mw: caps to ask for, by board.
        waiting: boards whose raise waits until others' lower caps are read back, with the reason.
        refused: boards whose cap would break a budget even then, with the reason.
    """

    now_mw: Mapping[str, int]
    waiting: Mapping[str, str]
    refused: Mapping[str, str]


def grant(budgets: Iterable[Budget], enforced_mw: Mapping[str, int], asked_mw: Mapping[str, int]) -> Grant:
    """Which of the asked caps may be set now.

    Lower caps are always granted. Raises are granted in the order of the boards' ids while every budget holds with all
    boards charged the worst of what they enforce and what they were granted.

    Args:
        budgets: all that apply.
        enforced_mw: cap read back, of every board; the device's most where none could be read.
        asked_mw: wanted caps, by board.
    """
    limits = list(budgets)
    now: dict[str, int] = {board: cap for board, cap in asked_mw.items() if cap <= enforced_mw[board]}
    waiting: dict[str, str] = {}
    refused: dict[str, str] = {}
    charged = dict(enforced_mw)
    planned = {board: now.get(board, cap) for board, cap in enforced_mw.items()}
    for board in sorted(asked_mw.keys() - now.keys()):
        cap = asked_mw[board]
        if words := _overdrawn(limits, planned, board, cap):
            refused[board] = words
            continue
        planned[board] = cap
        if words := _overdrawn(limits, charged, board, cap):
            waiting[board] = words
            continue
        charged[board] = now[board] = cap
    return Grant(now, waiting, refused)


def _overdrawn(budgets: Iterable[Budget], charged: Mapping[str, int], board: str, cap_mw: int) -> str:
    for budget in budgets:
        if board not in budget.boards:
            continue
        others_mw = sum(mw for other, mw in charged.items() if other in budget.boards and other != board)
        if others_mw + cap_mw > budget.limit_mw:
            free_mw = max(0, budget.limit_mw - others_mw)
            return (
                f"{cap_mw} mW breaks the budget of {budget.name}: {budget.limit_mw} mW, of which other boards are "
                f"charged {others_mw} mW and {free_mw} mW are left"
            )
    return ""


def share(budget_mw: int, asked_mw: Mapping[str, int], least_mw: Mapping[str, int]) -> dict[str, int]:
    """Caps within a budget: each board gets what it asks, the largest askers are cut to one common level.

    Never below what a board takes at least; where even those break the budget, `grant` says so.

    Args:
        budget_mw: of all boards together.
        asked_mw: wanted caps, by board.
        least_mw: least cap that each board takes.
    """
    left_mw, left = budget_mw, sorted(asked_mw, key=lambda board: (asked_mw[board], board))
    shares: dict[str, int] = {}
    while left:
        board = left.pop(0)
        level_mw = left_mw // (len(left) + 1)
        shares[board] = max(least_mw[board], min(asked_mw[board], level_mw))
        left_mw -= shares[board]
    return shares
