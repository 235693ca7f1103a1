"""Drives a compiled module through the engine's ABI, one call at a time. No scheduling, no sampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import iree.runtime as rt
import numpy as np
import numpy.typing as npt

from services.compiler.export.shapes import WEIGHTS_SCOPE
from tradewind.domain.manifest import Function

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
        return np.array(self._module[function.name](*arguments), dtype=np.float32)


def _one(value: int) -> npt.NDArray[np.int64]:
    return np.full(1, value, np.int64)
