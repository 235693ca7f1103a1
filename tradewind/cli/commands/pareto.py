"""`tradewind pareto`: what there is to choose from, as a table and a small picture."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.text import Text

from tradewind.cli import words
from tradewind.cli.output import Output, to_json_list
from tradewind.cli.scatter import Dot, scatter
from tradewind.cli.session import Session, command
from tradewind.domain.units import show_bytes, show_ms
from tradewind.v1 import common_pb2, profiler_pb2

COLUMNS: Final[tuple[str, ...]] = (
    "", "variant", "where", "^TTFT", "^TPOT", "^energy/token", "energy is", "^memory", "^quality",
)  # fmt: skip


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command."""
    command(app, "pareto", rich_help_panel=panel)(pareto)


def pareto(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model name or id.")],
    prompt: Annotated[int, typer.Option("--prompt", min=0, help="Compare at this prompt length. 0: near 128.")] = 0,
    concurrency: Annotated[int, typer.Option("--concurrency", min=0, help="Sequences together. 0: one.")] = 0,
    front_only: Annotated[bool, typer.Option("--front-only", help="Leave out points that another one beats.")] = False,
) -> None:
    """Show which variant × partition no other beats in latency, energy, memory and quality."""
    points = session.client.profiler.pareto_front(
        model, prompt_tokens=prompt, concurrency=concurrency, include_dominated=not front_only
    )
    session.out.document({"points": to_json_list(points)})
    show_front(session.out, model, points)


def show_front(out: Output, model: str, points: Sequence[profiler_pb2.ParetoPoint]) -> None:
    """Table and picture of a front; beaten points dimmed."""
    if not points:
        out.show(f"no points for {words.plain(model)} at this load; `tradewind profile list {words.plain(model)}`")
        return
    marks = _marks(points)
    loads = sorted({words.load(p.load) for p in points})
    classes = sorted({p.point.device_class for p in points})
    one_class = f" on {classes[0]}" if len(classes) == 1 else ""
    out.show(Text(f"{model} at {', '.join(loads)}{one_class}; medians", style="bold"))
    rows = [_row(point, mark, name_class=not one_class) for point, mark in zip(points, marks, strict=True)]
    out.table(COLUMNS, rows, "")
    dots = [_dot(point, mark) for point, mark in zip(points, marks, strict=True) if _known(point)]
    if len(dots) > 1:
        lines = scatter(dots, "ms for each token after the first (TPOT)", "mJ for each token")
        out.show(Text("\n".join(lines)))
    methods = sorted({p.load.energy_per_token.method for p in points if p.load.energy_per_token.method})
    out.show(
        Text(
            "capital letters: on the front; small ones: beaten in every respect; quality: same top-1 token", style="dim"
        ),
        *([Text(f"energy by {', '.join(methods)}", style="dim")] if methods else []),
    )


def _marks(points: Sequence[profiler_pb2.ParetoPoint]) -> list[str]:
    """A letter for each point; the alphabet starts again for the 27th."""
    letters = string.ascii_uppercase
    return [letters[i % 26] if point.on_front else letters[i % 26].lower() for i, point in enumerate(points)]


def _row(point: profiler_pb2.ParetoPoint, mark: str, *, name_class: bool) -> list[Text]:
    load = point.load
    where = f"{point.point.partition_kind}{words.setting(point.point.power)}"
    cells = [
        mark,
        point.variant_name,
        f"{point.point.device_class} {where}" if name_class else where,
        show_ms(load.ttft.p50_ms),
        show_ms(load.tpot.p50_ms),
        words.energy(load.energy_per_token),
        words.source(load.energy_per_token.source),
        show_bytes(point.memory_bytes),
        words.percent(point.top1_agreement),
    ]
    return [Text(cell, style="" if point.on_front else "dim") for cell in cells]


def _known(point: profiler_pb2.ParetoPoint) -> bool:
    energy = point.load.energy_per_token
    return energy.source not in (common_pb2.FIGURE_SOURCE_UNSPECIFIED, common_pb2.FIGURE_SOURCE_UNAVAILABLE)


def _dot(point: profiler_pb2.ParetoPoint, mark: str) -> Dot:
    return Dot(point.load.tpot.p50_ms, point.load.energy_per_token.energy_mj, mark)
