"""The compiler as a library: one state folder with store, index, key and jobs. Knows no gRPC and no database."""

from __future__ import annotations

from pathlib import Path

from services.compiler.building import Builder
from services.compiler.importing import Importer
from services.compiler.jobs.limits import JobLimits
from services.compiler.jobs.runner import JobRunner
from services.compiler.store.blobs import BlobStore
from services.compiler.store.index import Index
from services.compiler.store.signing import open_signing_key
from services.compiler.targets import known_targets, read_host_cpu


class Workshop:
    """Everything that makes models and variants in one state folder.

    Attributes:
        blobs: artifacts by digest.
        importer: makes models.
        builder: makes variants.
        targets: what can be compiled for.
    """

    def __init__(self, state_dir: Path, limits: JobLimits) -> None:
        """Opens the folder, made when missing, and clears what an earlier life left half done."""
        state_dir = state_dir.resolve()
        self.blobs = BlobStore(state_dir / "blobs")
        self.blobs.sweep()
        index = Index(state_dir / "index")
        runner = JobRunner(state_dir / "work", limits)
        self.importer = Importer(self.blobs, index, runner)
        self.builder = Builder(self.blobs, index, runner, open_signing_key(state_dir / "keys"))
        self.targets = known_targets(read_host_cpu())
