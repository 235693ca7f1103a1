"""A plan in words, for logs, journals and the command line. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable

from .model import DeviceTable, Slice
from .plan import Plan


def report(table: DeviceTable, plan: Plan) -> str:
    """What a plan does, a line for each kind of effect and one for each step."""
    if not plan.steps:
        return f"{table.name}: nothing to do, {table.describe(plan.after)} stands"
    lines = [
        f"{table.name}: {table.describe(plan.before)} → {table.describe(plan.after)}",
        f"  kept {len(plan.kept)}: {table.describe(plan.kept)}",
        f"  destroyed {len(plan.destroyed)}: {table.describe(plan.destroyed)}"
        f" ({len(plan.live_destroyed)} with live work)",
        f"  created {len(plan.created)}: {table.describe(plan.created)}",
        f"  one more slice can then be placed in {plan.open_starts_after} ways",
    ]
    lines += [f"  {line}" for line in _moves(table, plan)]
    lines += [f"  {number}. {step.action} {table.describe([step.slice])}" for number, step in enumerate(plan.steps, 1)]
    return "\n".join(lines)


def _moves(table: DeviceTable, plan: Plan) -> Iterable[str]:
    for move in plan.moves:
        how = "without a stop" if move.made_before_break else "with a stop, there is no room for both"
        yield f"work of {table.describe([move.source])} moves to {table.describe([move.destination])} {how}"
    homeless = sorted(set(plan.live_destroyed) - _sources(plan))
    if homeless:
        yield f"work of {table.describe(homeless)} has to leave the board"


def _sources(plan: Plan) -> set[Slice]:
    return {move.source for move in plan.moves}
