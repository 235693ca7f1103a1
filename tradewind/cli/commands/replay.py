"""`tradewind replay`: decisions of the journal made again with today's code."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from tradewind.cli import words
from tradewind.cli.failures import EXIT_FAILED
from tradewind.cli.lookup import require_decided
from tradewind.cli.output import to_json_list
from tradewind.cli.session import Session, command
from tradewind.v1 import orchestrator_pb2

_WORDS = {
    orchestrator_pb2.REPLAY_OUTCOME_SAME: "same",
    orchestrator_pb2.REPLAY_OUTCOME_DIFFERENT: "different",
    orchestrator_pb2.REPLAY_OUTCOME_NOT_POSSIBLE: "not possible",
}


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command."""
    command(app, "replay", rich_help_panel=panel)(replay)


def replay(
    session: Session,
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name or id; all when left out.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most this many, newest first.")] = 20,
) -> None:
    """Make decisions again from their kept inputs; fails when today's code would act otherwise."""
    found = session.client.orchestrator.replay(deployment, limit=limit)
    require_decided(deployment, found)
    session.out.document({"replays": to_json_list(found)})
    rows = [
        [
            words.age(r.create_time, time.time()),
            words.plain(r.trigger),
            _WORDS.get(r.outcome, "?"),
            words.plain("; ".join(r.differences)),
        ]
        for r in found
    ]
    session.out.table(["^when", "set off by…", "outcome", "otherwise…"], rows, "nothing decided yet")
    if any(r.outcome == orchestrator_pb2.REPLAY_OUTCOME_DIFFERENT for r in found):
        raise typer.Exit(EXIT_FAILED)
