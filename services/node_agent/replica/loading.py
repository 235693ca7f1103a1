"""Loads a variant's module through the IREE runtime, from files whose bytes were checked. Calls no function of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from services.node_agent.replica.device import open_device
from services.node_agent.replica.verified_files import loader_path, open_checked, seal_checked
from tradewind.domain.infer_manifest import AnyManifest
from tradewind.domain.manifest import FileRef

_WEIGHTS_FORMAT: Final = "irpa"


def load_module(manifest: AnyManifest, artifacts: Path, threads: int) -> Any:
    """A module in memory, functions by name.

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
    return module


def _path(artifacts: Path, file: FileRef) -> Path:
    return artifacts / file.digest.removeprefix("sha256:")
