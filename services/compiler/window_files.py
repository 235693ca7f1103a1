"""What the source says of many windows of text: a file for each model and part of the text, made when the first variant
wants to be compared on it. Asks nothing itself: a child process does.
"""

from __future__ import annotations

from pathlib import Path

from services.compiler.jobs.keyed import KeyedLocks
from services.compiler.jobs.runner import JobRunner, Report
from services.compiler.making import asking_job
from services.compiler.order import Order
from services.compiler.quality.text import NAME, Part
from services.compiler.quality.thresholds import reads_windows
from services.compiler.sources.normal_form import GRAPH
from services.compiler.store.blobs import BlobStore
from services.compiler.store.index import Index, key_of
from services.compiler.toolchain import toolchain_versions


def wants_windows(order: Order) -> bool:
    """Whether a variant is compared on windows; graphs are not: slow to ask, and without kernels of few bits."""
    if order.infers or not order.target.runnable_here or GRAPH in order.model.build_files:
        return False
    return reads_windows(order.recipe.precision)


class WindowFiles:
    """Makes windows; knows those made before."""

    def __init__(self, blobs: BlobStore, index: Index, runner: JobRunner) -> None:
        """Over the service's store."""
        self._blobs, self._index, self._runner = blobs, index, runner
        self._locks = KeyedLocks()

    async def of(self, order: Order, part: Part, report: Report) -> Path | None:
        """Windows of the order's model, made once however many want them; None when the order wants none.

        Args:
            order: of the variant; who asks holds a place for it.
            part: which text.
            report: hears stage and share.

        Raises:
            NoSpace: the store's disk is full.
            CompileFailed, JobTimeout, JobOutOfMemory: the child process.
        """
        if not wants_windows(order):
            return None
        key = key_of("windows", order.model.model.model_id, part, NAME, toolchain_versions())
        async with self._locks.of(key):
            known = self._index.get("windows", key)
            if known is None or not self._blobs.has(known["digest"]):
                known = {"digest": await self._ask_source(order, part, report)}
                self._index.put("windows", key, known)
        return self._blobs.existing(known["digest"])

    async def _ask_source(self, order: Order, part: Part, report: Report) -> str:
        async with self._runner.folder() as folder:
            output = folder / "windows.safetensors"
            job = {**asking_job(order.model, self._blobs, folder), "part": part, "output": str(output)}
            await self._runner.work("windows", job, folder, report)
            return self._blobs.adopt(output)
