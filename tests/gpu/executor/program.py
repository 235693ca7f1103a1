"""An executor in a process of its own, over NVML and the fake library: what the kill tests start and kill."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pynvml

from services.node_agent.core.mig.goal import Order, Wish
from services.node_agent.core.mig.model import Slice
from services.node_agent.gpu.executor.board import POLL_S, Access, BoardExecutor, Planners
from services.node_agent.gpu.executor.journal import Journal
from services.node_agent.gpu.nvml import NvmlAdmin, NvmlReader, open_nvml

# Turns of the longest change of one board, with room for tries.
MOST_TURNS = 200


def run(library: Path, machine: Path, folder: Path, generation: int, places: list[tuple[int, int, int]]) -> None:
    """Takes a wish (none when there are no places) and turns until nothing is left to do."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    os.environ["FAKE_NVML_MACHINE"] = str(machine)
    pynvml.nvmlLib = ctypes.CDLL(str(library))
    session = open_nvml()
    assert session is not None
    reader = NvmlReader(session)
    board = reader.boards()[0]
    access = Access(reader, NvmlAdmin(session, reader.forget_slices), dict, "boot", Planners())
    executor = BoardExecutor(board, access, Journal(folder / "board.journal"))
    slices = tuple(sorted(Slice(*place) for place in places))
    if slices:
        counts = {one.profile_id: sum(s.profile_id == one.profile_id for s in slices) for one in slices}
        executor.want(Wish(Order(1, generation), True, tuple(sorted(counts.items())), slices))
    for _ in range(MOST_TURNS):
        if executor.turn().pause_s == POLL_S:
            return
    raise AssertionError("it does not end")
