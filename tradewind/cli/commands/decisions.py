"""`tradewind decisions`: what was decided, when and why."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from tradewind.cli import words
from tradewind.cli.lookup import require_decided
from tradewind.cli.output import to_json_list
from tradewind.cli.session import Session, command


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command."""
    command(app, "decisions", rich_help_panel=panel)(decisions)


def decisions(
    session: Session,
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name or id; all when left out.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most this many.")] = 20,
) -> None:
    """List the newest decisions."""
    found = session.client.orchestrator.decisions(deployment, limit=limit)
    require_decided(deployment, found)
    session.out.document({"decisions": to_json_list(found)})
    rows = [
        [
            words.age(d.create_time, time.time()),
            words.plain(d.trigger),
            words.plain(d.summary),
            str(d.generation) if d.generation else "–",
        ]
        for d in found
    ]
    session.out.table(["^when", "set off by…", "decided…", "^generation"], rows, "nothing decided yet")
