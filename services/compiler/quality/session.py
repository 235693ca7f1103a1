"""Drives a compiled module through the engine's ABI, one call at a time. No scheduling, no sampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import iree.runtime as rt
import numpy as np
import numpy.typing as npt

from services.compiler.export.shapes import WEIGHTS_SCOPE
from tradewind.domain.errors import CompileFailed
from tradewind.domain.manifest import Function
from tradewind.domain.passes import DEVICE_SAMPLING
from tradewind.iree_arrays import to_host

Logits = npt.NDArray[np.float32]


class Session:
    """A loaded module with its own cache."""

    def __init__(self, module: Path, weights: Sequence[Path], functions: Sequence[Function], driver: str) -> None:
        """Maps the files into memory.

        Args:
            module: the .vmfb.
            weights: the .irpa archives.
            functions: what the module offers.
            driver: IREE HAL driver.
        """
        config = rt.Config(driver)
        index = rt.ParameterIndex()
        for path in weights:
            index.load(str(path), mmap=True)
        parameters = rt.create_io_parameters_module(config.vm_instance, index.create_provider(scope=WEIGHTS_SCOPE))
        code = rt.VmModule.mmap(config.vm_instance, str(module))
        self._module: Any = rt.load_vm_modules(parameters, code, config=config)[-1]
        self.functions = tuple(functions)
        self._checks = False

    def check_picks(self) -> None:
        """From now on compares what functions with picks find with their logits; times of calls are then not theirs."""
        self._checks = True

    def prefill(self, function: Function, tokens: Sequence[int], slot: int, start: int) -> Logits:
        """Writes a chunk of at most `function.tokens` tokens; logits [V] of its last one."""
        padded = np.zeros((1, function.tokens), np.int64)
        padded[0, : len(tokens)] = tokens
        row: Logits = self._call(function, padded, _one(slot), _one(start), _one(len(tokens)))[0]
        return row

    def decode(self, function: Function, tokens: Sequence[int], positions: Sequence[int]) -> Logits:
        """One token for each of the first B slots; logits [B, V]."""
        return self._call(function, np.asarray(tokens, np.int64), np.asarray(positions, np.int64))

    def _call(self, function: Function, *arguments: npt.NDArray[np.int64]) -> Logits:
        answer = self._module[function.name](*arguments)
        if not isinstance(answer, list | tuple):
            return np.array(to_host(answer), dtype=np.float32)
        logits, values, ids = (np.array(to_host(part)) for part in answer)
        if self._checks:
            _check_picks(function.name, logits, values, ids)
        return logits


def _check_picks(name: str, logits: Logits, values: Logits, ids: npt.NDArray[np.int32]) -> None:
    """Compares the largest logits that a function found with those that there are.

    Raises:
        CompileFailed: they differ, so that requests that read them would get other tokens.
    """
    wanted = np.argsort(-logits, axis=1, kind="stable")[:, : ids.shape[1]]
    if np.isfinite(logits).all() and not (
        np.array_equal(ids, wanted) and np.array_equal(values, np.take_along_axis(logits, wanted, 1))
    ):
        raise CompileFailed(
            f"{name} finds other largest logits than there are: the pass {DEVICE_SAMPLING} is compiled wrongly for "
            "this target; use a recipe without it"
        )


def _one(value: int) -> npt.NDArray[np.int64]:
    return np.full(1, value, np.int64)
