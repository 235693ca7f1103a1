"""What a replica tells its agent, one JSON object a line, each a whole state; and what the agent tells it.

replica → agent   {"stage": "loading"} … {"ready": {…}} then {"stats": {…}} again and again; or {"failed": {…}};
                  {"work": {…}} when it is asked
agent → replica   {"rate": {…}}, {"limits": {…}} without those that are infinite, or {"ask": "work"};
                  the end of the stream means that the agent is gone
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

from services.node_agent.core.governor import Work
from services.node_agent.core.phase_account import PhaseTotals
from services.node_agent.replica.device_loop import Load
from services.node_agent.replica.latencies import Stats
from tradewind.domain.errors import TradewindError, reason_of


class StatusLine:
    """Writes to the agent.

    Args:
        descriptor: of the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def stage(self, words: str) -> None:
        """What is being done before it serves."""
        self._write({"stage": words})

    def ready(self, load_s: float) -> None:
        """It serves."""
        self._write({"ready": {"load_s": load_s}})

    def failed(self, error: TradewindError) -> None:
        """It cannot serve, for a reason."""
        self._write({"failed": {"reason": reason_of(error), "message": error.message}})

    def stats(
        self, load: Load, totals: PhaseTotals, generated_tokens: int, ttft: Stats, tpot: Stats, stalled_s: float
    ) -> None:
        """How it does."""
        self._write(
            {
                "stats": {
                    "active": load.active,
                    "queued": load.queued,
                    "generated_tokens": generated_tokens,
                    "totals": asdict(totals),
                    "ttft": asdict(ttft),
                    "tpot": asdict(tpot),
                    "stalled_s": stalled_s,
                }
            }
        )

    def work(self, work: Work) -> None:
        """What it has in hand now."""
        self._write({"work": asdict(work)})

    def _write(self, message: dict[str, Any]) -> None:
        # Lines are far below PIPE_BUF when the agent reads; an agent that is gone ends this process by itself.
        os.write(self._descriptor, json.dumps(message).encode() + b"\n")
