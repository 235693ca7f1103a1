"""A compiled variant, loaded: logits for prompt chunks and decode steps. No scheduling, no sampling.

`Model` is the port; `IreeModel` drives a module of ABI "tradewind.generate/1" through the IREE runtime.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from services.node_agent.replica.device import open_device
from services.node_agent.replica.verified_files import loader_path, open_checked, seal_checked
from tradewind.domain.manifest import FileRef, Function, VariantManifest

Logits = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

_WEIGHTS_FORMAT: Final = "irpa"


class Model(Protocol):
    """What the engine drives. Calls come from one thread; an answer is valid until the next call."""

    def prefill(self, function: Function, tokens: Tokens, slot: int, start: int) -> Logits:
        """Writes prompt tokens into a slot from row `start` on; logits [V] of the last of them."""

    def decode(self, function: Function, tokens: Sequence[int], positions: Sequence[int]) -> Logits:
        """One token for each of the first B slots, written at its position; logits [B, V]."""


class IreeModel:
    """A module in memory with a cache of its own."""

    def __init__(self, manifest: VariantManifest, artifacts: Path, threads: int) -> None:
        """Checks and maps the files of a variant.

        Args:
            manifest: out of a checked envelope.
            artifacts: folder of files named by the hexadecimal part of their digest.
            threads: workers of the CPU device.

        Raises:
            ArtifactRejected: a file is missing or not what the manifest says.
            DeviceFault: the device that the variant's driver needs cannot be opened.
        """
        import iree.runtime as rt

        # Shapes and types are right by construction here; checking them again costs time in each step.
        rt.flags.FUNCTION_INPUT_VALIDATION = False
        config = rt.Config(device=open_device(manifest.driver, threads))
        index = rt.ParameterIndex()
        descriptors = []
        for file in manifest.weights:
            descriptors.append(open_checked(_path(artifacts, file), file))
            index.load(loader_path(descriptors[-1]), format=_WEIGHTS_FORMAT, mmap=True)
        provider = index.create_provider(scope=manifest.weights_scope)
        parameters = rt.create_io_parameters_module(config.vm_instance, provider)
        descriptors.append(seal_checked(_path(artifacts, manifest.module), manifest.module))
        code = rt.VmModule.mmap(config.vm_instance, loader_path(descriptors[-1]))
        module: Any = rt.load_vm_modules(parameters, code, config=config)[-1]
        for descriptor in descriptors:
            os.close(descriptor)
        self._functions = {f.name: module[f.name] for f in manifest.functions}
        self._chunks = {f.tokens: np.zeros((1, f.tokens), np.int64) for f in manifest.functions if f.phase == "prefill"}

    def prefill(self, function: Function, tokens: Tokens, slot: int, start: int) -> Logits:
        """See `Model`."""
        chunk = self._chunks[function.tokens]
        chunk[0, : len(tokens)] = tokens
        answer = self._functions[function.name](chunk, _one(slot), _one(start), _one(len(tokens)))
        logits: Logits = np.asarray(answer)[0]
        return logits

    def decode(self, function: Function, tokens: Sequence[int], positions: Sequence[int]) -> Logits:
        """See `Model`."""
        answer = self._functions[function.name](np.array(tokens, np.int64), np.array(positions, np.int64))
        logits: Logits = np.asarray(answer)
        return logits


def _path(artifacts: Path, file: FileRef) -> Path:
    return artifacts / file.digest.removeprefix("sha256:")


def _one(value: int) -> Tokens:
    return np.full(1, value, np.int64)
