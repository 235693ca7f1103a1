"""Activity of slices through GPM (Hopper and later): two samples of a slice, at least 100 ms apart."""

from __future__ import annotations

from typing import Any, Final

import pynvml

from services.node_agent.gpu.nvml.errors import told

# NVML's own rule for two samples of one GPU instance.
LEAST_WINDOW_S: Final = 0.1
_METRICS: Final = (pynvml.NVML_GPM_METRIC_SM_UTIL, pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL)
Activity = tuple[float | None, float | None]
_UNKNOWN: Final[Activity] = (None, None)


class SliceActivity:
    """Samples of one board's slices by UUID: one made anew under an old id begins anew. For one thread at a time."""

    def __init__(self) -> None:
        self._samples: dict[str, tuple[Any, float]] = {}
        self._last: dict[str, Activity] = {}
        self._spare: list[Any] = []
        self._question = pynvml.c_nvmlGpmMetricsGet_t()
        self._supported: bool | None = None

    def of(self, handle: Any, gi_id: int, slice_uuid: str, now_s: float) -> Activity:
        """Shares of (multiprocessors, memory bandwidth) at work since the sample before; None while there is none.

        Args:
            handle: of the board.
            gi_id: the slice.
            slice_uuid: its MIG device.
            now_s: monotonic clock.
        """
        if not self._supports(handle):
            return _UNKNOWN
        before = self._samples.get(slice_uuid)
        if before is not None and now_s - before[1] < LEAST_WINDOW_S:
            return self._last.get(slice_uuid, _UNKNOWN)
        sample = self._spare.pop() if self._spare else pynvml.nvmlGpmSampleAlloc()
        pynvml.nvmlGpmMigSampleGet(handle, gi_id, sample)
        self._samples[slice_uuid] = (sample, now_s)
        if before is None:
            return _UNKNOWN
        self._last[slice_uuid] = self._between(before[0], sample)
        self._spare.append(before[0])
        return self._last[slice_uuid]

    def keep(self, slice_uuids: frozenset[str]) -> None:
        """Forgets slices that are none of these."""
        for gone in [uuid for uuid in self._samples if uuid not in slice_uuids]:
            self._spare.append(self._samples.pop(gone)[0])
            self._last.pop(gone, None)

    def close(self) -> None:
        """Gives all samples back."""
        self.keep(frozenset())
        while self._spare:
            pynvml.nvmlGpmSampleFree(self._spare.pop())

    def _supports(self, handle: Any) -> bool:
        if self._supported is None:
            answer = told(pynvml.nvmlGpmQueryDeviceSupport, handle)
            self._supported = answer is not None and bool(answer.isSupportedDevice)
        return self._supported

    def _between(self, first: Any, second: Any) -> Activity:
        question = self._question
        question.version, question.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, len(_METRICS)
        question.sample1, question.sample2 = first, second
        for place, metric in enumerate(_METRICS):
            question.metrics[place].metricId = metric
        pynvml.nvmlGpmMetricsGet(question)
        sm, dram = (_share(question.metrics[place]) for place in range(len(_METRICS)))
        return sm, dram


def _share(metric: Any) -> float | None:
    return min(1.0, metric.value / 100) if metric.nvmlReturn == pynvml.NVML_SUCCESS else None
