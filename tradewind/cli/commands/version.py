"""`tradewind version`."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed

import typer

from tradewind.cli.session import Session, command


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command."""
    command(app, "version", rich_help_panel=panel)(version)


def version(session: Session) -> None:
    """Show versions of Tradewind and Python."""
    found = {"tradewind": installed("tradewind"), "python": platform.python_version()}
    session.out.document(found)
    session.out.show(f"tradewind {found['tradewind']} on Python {found['python']}")
