"""`tradewind status`: everything on one screen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer
from rich.text import Text

from tradewind.cli import words
from tradewind.cli.commands.deployments import show_deployments
from tradewind.cli.commands.nodes import show_nodes
from tradewind.cli.easing import advice
from tradewind.cli.failures import EXIT_FAILED
from tradewind.cli.output import Cell, Output, table_of, to_json_list
from tradewind.cli.overview import Overview, look
from tradewind.cli.session import Session, command
from tradewind.v1 import compiler_pb2


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command."""
    command(app, "status", rich_help_panel=panel)(status)


def status(session: Session) -> None:
    """Show which services answer, nodes, models, deployments. Exit code 1 when a service does not serve."""
    overview = look(session.client)
    session.out.document(_document(overview))
    _show(session.out, overview, session.client.endpoints.origin)
    if not overview.all_serving:
        session.out.note("[dim]next:[/]  start what is away with `tradewind up`; `tradewind logs` says why it stopped")
        raise typer.Exit(EXIT_FAILED)


def _show(out: Output, overview: Overview, origin: str) -> None:
    rows: list[list[Cell]] = [[s.name, words.coloured(s.state), s.address] for s in overview.services]
    out.show(table_of(["service", "state", "address"], rows), Text(f"addresses from {origin}", style="dim"))
    if overview.models is not None:
        out.show(Text(f"\n{_counts(overview)}"))
    if overview.nodes is not None:
        out.show("")
        show_nodes(out, overview.nodes)
    if overview.deployments is not None:
        out.show("")
        show_deployments(out, overview.deployments)
    for line in _advice(overview):
        out.note(f"[dim]next:[/]  {words.plain(line)}")
    for trouble in overview.troubles:
        out.note(f"[yellow]{words.plain(trouble)}[/]")


def _counts(overview: Overview) -> str:
    states = Counter(
        compiler_pb2.VariantState.Name(v.state).removeprefix("VARIANT_STATE_").lower() for v in overview.variants or ()
    )
    kinds = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    models = ", ".join(m.name for m in overview.models or ())
    return (
        f"{len(overview.models or ())} models{f' ({models})' if models else ''}, "
        f"{len(overview.variants or ())} variants{f' ({kinds})' if kinds else ''}, "
        f"{len(overview.profiles or ())} profiles"
    )


def _advice(overview: Overview) -> list[str]:
    return advice(overview.models or (), overview.profiles or (), overview.nodes or ())


def _document(overview: Overview) -> dict[str, Any]:
    """What --json prints; null where nothing could be had."""
    lists = ("models", "variants", "profiles", "deployments", "nodes")
    found = {name: getattr(overview, name) for name in lists}
    return {
        "services": [{"name": s.name, "address": s.address, "state": s.state} for s in overview.services],
        **{name: None if rows is None else to_json_list(rows) for name, rows in found.items()},
        "advice": _advice(overview),
        "troubles": overview.troubles,
    }
