"""Operating points of one model on device types, built from the public tables. Modelled, with held-out errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import log
from typing import Final

import numpy as np

from services.simulator.devices.boards import BOARDS, Board
from services.simulator.devices.clocks import at_clock
from services.simulator.devices.fits import (
    Error,
    decode_error,
    fit_decode,
    power_error,
    power_w,
    slope,
    slope_error,
    steps_error,
)
from services.simulator.devices.slices import SLICES, kind_of, on_slice
from services.simulator.devices.tables import BatchRun, SweepRow, Tables
from services.simulator.engine.cost import StepCost
from tradewind.domain.errors import InvalidField

# vLLM's default; larger batches keep no usual limit on TPOT here.
MOST_SEQUENCES: Final = 256
# LLM-Inference-Bench ends at this batch. Steps of larger ones are the fit's; power grows as ML.ENERGY measured it on an
# H100 with a model of the same shape, on other boards, too.
_LARGEST_FITTED: Final = 64
_GROWN_ON: Final = "Nvidia H100 GPU"
_GROWN_AS: Final = "meta-llama/Llama-3.1-8B-Instruct"
# Tokens in the cache for each sequence there: answers have 390 tokens on average, prompts some hundred (assumed).
_GROWN_CONTEXT: Final = 300
# Prefill chunk while others decode; vLLM's default token budget of a step is of this size.
CHUNK_TOKENS: Final = 512
# A prompt shorter than this does not fill the device; Vidur's slope is taken above it.
_LEAST_PREFILL_TOKENS: Final = 512
# Long compute-bound operators sit at the board limit: an H200 at 691 of 700 W (AIConfigurator's tables).
_PREFILL_POWER_SHARE: Final = 0.985
# Attention does not reach the throughput of large matrix products.
_ATTENTION_EFFICIENCY: Final = 0.5
# Engine, activations and fragments take this share of a device's memory.
_USABLE_SHARE: Final = 0.9
# Pair whose ratio stands for fp8 against bf16, by batch.
_FP8_PAIR: Final = ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "Qwen/Qwen3-235B-A22B-Instruct-2507")


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the tables have, with the figures of its architecture.

    Attributes:
        measured_as: its name in LLM-Inference-Bench.
        linear_as: the model of Vidur whose linear operators are scaled by `linear_scale`, their share of parameters.
    """

    name: str
    measured_as: str
    parameters: float
    layers: int
    hidden: int
    cache_bytes_per_token: int
    context_tokens: int
    linear_as: str
    linear_scale: float


MODELS: Final[dict[str, Model]] = {
    "llama-3-8b": Model(
        name="llama-3-8b", measured_as="meta-llama/Meta-Llama-3-8B", parameters=8.03e9, layers=32, hidden=4096,
        cache_bytes_per_token=131_072, context_tokens=131_072, linear_as="meta-llama/Llama-2-7b-hf", linear_scale=1.078,
    ),
}  # fmt: skip
_WEIGHT_BYTES: Final = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0}


@dataclass(frozen=True, slots=True)
class Point:
    """One operating point."""

    precision: str
    board: Board
    kind: str
    clock_mhz: int
    cost: StepCost
    memory_bytes: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Precision, device type, partition kind, clock (0 is the default)."""
        return (self.precision, self.board.name, self.kind, self.clock_mhz)


@dataclass(frozen=True, slots=True)
class Menu:
    """Every operating point of a model, and how far the figures behind them can be trusted."""

    model: Model
    points: tuple[Point, ...]
    errors: tuple[Error, ...]

    def resting(self) -> Menu:
        """The same where engines let the clocks of an idle board fall.

        Of whole boards only: a board of which one slice works keeps its clocks, and which slices rest together is not
        modelled.
        """
        return replace(self, points=tuple(_resting(p) if p.kind == "gpu/whole" else p for p in self.points))

    def cost(self, precision: str, board: str, kind: str, clock_mhz: int) -> StepCost:
        """The cost of a point; a clock that is the default may be given as 0."""
        default = BOARDS[board].clocks_mhz[:1]
        clock = 0 if (clock_mhz,) == default else clock_mhz
        return next(p.cost for p in self.points if p.key == (precision, board, kind, clock))


def _resting(point: Point) -> Point:
    board = point.board
    saved_w = board.loaded_idle_w - board.rested_idle_w
    return replace(point, cost=replace(point.cost, rest_saved_w=saved_w, ramp_s=board.ramp_s))


def model_named(name: str) -> Model:
    """A model of the tables.

    Raises:
        InvalidField: there is no such model; the nearest name is suggested.
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, 1, 0.0)
        raise InvalidField(
            "model", f"no public figures for {name!r}; did you mean {near[0]!r}? Known: {', '.join(MODELS)}"
        )
    return MODELS[name]


def board_named(name: str) -> Board:
    """A device type.

    Raises:
        InvalidField: there is no such type; the nearest name is suggested.
    """
    if name not in BOARDS:
        near = get_close_matches(name.lower(), BOARDS, 1, 0.0)
        raise InvalidField(
            "cluster.devices.type", f"no device type {name!r}; did you mean {near[0]!r}? Known: {', '.join(BOARDS)}"
        )
    return BOARDS[name]


def build_menu(tables: Tables, model: Model, boards: Iterable[Board]) -> Menu:
    """Every point of a model on these device types."""
    points: list[Point] = []
    errors: list[Error] = []
    for board in boards:
        for precision, whole in _whole(tables, model, board, errors):
            points.extend(_points(model, board, precision, whole))
    return Menu(model, tuple(points), tuple(errors))


def _whole(tables: Tables, model: Model, board: Board, errors: list[Error]) -> Iterable[tuple[str, StepCost]]:
    if board.kind == "cpu":
        for precision in board.precisions:
            yield precision, _cpu(model, board, precision)
        return
    full = _gpu(tables, model, board, errors)
    yield "bf16", full
    if "fp8" in board.precisions:
        yield "fp8", _fp8(tables, model, board, full)


def _points(model: Model, board: Board, precision: str, whole: StepCost) -> Iterable[Point]:
    weights = model.parameters * _WEIGHT_BYTES[precision]
    kinds = {"gpu/whole" if board.kind == "gpu" else f"cpu/{_CPU_CORES}": (whole, board.memory_bytes)}
    if board.mig:
        for part in (s for s in SLICES if s.name in _OFFERED):
            room = board.memory_bytes * _USABLE_SHARE
            cut = on_slice(whole, part, weights, room, model.cache_bytes_per_token)
            if cut.cache_tokens >= _LEAST_CACHE_TOKENS:
                kinds[kind_of(part, board.memory_bytes)] = (cut, board.memory_bytes * part.memory // 8)
    for kind, (cost, memory) in kinds.items():
        for clock in board.clocks_mhz or (0,):
            ratio = clock / board.clocks_mhz[0] if clock else 1.0
            shown = 0 if ratio == 1.0 else clock
            yield Point(precision, board, kind, shown, at_clock(cost, ratio), int(memory * _USABLE_SHARE))


# Slices offered: halves and quarters of the memory. A 4g is a 3g with more compute, a 1g too slow for any SLO here.
_OFFERED: Final = ("2g", "3g")
# A slice with less cache than a few conversations is of no use.
_LEAST_CACHE_TOKENS: Final = 8_192
# Both sockets together; the model of this CPU is not cut into cores.
_CPU_CORES: Final = 128


def _gpu(tables: Tables, model: Model, board: Board, errors: list[Error]) -> StepCost:
    linear = tables.linear_ms(board.vidur, model.linear_as)
    prefill_s = slope(linear, _LEAST_PREFILL_TOKENS) * model.layers * model.linear_scale / 1000.0
    room = board.memory_bytes * _USABLE_SHARE - 2.0 * model.parameters
    runs = [r for r in tables.batch_runs(board.hardware, model.measured_as) if _fits(r, room, model)]
    powers = [(r.batch, r.power_w) for r in tables.powers(board.hardware, model.measured_as)]
    fit, grown = fit_decode(runs, prefill_s), _grown(tables)
    errors += [
        decode_error(runs, prefill_s, f"{board.name} latency of a batch"),
        power_error(powers, f"{board.name} power by batch"),
        slope_error(linear, _LEAST_PREFILL_TOKENS, f"{board.name} linear operators of a prompt"),
    ]
    square = 2.0 * model.hidden * model.layers / (board.peak_flops * _ATTENTION_EFFICIENCY)
    if board.hardware == _GROWN_ON:
        errors.append(steps_error(fit, grown, _GROWN_CONTEXT, f"{board.name} steps of batches beyond the fitted"))
    growth = [(row.batch, row.power_w / grown[0].power_w) for row in grown]
    watts = [
        min(max(power_w(powers, n) * power_w(growth, n), board.loaded_idle_w), board.most_w)
        for n in range(1, MOST_SEQUENCES + 1)
    ]
    return StepCost(
        decode_s=(0.0, *(fit.weights_s + fit.sequence_s * n for n in range(1, MOST_SEQUENCES + 1))),
        context_s=fit.context_s,
        prefill_token_s=prefill_s,
        prefill_square_s=square,
        chunk_tokens=CHUNK_TOKENS,
        decode_power_w=(board.loaded_idle_w, *watts),
        prefill_power_w=board.most_w * _PREFILL_POWER_SHARE,
        cache_tokens=int(room / model.cache_bytes_per_token),
        load_s=board.start_s + 2.0 * model.parameters / board.load_bytes_per_s,
    )


def _grown(tables: Tables) -> tuple[SweepRow, ...]:
    """The largest fitted batch and those beyond."""
    rows = [row for row in tables.sweep(_GROWN_AS, "H100", 1, "lm-arena-chat") if row.batch >= _LARGEST_FITTED]
    if not rows or rows[0].batch != _LARGEST_FITTED:
        raise InvalidField("device-tables", f"no row of {_GROWN_AS} with batch {_LARGEST_FITTED} to go on from")
    return tuple(row for row in rows if row.batch <= MOST_SEQUENCES)


def _fits(run: BatchRun, room_bytes: float, model: Model) -> bool:
    """Whether a run's cache fits; one that does not was served in turns and says nothing of a step."""
    return run.batch * 2 * run.tokens * model.cache_bytes_per_token <= room_bytes


def _fp8(tables: Tables, model: Model, board: Board, full: StepCost) -> StepCost:
    """bf16 figures times what fp8 changed for a model measured in both, by batch; prefill as it was."""
    low, high = (tables.sweep(name, "H100", 8, "lm-arena-chat") for name in _FP8_PAIR)
    shared = sorted({r.batch for r in low} & {r.batch for r in high})
    pairs = [(next(r for r in low if r.batch == b), next(r for r in high if r.batch == b)) for b in shared]
    if not pairs:
        raise InvalidField("device-tables", f"no rows of {' and '.join(_FP8_PAIR)} to derive fp8 from")
    logs = [log(b) for b in shared]

    def ratio(n: int, values: list[float]) -> float:
        return float(np.interp(log(n), logs, values))

    steps = [a.step_ms / b.step_ms for a, b in pairs]
    watts = [a.power_w / b.power_w for a, b in pairs]
    counts = range(1, MOST_SEQUENCES + 1)
    room = board.memory_bytes * _USABLE_SHARE - model.parameters
    return replace(
        full,
        decode_s=(0.0, *(full.decode_s[n] * ratio(n, steps) for n in counts)),
        decode_power_w=(
            full.idle_power_w,
            *(min(full.decode_power_w[n] * ratio(n, watts), board.most_w) for n in counts),
        ),
        cache_tokens=int(room / model.cache_bytes_per_token),
        load_s=board.start_s + model.parameters / board.load_bytes_per_s,
    )


def _cpu(model: Model, board: Board, precision: str) -> StepCost:
    """Two sockets: 1.6 ms a weight GB for memory at 0.6 TB/s, prompts at the pace of MLPerf v4.1's GPT-J offline rows.

    3.6 GPT-J samples a second (6 B, int8) with prompts of some hundred tokens bound a prompt token of 8 B at 0.25 ms.
    """
    gigabytes = model.parameters * _WEIGHT_BYTES[precision] / 1e9
    token_s = 0.25e-3 if precision == "int8" else 0.4e-3
    return StepCost(
        decode_s=(0.0, *(0.0024 * gigabytes + 0.0006 * n for n in range(1, MOST_SEQUENCES + 1))),
        context_s=model.cache_bytes_per_token / 500e9,
        prefill_token_s=token_s,
        prefill_square_s=0.0,
        chunk_tokens=CHUNK_TOKENS,
        decode_power_w=(board.loaded_idle_w, *(650.0,) * MOST_SEQUENCES),
        prefill_power_w=650.0,
        cache_tokens=int((board.memory_bytes * _USABLE_SHARE / 2) / model.cache_bytes_per_token),
        load_s=board.start_s + gigabytes * 1e9 / board.load_bytes_per_s,
    )
