"""Reads the public measurement tables that device models are fitted to. Nothing is computed here.

Sources: LLM-Inference-Bench (Argonne, BSD-3, github.com/argonne-lcf/LLM-Inference-Bench), Vidur's linear operators
(MIT, github.com/microsoft/vidur), ML.ENERGY v3 (Apache-2.0, arXiv 2505.06371).
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from tradewind.domain.errors import InvalidField

LATENCY_FILE: Final = "anl_llm_inference_bench.csv.gz"
POWER_FILE: Final = "anl_power.csv"
LINEAR_FILE: Final = "vidur_linear_op_ms.csv.gz"
BATCH_FILE: Final = "mlenergy_v3_llm.csv"
_ENGINE: Final = "vLLM"


@dataclass(frozen=True, slots=True)
class BatchRun:
    """Requests of one length started together: prompts of `tokens`, answers of `tokens`.

    Attributes:
        latency_s: until the last answer is whole.
        power_w: mean of the device meanwhile; 0 when not recorded.
    """

    tokens: int
    batch: int
    latency_s: float
    power_w: float = 0.0


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One batch size of a sweep in steady state."""

    batch: int
    step_ms: float
    power_w: float


class Tables:
    """The folder of tables.

    Raises:
        InvalidField: the folder or one of its files is missing or has other columns.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not (folder / LATENCY_FILE).is_file():
            raise InvalidField(
                "device-tables", f"no {LATENCY_FILE} in {folder}; say where the public tables are with --device-tables"
            )

    def batch_runs(self, hardware: str, model: str) -> tuple[BatchRun, ...]:
        """Latency by batch and length on one device, by batch and length."""
        rows = [
            BatchRun(int(r["Input Output Length"]), int(r["Batch Size"]), float(r["Latency"]))
            for r in self._rows(LATENCY_FILE, "Input Output Length", "Batch Size", "Latency")
            if (r["Hardware"], r["Framework"], r["Num of Hardware"], r["Model"]) == (hardware, _ENGINE, "1", model)
        ]
        return tuple(sorted(rows, key=lambda r: (r.batch, r.tokens)))

    def powers(self, hardware: str, model: str) -> tuple[BatchRun, ...]:
        """Mean power by batch on one device, by batch."""
        rows = [
            BatchRun(int(r["Input Output Length"]), int(r["Batch Size"]), float(r["Latency"]), float(r["avg_power_w"]))
            for r in self._rows(POWER_FILE, "avg_power_w", "Batch Size", "Latency")
            if (r["Hardware"], r["Framework"], r["Num of Hardware"], r["Model"]) == (hardware, _ENGINE, "1", model)
        ]
        return tuple(sorted(rows, key=lambda r: r.batch))

    def linear_ms(self, gpu: str, model: str) -> tuple[tuple[int, float], ...]:
        """(tokens, milliseconds of the linear operators of one layer), by tokens."""
        rows = []
        for r in self._rows(LINEAR_FILE, "gpu", "num_tokens"):
            if (r["gpu"], r["model"], r["num_tensor_parallel_workers"]) == (gpu, model, "1"):
                parts = (float(v or 0) for k, v in r.items() if k.endswith("_ms") and k != "emb_ms")
                rows.append((int(r["num_tokens"]), sum(parts)))
        return tuple(sorted(rows))

    def sweep(self, model: str, gpu: str, num_gpus: int, task: str) -> tuple[SweepRow, ...]:
        """Step time and power by batch size, by batch size."""
        rows = [
            SweepRow(int(r["max_num_seqs"]), float(r["itl_p50_ms"]), float(r["avg_power_w"]))
            for r in self._rows(BATCH_FILE, "max_num_seqs", "itl_p50_ms", "avg_power_w")
            if (r["model"], r["gpu"], r["num_gpus"], r["task"]) == (model, gpu, str(num_gpus), task)
        ]
        return tuple(sorted(rows, key=lambda r: r.batch))

    def _rows(self, name: str, *columns: str) -> list[dict[str, str]]:
        path = self._folder / name
        if not path.is_file():
            raise InvalidField("device-tables", f"no {name} in {self._folder}")
        with _open(path) as file:
            reader = csv.DictReader(file)
            missing = [c for c in columns if c not in (reader.fieldnames or [])]
            if missing:
                raise InvalidField("device-tables", f"{name} has no column {', '.join(missing)}")
            return list(reader)


def _open(path: Path) -> TextIO:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
