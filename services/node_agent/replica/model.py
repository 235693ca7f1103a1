"""A compiled variant, loaded: scores for prompt chunks and decode steps. No scheduling, no sampling.

`Model` is the port; `IreeModel` drives a module of ABI "tradewind.generate/1" through the IREE runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.node_agent.replica.loading import load_module
from services.node_agent.replica.scores import Scores
from tradewind.domain.manifest import Function, VariantManifest

Tokens = npt.NDArray[np.int64]


class Model(Protocol):
    """What the engine drives. Calls come from one thread; an answer is valid until the next call."""

    def prefill(self, function: Function, tokens: Tokens, slot: int, start: int) -> Scores:
        """Writes prompt tokens into a slot from row `start` on; one row, of the last of them."""

    def decode(self, function: Function, tokens: Sequence[int], positions: Sequence[int]) -> Scores:
        """One token for each of the first B slots, written at its position; B rows."""


class IreeModel:
    """A module in memory with a cache of its own."""

    def __init__(self, manifest: VariantManifest, artifacts: Path, threads: int) -> None:
        """Checks and maps the files of a variant; see `load_module`."""
        module = load_module(manifest, artifacts, threads)
        self._functions = {f.name: module[f.name] for f in manifest.functions}
        self._chunks = {f.tokens: np.zeros((1, f.tokens), np.int64) for f in manifest.functions if f.phase == "prefill"}

    def prefill(self, function: Function, tokens: Tokens, slot: int, start: int) -> Scores:
        """See `Model`."""
        chunk = self._chunks[function.tokens]
        chunk[0, : len(tokens)] = tokens
        return Scores.of(self._functions[function.name](chunk, _one(slot), _one(start), _one(len(tokens))))

    def decode(self, function: Function, tokens: Sequence[int], positions: Sequence[int]) -> Scores:
        """See `Model`."""
        return Scores.of(self._functions[function.name](np.array(tokens, np.int64), np.array(positions, np.int64)))


def _one(value: int) -> Tokens:
    return np.full(1, value, np.int64)
