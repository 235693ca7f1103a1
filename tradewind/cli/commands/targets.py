"""`tradewind targets`: what the compiler can generate code for."""

from __future__ import annotations

import typer

from tradewind.cli import words
from tradewind.cli.output import to_json_list
from tradewind.cli.session import Session, command


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command."""
    command(app, "targets", rich_help_panel=panel)(targets)


def targets(session: Session) -> None:
    """List targets the compiler knows."""
    found = session.client.compiler.targets()
    session.out.document({"targets": to_json_list(found)})
    rows = [[t.name, t.resolved, "yes" if t.runnable_here else "no", words.plain(t.note)] for t in found]
    session.out.table(["target", "stands for", "runs here", "note…"], rows, "no targets")
