"""`tradewind variant explain`: where a variant's time goes, function by function and dispatch by dispatch."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Annotated, Final

import typer
from rich.text import Text

from tradewind.cli.lookup import find_variant
from tradewind.cli.output import Cell, to_json
from tradewind.cli.progress import bar
from tradewind.cli.session import Session
from tradewind.domain.units import show_ms
from tradewind.v1 import profiler_pb2

COLUMNS: Final = ("dispatch…", "^runs", "^time", "^share", "^GFLOP/s", "^GB/s")
BLOCKS: Final = 20


def explain_variant(
    session: Session,
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="Id, the beginning of its digest, or name.")],
    function: Annotated[str, typer.Option("--function", help="Such as decode_b1_c1024; each when left out.")] = "",
    partition: Annotated[
        str, typer.Option("--partition", help="Partition kind, such as cpu/2; the largest when left out.")
    ] = "",
    node: Annotated[str, typer.Option("--node", help="Node to time on; the first that runs it when left out.")] = "",
    top: Annotated[int, typer.Option("--top", min=1, help="Dispatches shown of each function.")] = 8,
) -> None:
    """Show where a variant's time goes: every dispatch of each function, timed on a node."""
    found = find_variant(session.client.compiler, variant)
    with bar(session.out, f"Timing {found.name}") as shown:
        shown.tell("some calls of each function", 0.0)
        answer = session.client.profiler.explain(
            found.variant_id, function=function, partition_kind=partition, node=node
        )
    session.out.document(to_json(answer))
    session.out.show(
        f"{found.name} on {answer.device_class} {answer.partition_kind} ({answer.node_id}); one call of each function"
    )
    for name, costs in groupby(answer.dispatches, key=lambda cost: cost.function):
        _show_function(session, name, list(costs), top)
    session.out.show(
        Text("rates count products of matrices, by the shapes in IREE's names; times are measured", style="dim")
    )


def _show_function(session: Session, name: str, costs: list[profiler_pb2.DispatchCost], top: int) -> None:
    whole_us = sum(cost.total_us for cost in costs)
    session.out.show(
        "", Text.assemble((name, "bold"), f"  {show_ms(whole_us / 1e3)} in {len(costs)} kinds of dispatch")
    )
    rows = [_row(cost) for cost in costs[:top]]
    if len(costs) > top:
        rest = costs[top:]
        left_us = sum(cost.total_us for cost in rest)
        rows.append([Text(f"{len(rest)} others", style="dim"), "", *_time(left_us, left_us / (whole_us or 1)), "", ""])
    session.out.table(COLUMNS, rows, "nothing ran")


def _row(cost: profiler_pb2.DispatchCost) -> list[Cell]:
    short = cost.name.partition("async_dispatch_")[2].partition("_")[2] or cost.name
    return [Text(short), str(cost.count), *_time(cost.total_us, cost.share), *_rates(cost)]


def _time(total_us: float, share: float) -> Iterable[str]:
    return show_ms(total_us / 1e3), f"{'▉' * round(share * BLOCKS)} {share:4.0%}"


def _rates(cost: profiler_pb2.DispatchCost) -> Iterable[str]:
    if not cost.total_us or not cost.operations:
        return "–", "–"
    return f"{cost.operations / cost.total_us / 1e3:.1f}", f"{cost.moved_bytes / cost.total_us / 1e3:.1f}"
