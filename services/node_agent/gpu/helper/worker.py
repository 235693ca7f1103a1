"""The child that talks to the driver: a request a line on stdin, an answer a line on stdout, until stdin ends.

`python -m services.node_agent.gpu.helper.worker BACKEND`. It may hang or die in a vendor's library at any call: its
parent expects that. It trusts its parent, which has parsed and checked each line.
"""

from __future__ import annotations

import sys
from typing import BinaryIO

from services.node_agent.gpu.faults import DriverTrouble, GpuError, NoDriver
from services.node_agent.gpu.helper.backend import Backend, open_backend
from services.node_agent.gpu.helper.frames import READY, answer_line, error_line, parse
from tradewind.domain.errors import TradewindError


def main() -> None:
    """Serves the parent."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    serve(name, sys.stdin.buffer, sys.stdout.buffer)


def serve(name: str, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers each request. The driver is opened at the first one, and again after it could not be."""
    backend: Backend | None = None
    answers.write(READY)
    answers.flush()
    for line in requests:
        request = parse(line)
        try:
            backend = backend or _open(name)
            answer = backend.call(request.name, request.arguments)
            answers.write(answer_line(request.number, request.verb.answer, answer))
        except GpuError as error:
            answers.write(error_line(request.number, error))
        except (OSError, ValueError, AttributeError) as error:
            # A surprise in a back-end is one call's trouble; the next call is another chance.
            answers.write(error_line(request.number, DriverTrouble(f"{request.name}: {error!r}")))
        answers.flush()


def _open(name: str) -> Backend:
    try:
        return open_backend(name)
    except TradewindError as error:
        raise NoDriver(error.message) from error


if __name__ == "__main__":
    main()
