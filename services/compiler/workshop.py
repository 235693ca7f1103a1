"""The compiler as a library: one state folder with store, index, key and jobs. Knows no gRPC and no database."""

from __future__ import annotations

from pathlib import Path

from services.compiler.building import Builder
from services.compiler.host_cpu import read_host_cpu
from services.compiler.importing import Importer
from services.compiler.jobs.limits import JobLimits
from services.compiler.jobs.places import Places
from services.compiler.jobs.runner import JobRunner
from services.compiler.making import Maker
from services.compiler.search.bench import Bench
from services.compiler.search.lending import Lender
from services.compiler.search.probing import Prober
from services.compiler.search.trying import Trier
from services.compiler.store.blobs import BlobStore
from services.compiler.store.index import Index
from services.compiler.store.lock import lock_folder
from services.compiler.store.signing import open_signing_key
from services.compiler.targets import known_targets
from services.compiler.window_files import WindowFiles


class Workshop:
    """Everything that makes models and variants in one state folder.

    Attributes:
        blobs: artifacts by digest.
        importer: makes models.
        builder: makes variants.
        trier: tries candidates of a search whole.
        prober: tries them on some layers.
        places: bound how many child processes are under way.
        targets: what can be compiled for.
    """

    def __init__(self, state_dir: Path, limits: JobLimits, places: int = 2) -> None:
        """Opens the folder, made when missing, and clears what an earlier life left half done.

        Args:
            state_dir: for everything it keeps.
            limits: of each child process.
            places: imports and builds at once.

        Raises:
            InUse: another compiler works in the folder.
        """
        state_dir = state_dir.resolve()
        state_dir.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(state_dir)
        self.blobs = BlobStore(state_dir / "blobs")
        self.blobs.sweep()
        index = Index(state_dir / "index")
        runner = JobRunner(state_dir / "work", limits)
        self.places = Places(places)
        self.importer = Importer(self.blobs, index, runner, self.places)
        maker, key = Maker(self.blobs, index, runner), open_signing_key(state_dir / "keys")
        stores, windows = (self.blobs, index), WindowFiles(self.blobs, index, runner)
        self.builder = Builder(stores, runner, key, maker, self.places, windows)
        bench = Bench(runner, self.places)
        self.trier = Trier(stores, runner, self.builder, self.places, bench, windows)
        self.prober = Prober(runner, self.places, maker, bench, Lender(self.blobs, key))
        self.targets = known_targets(read_host_cpu())

    def close(self) -> None:
        """Lets the folder go."""
        self._lock.close()
