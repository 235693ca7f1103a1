"""Planner for MIG layouts: which slices a board gets, where, and in which order it gets there.

    planner = Planner(DeviceTable("A100", profiles))          # once for each kind of board
    answer = planner.plan(Standing(layout, live, pinned), {9: 1, 19: 3}, Policy())
    answer = planner.admit(standing, profile_id)              # one more slice
    violations = check_plan(table, standing, wanted, answer)  # second opinion, shares no code

Pure: no clock, no randomness, nothing read or written; imports nothing of the project but itself.
"""

from .check import Violation, check_admission, check_plan
from .model import DeviceTable, GiProfile, Layout, Placement, Slice, Standing, Wanted
from .plan import Action, Move, Order, Plan, Policy, Refusal, RefusalReason, Step
from .planner import Planner
from .report import report
from .space import LayoutSpace

__all__ = [
    "Action",
    "DeviceTable",
    "GiProfile",
    "Layout",
    "LayoutSpace",
    "Move",
    "Order",
    "Placement",
    "Plan",
    "Planner",
    "Policy",
    "Refusal",
    "RefusalReason",
    "Slice",
    "Standing",
    "Step",
    "Violation",
    "Wanted",
    "check_admission",
    "check_plan",
    "report",
]
