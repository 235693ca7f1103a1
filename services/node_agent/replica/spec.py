"""What a replica process is told at its start, as JSON. Whole and immutable; energy rate and limits come later."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services.node_agent.core.energy import Rate
from tradewind.domain.figures import FigureSource
from tradewind.logs import LogFormat


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A replica process.

    Attributes:
        envelope: file of the signed manifest.
        artifacts: folder of files named by the hexadecimal part of their digest.
        trusted_keys: folder of public keys in PEM.
        socket: unix socket to serve on.
        cpu_ids: logical CPUs it may use; none for all.
        gpu_uuid: the one board or slice that it sees; "" for none.
        idle_boost: whether its context keeps the board at high clocks while nothing runs.
        batch_limit: most sequences decoded together; 0 for as many as the variant can.
        parent: process id of the agent; the replica dies with it.
    """

    replica_id: str
    variant_id: str
    envelope: Path
    artifacts: Path
    trusted_keys: Path
    socket: Path
    cpu_ids: tuple[int, ...]
    batch_limit: int
    parent: int
    rate: Rate
    log_format: LogFormat = "text"
    log_level: str = "INFO"
    gpu_uuid: str = ""
    idle_boost: bool = False

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> ProcessSpec:
        """Reads what `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        for name in ("envelope", "artifacts", "trusted_keys", "socket"):
            raw[name] = Path(raw[name])
        raw["cpu_ids"] = tuple(raw["cpu_ids"])
        raw["rate"] = rate_from(raw["rate"])
        return cls(**raw)


def rate_from(raw: dict[str, Any]) -> Rate:
    """An energy rate out of JSON."""
    return Rate(float(raw["mj_per_core_s"]), FigureSource(int(raw["source"])), str(raw["method"]))
