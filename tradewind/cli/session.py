"""What every command shares: the options --json, --state-dir and --debug, a client, an output, errors as exit codes.

A command is a function whose first parameter is the Session; `command` adds the shared options to its signature.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tradewind.cli.failures import exit_code, report
from tradewind.cli.output import Output
from tradewind.client.endpoints import find_endpoints
from tradewind.client.tradewind import Tradewind
from tradewind.domain.errors import TradewindError

_PANEL: Final = "Common"
JsonOption = Annotated[
    bool, typer.Option("--json", help="Pure JSON on stdout, progress on stderr.", rich_help_panel=_PANEL)
]
StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        help="State folder whose endpoints.json says where the services are.",
        envvar="TRADEWIND_STATE_DIR",
        show_default=".tradewind, or else ~/.tradewind",
        rich_help_panel=_PANEL,
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_PANEL)]


@dataclass
class Session:
    """One run of one command."""

    out: Output
    state_dir: Path | None = None
    debug: bool = False

    @cached_property
    def client(self) -> Tradewind:
        """A client of the services; nothing is opened before its first use."""
        return Tradewind(find_endpoints(self.state_dir))

    def close(self) -> None:
        """Closes the client if there is one."""
        if "client" in self.__dict__:
            self.client.close()


def command(app: typer.Typer, name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as a command, with the shared options added.

    Args:
        app: the group it belongs to.
        name: how people call it.
        options: of typer's `command`.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name, **options)(with_session(function))
        return function

    return register


def with_session(function: Callable[..., None]) -> Callable[..., None]:
    """A function for typer: the shared options instead of the session, errors reported, the client closed."""

    def run(*_: Any, json_output: bool, state_dir: Path | None, debug: bool, **arguments: Any) -> None:
        session = Session(Output(json=json_output), state_dir, debug)
        try:
            function(session, **arguments)
        except TradewindError as error:
            if debug:
                raise
            report(session.out, error)
            raise typer.Exit(exit_code(error)) from error
        except BrokenPipeError:
            # `tradewind … | head` went away; nothing is left to say and nobody to say it to.
            sys.stderr.close()
            raise typer.Exit(0) from None
        finally:
            session.close()

    hints = typing.get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    shared = {"json_output": (JsonOption, False), "state_dir": (StateDirOption, None), "debug": (DebugOption, False)}
    parameters = [p.replace(annotation=hints[p.name]) for p in own] + [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for key, (annotation, default) in shared.items()
        if key not in {p.name for p in own}
    ]
    run.__doc__, run.__name__ = function.__doc__, function.__name__
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run
