"""The child that reads NVML: a request a line on stdin, an answer a line on stdout, until stdin ends.

`python -m services.node_agent.gpu.reading.worker`. It only reads, with the agent's own rights. Each request has a
thread, so that a board whose driver hangs holds up no other; answers come as they are ready. It may hang or die in the
vendor's library at any call: its parent expects that. It trusts its parent, whose child it is.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Final

from services.node_agent.gpu.faults import DriverTrouble, GpuError, InvalidRequest
from services.node_agent.gpu.helper.frames import answer_line, error_line
from services.node_agent.gpu.nvml import NvmlReader, open_nvml
from services.node_agent.gpu.port import GpuReader
from services.node_agent.gpu.reading.questions import QUESTIONS, answer

# A board of the largest host each, the events, and some more for questions at the start.
MOST_THREADS: Final = 20
# First lines: the library is there, or not. A library without a driver is answered with an error line.
FOUND, NONE = b"found\n", b"none\n"


def main() -> None:
    """Serves the parent; ends with it, also while a call hangs."""
    answers = sys.stdout.buffer
    try:
        session = open_nvml()
    except GpuError as error:
        answers.write(error_line(0, error))
        answers.flush()
        return
    answers.write(FOUND if session is not None else NONE)
    answers.flush()
    if session is not None:
        serve(NvmlReader(session), sys.stdin.buffer, answers)
        os._exit(0)


def serve(reader: GpuReader, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers each request, in any order."""
    writing = threading.Lock()

    def work(request: dict[str, Any]) -> None:
        line = _answer(reader, **request)
        with writing:
            answers.write(line)
            answers.flush()

    pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="nvml")
    for line in requests:
        pool.submit(work, json.loads(line))


def _answer(reader: GpuReader, id: int, verb: str, arguments: dict[str, Any]) -> bytes:
    try:
        if verb not in QUESTIONS:
            raise InvalidRequest(f"{verb}: this process only reads")
        return answer_line(id, QUESTIONS[verb], answer(reader, verb, arguments))
    except GpuError as error:
        return error_line(id, error)
    except (OSError, ValueError, AttributeError) as error:
        # A surprise of one call; the next one is another chance.
        return error_line(id, DriverTrouble(f"{verb}: {error!r}"))


if __name__ == "__main__":
    main()
