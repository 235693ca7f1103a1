"""Times the dispatches of a variant's functions: a program of its own that checks what it loads, as a replica does.

    python -m services.node_agent.replica.dispatches PROCESS_SPEC [FUNCTION]

Files are checked and handed to IREE's own tools by descriptor. One JSON line for each function goes to standard output:
{"function": …, "calls": …, "statistics": JSON lines of iree-profile} or at the end {"failed": …}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from services.node_agent.core.dispatch_times import inputs_of
from services.node_agent.replica.process import die_with, private_stdout, stay_on
from services.node_agent.replica.spec import ProcessSpec
from services.node_agent.replica.verified_files import (
    loader_path,
    open_checked,
    read_manifest,
    seal_checked,
    trusted_keys,
)
from tradewind.domain.errors import Internal, NotImplementedYet, TradewindError
from tradewind.domain.manifest import FileRef, Function, VariantManifest

# Calls of each function: enough to tell dispatches apart, few enough for a large model's prefill.
CALLS: Final = 5
CALL_LIMIT_S: Final = 120.0
_MODE: Final = "host-execution,executable-metadata,queue-events"


def main(arguments: list[str]) -> None:
    """Times one function, or each."""
    spec, wanted = ProcessSpec.from_json(arguments[0]), arguments[1]
    die_with(spec.parent)
    out = os.fdopen(private_stdout(), "w", buffering=1)
    threads = stay_on(spec.cpu_ids)
    try:
        manifest = read_manifest(spec.envelope.read_bytes(), trusted_keys(spec.trusted_keys), spec.variant_id)
        if not isinstance(manifest, VariantManifest):
            raise NotImplementedYet("dispatches are timed of models that generate, not yet of tensor models")
        for line in _times(manifest, spec.artifacts, threads, wanted):
            out.write(json.dumps(line) + "\n")
    except TradewindError as error:
        out.write(json.dumps({"failed": {"reason": error.reason, "message": error.message}}) + "\n")
        sys.exit(1)


def _times(manifest: VariantManifest, artifacts: Path, threads: int, wanted: str) -> list[dict[str, object]]:
    functions = [f for f in manifest.functions if wanted in ("", f.name)]
    with tempfile.TemporaryDirectory() as folder:
        tool = _Tool(manifest, artifacts, threads, Path(folder))
        return [{"function": f.name, "calls": CALLS, "statistics": tool.statistics(f)} for f in functions]


class _Tool:
    """IREE's benchmark and profile programs over the checked files of one variant."""

    def __init__(self, manifest: VariantManifest, artifacts: Path, threads: int, folder: Path) -> None:
        self._profile = folder / "profile"
        code = seal_checked(_path(artifacts, manifest.module), manifest.module)
        self._descriptors = [code]
        self._options = [
            f"--module={loader_path(code)}",
            f"--device={manifest.driver}",
            f"--task_topology_group_count={threads}",
            f"--benchmark_min_time={CALLS}x",
            f"--device_profiling_mode={_MODE}",
            f"--device_profiling_output={self._profile}",
        ]
        for number, file in enumerate(manifest.weights):
            self._descriptors.append(open_checked(_path(artifacts, file), file))
            # The tools tell a format by the end of the name; the link leads to the descriptor itself.
            link = folder / f"{number}.irpa"
            link.symlink_to(loader_path(self._descriptors[-1]))
            self._options.append(f"--parameters={manifest.weights_scope}={link}")

    def statistics(self, function: Function) -> str:
        """JSON lines of `iree-profile statistics` over some calls of a function."""
        inputs = [f"--input={value}" for value in inputs_of(function)]
        self._run("iree-benchmark-module", *self._options, f"--function={function.name}", *inputs)
        return self._run("iree-profile", "statistics", "--format=jsonl", str(self._profile))

    def _run(self, program: str, *options: str) -> str:
        from iree._runtime import libs

        command = [str(Path(libs.library_path) / program), *options]
        try:
            ended = subprocess.run(
                command, pass_fds=self._descriptors, capture_output=True, text=True, timeout=CALL_LIMIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Internal(f"{program} did not end well: {error}") from error
        if ended.returncode != 0:
            raise Internal(f"{program} ended with code {ended.returncode}: {ended.stderr.strip()[-500:]}")
        return ended.stdout


def _path(artifacts: Path, file: FileRef) -> Path:
    return artifacts / file.digest.removeprefix("sha256:")


if __name__ == "__main__":
    main([*sys.argv[1:], ""][:2])
