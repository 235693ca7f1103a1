"""`tradewind up`, `down`, `logs`: an embedded instance on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from tradewind.client.endpoints import default_state_dir
from tradewind.embedded.layout import Layout
from tradewind.embedded.log_files import ALL, NAME_WIDTH, combined, last_lines

# `logs --follow` looks for new lines this often.
FOLLOW_PERIOD_S: Final = 0.2
COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green")

StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="Folder for everything of this instance.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def up(
    state_dir: StateDir = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything is ready.")] = False,
    base_port: Annotated[
        int | None, typer.Option(min=1, max=65000, help="First of the block of gRPC ports (default 7401).")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the OpenAI-compatible API (default 8080).")
    ] = None,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Take ports that are free now.")] = False,
    as_json: Json = False,
) -> None:
    """Start everything on this machine: PostgreSQL, Redis and every service."""
    from tradewind.embedded.control import Launch  # heavy for commands that only talk

    layout = _layout(state_dir)
    options = ["--free-ports"] if free_ports else []
    options += ["--base-port", str(base_port)] if base_port else []
    options += ["--http-port", str(http_port)] if http_port else []
    launch = Launch(layout, options if detach else [*options, "--lines"])
    signal.signal(signal.SIGTERM, lambda *_: launch.stop())
    view = _View(layout, as_json=as_json, follow=not detach)
    code = 0
    events = launch.events()
    while True:
        try:
            event = next(events, None)
        except KeyboardInterrupt:
            view.stopping()
            launch.stop()
            continue
        if event is None:
            break
        view.show(event)
        if event["event"] == "failed":
            code = 1
        if event["event"] == "ready" and detach:
            raise typer.Exit(0)
    view.stopped(code)
    raise typer.Exit(code)


def down(state_dir: StateDir = None, as_json: Json = False) -> None:
    """Stop everything that `up` started, in order."""
    from tradewind.embedded import control

    layout = _layout(state_dir)
    console = Console(stderr=True)
    with console.status(f"stopping Tradewind in {layout.root}"):
        ran = control.stop(layout)
    if as_json:
        print(json.dumps({"stopped": ran, "state_dir": str(layout.root)}))
    else:
        console.print("stopped" if ran else f"nothing ran in {layout.root}")


def logs(
    services: Annotated[list[str] | None, typer.Argument(help="Only these services.", show_default=False)] = None,
    state_dir: StateDir = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as new lines come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Show this many last lines.")] = 100,
) -> None:
    """Show what the services say, all of them in one view."""
    layout = _layout(state_dir)
    path = layout.log(ALL)
    if not path.exists():
        typer.echo(f"no logs in {layout.logs}; start with `tradewind up` or name the --state-dir", err=True)
        raise typer.Exit(1)
    unknown = [name for name in services or [] if not layout.log(name).exists()]
    if unknown:
        known = ", ".join(sorted(p.stem for p in layout.logs.glob("*.log") if p.stem != ALL))
        typer.echo(f"no such service: {', '.join(unknown)}; there are {known}", err=True)
        raise typer.Exit(2)
    console, wanted = Console(soft_wrap=True), set(services or [])
    try:
        for line in _tail(path, lines, follow=follow):
            name, _, text = line.partition("│")
            if not wanted or name.strip() in wanted:
                console.print(_coloured(name.strip(), text.removeprefix(" ")))
    except KeyboardInterrupt:
        return


def _layout(state_dir: Path | None) -> Layout:
    return Layout((state_dir or default_state_dir(os.environ, Path.cwd(), Path.home())).resolve())


class _View:
    """Draws a supervisor's events."""

    def __init__(self, layout: Layout, *, as_json: bool, follow: bool) -> None:
        self._layout, self._json, self._follow = layout, as_json, follow
        self._console = Console(stderr=True, soft_wrap=True)
        self._status = self._console.status("starting PostgreSQL")
        if not as_json:
            self._status.start()

    def show(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if self._json and kind != "line":
            print(json.dumps(event | (self._places() if kind == "ready" else {})), flush=True)
        if self._json:
            return
        if kind == "started":
            self._console.print(f"[green]✓[/] {event['name']:<{NAME_WIDTH}} [dim]{event['seconds']:.1f} s[/]")
            self._status.update("starting services")
        elif kind == "line" and self._follow:
            self._console.print(_coloured(event["name"], event["text"]))
        elif kind == "ready":
            self._status.stop()
            self._ready()
        elif kind == "failed":
            self._status.stop()
            self._console.print(Text.assemble(("not started: ", "bold red"), event["message"]))

    def stopping(self) -> None:
        if not self._json:
            self._console.print("\nstopping; again Ctrl-C does not hurry it")

    def stopped(self, code: int) -> None:
        self._status.stop()
        if not self._json and code == 0:
            self._console.print("stopped")

    def _places(self) -> dict[str, Any]:
        return {"state_dir": str(self._layout.root), "endpoints": json.loads(self._layout.endpoints.read_text())}

    def _ready(self) -> None:
        gateway = self._places()["endpoints"]["gateway"]
        self._console.print(
            f"\n[bold]Tradewind is up[/]  status page [link={gateway}]{gateway}/[/]   OpenAI API {gateway}/v1\n"
            f"[dim]state {self._layout.root}   logs `tradewind logs -f`   stop "
            + ("`tradewind down`[/]" if not self._follow else "Ctrl-C[/]\n")
        )


def _coloured(name: str, text: str) -> Text:
    head, _, _ = combined(name, "").partition("│")
    return Text.assemble((head + "│ ", COLOURS[sum(name.encode()) % len(COLOURS)]), text)


def _tail(path: Path, count: int, *, follow: bool) -> Iterator[str]:
    yield from last_lines(path, count)
    if not follow:
        return
    file = path.open(encoding="utf-8", errors="replace")
    file.seek(0, 2)
    while True:
        line = file.readline()
        if line:
            yield line.rstrip("\n")
        elif path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            file.close()
            file = path.open(encoding="utf-8", errors="replace")
        else:
            sys.stdout.flush()
            time.sleep(FOLLOW_PERIOD_S)  # noqa: TID251  follows a file that other processes write
