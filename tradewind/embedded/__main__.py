"""The supervisor as a process: `python -m tradewind.embedded --state-dir DIR …`.

Says what happens as JSON lines on standard output, one of
    {"event": "started", "name": …, "seconds": …}    a part is up
    {"event": "line", "name": …, "text": …}          a service said something (with --lines)
    {"event": "ready"}                               everything is up
    {"event": "failed", "message": …}                it is not; what had started is stopped again
and stops everything on SIGTERM or SIGINT. `tradewind up` draws these events.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tradewind.domain.errors import TradewindError
from tradewind.embedded.layout import Layout
from tradewind.embedded.ports import choose
from tradewind.embedded.process import ChildFailed
from tradewind.embedded.supervisor import Supervisor


def main() -> None:
    parser = argparse.ArgumentParser(prog="tradewind.embedded", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--base-port", type=int)
    parser.add_argument("--http-port", type=int)
    parser.add_argument("--free-ports", action="store_true")
    parser.add_argument("--lines", action="store_true")
    sys.exit(asyncio.run(supervise(parser.parse_args())))


async def supervise(arguments: argparse.Namespace) -> int:
    """Runs an instance until a signal comes; 0 when it ran, 1 when it could not start."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    ports = choose(arguments.base_port, arguments.http_port, free=arguments.free_ports)

    def on_line(name: str, text: str) -> None:
        if arguments.lines:
            emit(event="line", name=name, text=text)

    supervisor = Supervisor(Layout(arguments.state_dir.resolve()), ports, on_line)
    starting = asyncio.ensure_future(
        supervisor.start(lambda name, seconds: emit(event="started", name=name, seconds=round(seconds, 2)))
    )
    signalled = asyncio.ensure_future(stopping.wait())
    code = 0
    try:
        await asyncio.wait({starting, signalled}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            emit(event="ready")
            await signalled
        else:
            starting.cancel()
    except (TradewindError, ChildFailed) as error:
        emit(event="failed", message=error.message if isinstance(error, TradewindError) else str(error))
        code = 1
    finally:
        signalled.cancel()
        await supervisor.stop()
    return code


def emit(**event: object) -> None:
    """Says an event; nobody may be listening any more."""
    try:
        print(json.dumps(event), flush=True)
    except BrokenPipeError:
        # `tradewind up --detach` went away after "ready", as it should.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
