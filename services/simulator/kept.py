"""Outcomes kept on disk, so that a long evaluation goes on where it was. A file for each workload, policy and seed.

A kept outcome counts only for the same question: trace, cluster, limits, policy, device figures, and the source code
that decides and simulates. Anything else is run again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

from services.orchestrator.core.facts.policy import POLICIES
from services.orchestrator.core.facts.wish import Demand
from services.simulator.engine.meter import Sample
from services.simulator.engine.spent import Energy, Part
from services.simulator.outcome import Outcome, Percentiles
from services.simulator.run import Case
from tradewind.domain.errors import InvalidField

_SERVICES: Final = Path(__file__).parent.parent
# What decides and what simulates; a change of any of it may change every figure.
_CODE: Final = ("simulator", "orchestrator/core", "node_agent/core", "gateway/core", "gateway/limits.py")


class Kept:
    """A folder of outcomes.

    Raises:
        InvalidField: the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, case: Case, policy: str) -> Outcome | None:
        """The outcome of this very question, if it is there whole."""
        path = self._path(case, policy)
        if not path.is_file():
            return None
        raw = json.loads(path.read_text(encoding="utf-8"))
        return _read(raw["outcome"]) if raw["question"] == question(case, policy) else None

    def put(self, case: Case, policy: str, outcome: Outcome) -> None:
        """Keeps it, whole or not at all."""
        path = self._path(case, policy)
        text = json.dumps({"question": question(case, policy), "outcome": _written(outcome)})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(path.name + ".part")
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            raise InvalidField("--out", f"{self._folder} cannot be written: {error}") from error

    def _path(self, case: Case, policy: str) -> Path:
        return self._folder / f"{case.trace.name}.{policy}.{case.seed}.json"


def question(case: Case, policy: str) -> str:
    """A digest of everything that an outcome depends on."""
    parts = (
        case.trace.digest, case.cluster, case.menu, case.limits, case.from_s, case.look_s, case.scenario, case.seed,
        POLICIES[policy], code_digest(),
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@cache
def code_digest() -> str:
    """SHA-256 of the source code behind every figure."""
    sha = hashlib.sha256()
    for path in sorted(p for name in _CODE for p in _sources(_SERVICES / name)):
        sha.update(path.relative_to(_SERVICES).as_posix().encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()


def _sources(path: Path) -> Iterable[Path]:
    return [path] if path.is_file() else path.rglob("*.py")


def _written(outcome: Outcome) -> dict[str, Any]:
    parts = [[board, str(part), joules] for (board, part), joules in outcome.energy.parts_j.items()]
    fields = {k: getattr(outcome, k) for k in outcome.__slots__ if k != "energy"}
    nested = {k: asdict(fields[k]) for k in ("ttft", "tpot", "e2e", "demand")}
    return {**fields, **nested, "energy": parts, "samples": [list(asdict(s).values()) for s in outcome.samples]}


def _read(raw: dict[str, Any]) -> Outcome:
    return Outcome(
        **{
            **raw,
            **{k: Percentiles(**raw[k]) for k in ("ttft", "tpot", "e2e")},
            "demand": Demand(**raw["demand"]),
            "energy": Energy(_parts(raw["energy"])),
            "samples": tuple(Sample(*values) for values in raw["samples"]),
            "findings": tuple(raw["findings"]),
            "journal": tuple(raw["journal"]),
        }
    )


def _parts(rows: Iterable[tuple[str, str, float]]) -> dict[tuple[str, Part], float]:
    return {(board, Part(part)): joules for board, part, joules in rows}
