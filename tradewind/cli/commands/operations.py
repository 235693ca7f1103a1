"""`tradewind operation show|watch|cancel`: long work, by its id."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from tradewind.cli import words
from tradewind.cli.commands.models import CancelOnInterrupt
from tradewind.cli.output import Output, to_json
from tradewind.cli.progress import follow
from tradewind.cli.session import Session, command
from tradewind.v1 import operation_pb2

Id = Annotated[str, typer.Argument(help="Such as operations/compiler-1f….", metavar="OPERATION")]


def register(app: typer.Typer, panel: str) -> None:
    """Adds the group."""
    group = typer.Typer(help="Operations: long work that was started.", no_args_is_help=True)
    app.add_typer(group, name="operation", rich_help_panel=panel)
    command(group, "show")(show)
    command(group, "watch")(watch)
    command(group, "cancel")(cancel)


def show(session: Session, operation: Id) -> None:
    """Show where an operation stands."""
    found = session.client.operations(operation).get(operation)
    session.out.document({"operation": to_json(found)})
    _show(session.out, found)


def watch(session: Session, operation: Id, cancel_on_interrupt: CancelOnInterrupt = False) -> None:
    """Watch an operation to its end; fails as it fails."""
    operations = session.client.operations(operation)
    found = operations.get(operation)
    title = found.kind or "Operation"
    ended = follow(session.out, operations, found, title, cancel_on_interrupt=cancel_on_interrupt)
    session.out.document({"operation": to_json(ended)})
    _show(session.out, ended)


def cancel(session: Session, operation: Id) -> None:
    """Ask an operation to stop; one that has ended stays as it is."""
    found = session.client.operations(operation).cancel(operation)
    session.out.document({"operation": to_json(found)})
    _show(session.out, found)


def _show(out: Output, operation: operation_pb2.Operation) -> None:
    state = words.state(operation_pb2.OperationState, operation.state, "OPERATION_STATE_")
    out.show(
        Text.assemble((operation.kind, "bold"), "  ", state, f"  {operation.progress:.0%}  {operation.stage}"),
        Text(f"{operation.operation_id}, begun {words.age(operation.create_time, time.time())}", style="dim"),
    )
    for result in operation.result_ids:
        out.show(Text(f"made {result}"))
    if operation.HasField("error"):
        out.show(Text(operation.error.message, style="red"))
