"""Long work as a person sees it: a bar with stage, share and times on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from tradewind.cli.failures import EXIT_INTERRUPTED
from tradewind.cli.output import Output
from tradewind.client.operations import OperationsClient, succeeded
from tradewind.domain.units import show_ms
from tradewind.v1 import operation_pb2

BAR_WIDTH: Final = 28
# Below this share the remaining time is a guess that only misleads.
MIN_SHARE_FOR_ESTIMATE: Final = 0.05
# Without a terminal, a stage that lasts is said again this often.
SIGN_OF_LIFE_S: Final = 20.0
_TIMES: Final = re.compile(r"\d[\d.]* ?(?:s|ms|min|%)\b")


class Bar:
    """One piece of long work on the screen. Say where it stands with `tell`."""

    def __init__(self, out: Output, title: str) -> None:
        self._out, self._title = out, title
        self._said: set[str] = set()
        self._said_s = 0.0
        self._began = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[left]}[/]"),
            console=out.progress_console,
        )
        self._task = self._progress.add_task(escape(title), total=1.0, left="")
        self._live: Live | None = None

    def tell(self, stage: str, share: float) -> None:
        """Where the work stands: stage in words, share in [0, 1]."""
        if self._live is not None:
            self._progress.update(self._task, completed=share, left=self._left(share))
            self._live.update(Group(self._progress, Text(f"  {stage}", style="dim", no_wrap=True, overflow="ellipsis")))
        elif self._worth_a_line(stage):
            self._out.note(f"{escape(self._title)}: {share:4.0%}  {escape(stage)}")

    def _worth_a_line(self, stage: str) -> bool:
        """Whether a log wants this: a stage not said yet (running seconds aside), or a sign of life now and then."""
        kind, now_s = _TIMES.sub("", stage), time.monotonic()
        if kind in self._said and now_s - self._said_s < SIGN_OF_LIFE_S:
            return False
        self._said.add(kind)
        self._said_s = now_s
        return True

    def _left(self, share: float) -> str:
        if not MIN_SHARE_FOR_ESTIMATE <= share < 1:
            return ""
        seconds = (time.monotonic() - self._began) * (1 - share) / share
        return f"about {show_ms(max(1.0, round(seconds)) * 1e3).replace('.00', '')} left"

    def start(self) -> None:
        """Draws, on a terminal."""
        if self._out.live:
            self._live = Live(self._progress, console=self._out.progress_console, refresh_per_second=8, transient=True)
            self._live.start()

    def end(self, done: bool) -> None:
        """Takes the bar away; leaves one line when the work was done."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        took = show_ms((time.monotonic() - self._began) * 1e3)
        if done:
            self._out.note(f"[green]✓[/] {escape(self._title)} [dim]({took})[/]")


@contextmanager
def bar(out: Output, title: str) -> Iterator[Bar]:
    """A bar around a piece of work."""
    shown = Bar(out, title)
    shown.start()
    done = False
    try:
        yield shown
        done = True
    finally:
        shown.end(done)


def follow(
    out: Output,
    operations: OperationsClient,
    operation: operation_pb2.Operation,
    title: str,
    *,
    cancel_on_interrupt: bool = False,
) -> operation_pb2.Operation:
    """Shows an operation until its end and returns it.

    Raises:
        RemoteError: it failed or was cancelled.
        typer.Exit: Ctrl-C; the operation goes on, or is cancelled when asked so.
    """
    try:
        with bar(out, title) as shown:
            last = operation
            for last in operations.watch(operation.operation_id):
                shown.tell(last.stage, last.progress)
            return succeeded(last)
    except KeyboardInterrupt:
        _interrupted(out, operations, operation.operation_id, cancel_on_interrupt)


def _interrupted(out: Output, operations: OperationsClient, operation_id: str, cancel: bool) -> NoReturn:
    if cancel:
        operations.cancel(operation_id)
        out.note(f"interrupted; {operation_id} is being cancelled")
    else:
        out.note(
            f"interrupted; the work goes on. Watch it:  tradewind operation watch {operation_id}\n"
            f"                           Cancel it: tradewind operation cancel {operation_id}"
        )
    raise typer.Exit(EXIT_INTERRUPTED)
