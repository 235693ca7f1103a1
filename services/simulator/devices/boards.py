"""Device types that clusters are made of: facts with their sources, and what had to be assumed.

Idle power of H100 and A100 is as measured in arXiv 2605.23918: bare idle, and idle once a process holds the board,
which raises its clocks. With `CUDA_DISABLE_PERF_BOOST=1` (driver 580.105.08 and newer) the clocks fall 2 s after the
last kernel and the power within 4 s: from 128.1 to 73.1 W on an H100 (to within 0.6 W of bare idle on each of four),
from 75.1 to 64.5 W on an A100. The first request after that takes 147 and 220 ms longer, later ones no longer than
without it. The watts saved on the A100 are taken over as they are, so that it rests 15.7 W above bare idle here. No
public table has the power of a board that sleeps, the time it takes to wake, or the time to load a model; those are
assumptions, named in every report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Board:
    """A device type.

    Attributes:
        hardware: its name in LLM-Inference-Bench; "" when it is not there.
        vidur: its name in Vidur's tables.
        bare_idle_w: on, nothing loaded.
        loaded_idle_w: on, at least one replica loaded, nothing to do.
        rested_idle_w: the same, when its process lets the clocks fall (`CUDA_DISABLE_PERF_BOOST=1`) and they fell.
        ramp_s: what the first work takes longer then.
        sleep_w: powered down as far as its node allows.
        wake_s: from asleep to able to load.
        load_bytes_per_s: weights from host memory to the board, engine start included beside `start_s`.
        start_s: of an engine process before it loads.
        clocks_mhz: locked SM clocks it may be set to, the default first.
        mig: whether it can be partitioned.
        price_per_hour: for the objective `cost`.
    """

    name: str
    hardware: str
    vidur: str
    kind: str
    memory_bytes: int
    bare_idle_w: float
    loaded_idle_w: float
    rested_idle_w: float
    ramp_s: float
    most_w: float
    peak_flops: float
    sleep_w: float
    wake_s: float
    load_bytes_per_s: float
    start_s: float
    clocks_mhz: tuple[int, ...]
    mig: bool
    price_per_hour: float
    precisions: tuple[str, ...]


BOARDS: Final[dict[str, Board]] = {
    board.name: board
    for board in (
        Board(
            name="h100-sxm", hardware="Nvidia H100 GPU", vidur="h100", kind="gpu", memory_bytes=80 * _GIB,
            bare_idle_w=71.8, loaded_idle_w=121.7, rested_idle_w=72.4, ramp_s=0.147,
            most_w=700.0, peak_flops=989e12, sleep_w=5.0, wake_s=120.0,
            load_bytes_per_s=2e9, start_s=10.0, clocks_mhz=(1980, 1590, 1200), mig=True, price_per_hour=3.0,
            precisions=("bf16", "fp8"),
        ),
        Board(
            name="a100-sxm", hardware="Nvidia A100 GPU", vidur="a100", kind="gpu", memory_bytes=40 * _GIB,
            bare_idle_w=53.7, loaded_idle_w=80.0, rested_idle_w=69.4, ramp_s=0.22,
            most_w=400.0, peak_flops=312e12, sleep_w=5.0, wake_s=120.0,
            load_bytes_per_s=2e9, start_s=10.0, clocks_mhz=(1410, 1140, 840), mig=True, price_per_hour=1.5,
            precisions=("bf16",),
        ),
        Board(
            name="xeon-8592-2s", hardware="", vidur="", kind="cpu", memory_bytes=512 * _GIB,
            bare_idle_w=160.0, loaded_idle_w=160.0, rested_idle_w=160.0, ramp_s=0.0,
            most_w=700.0, peak_flops=0.0, sleep_w=5.0, wake_s=120.0,
            load_bytes_per_s=2e9, start_s=5.0, clocks_mhz=(), mig=False, price_per_hour=1.0,
            precisions=("bf16", "int8"),
        ),
    )
}  # fmt: skip

ASSUMPTIONS: Final = (
    "a sleeping device is in a node that is powered down: 5 W for standby, 120 s until it can load: assumed",
    "engine start 10 s on a GPU and 5 s on a CPU, weights at 2 GB/s: assumed, slower than vLLM's sleep mode",
    "a whole board whose engine lets clocks fall draws 72.4 W (H100) or 69.4 W (A100) after 4 s of rest, and its next "
    "work starts 0.147 or 0.22 s later (arXiv 2605.23918); a board in slices is taken to keep its clocks up",
    "hosts of GPUs are not counted, neither for baselines nor for adaptive policies",
    "two-socket Xeon 8592+: 160 W idle, 650 W at work (its TDP is 700 W): assumed; speed from MLPerf v4.1 GPT-J rows",
    "board power is the loaded idle power plus each replica's own; a replica on a slice adds its share of bandwidth",
    "shared prefixes are not reused; the cache of a replica takes prompt and output tokens of what it has in hand",
)
