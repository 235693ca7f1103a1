"""What a change of a board's clock costs in the agent and its helper, without the driver: the board is simulated.

python -m bench.gpu.easing [--changes 300]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import psutil

from services.node_agent.core.power import Setting
from services.node_agent.gpu.power_keeper import PowerKeeper, kept_board
from tests.gpu.helper.process import Helper

EASED_MHZ = 990
# Released to the default, and locked again with a cap held.
SETTINGS = {"full: default": Setting(None, None, EASED_MHZ), "full: 1395 MHz": Setting(300_000, 1395, EASED_MHZ)}


def main() -> None:
    """Prints milliseconds of changes down and up, and processor time of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=300)
    changes = parser.parse_args().changes
    with tempfile.TemporaryDirectory() as place, Helper(Path(place) / "run", backend="simulated:h100-80") as helper:
        (facts,) = helper.client.boards()
        keeper = PowerKeeper(helper.client, helper.client, [kept_board(facts, lambda: 0)], None)
        for name, setting in SETTINGS.items():
            keeper.want({facts.uuid: setting})
            keeper.look()
            assert not keeper.states[facts.uuid].refusal
            before_s = _cpu_s(helper)
            down_ms, up_ms = [], []
            for _ in range(changes):
                down_ms.append(_took_ms(keeper, facts.uuid, eased=True))
                up_ms.append(_took_ms(keeper, facts.uuid, eased=False))
            each_ms = (_cpu_s(helper) - before_s) / (2 * changes) * 1e3
            print(f"{name}: down {_told(down_ms)}, up {_told(up_ms)}; processor time {each_ms:.2f} ms a change")


def _took_ms(keeper: PowerKeeper, uuid: str, *, eased: bool) -> float:
    begun_s = time.perf_counter()
    keeper.ease(uuid, eased=eased)
    return (time.perf_counter() - begun_s) * 1e3


def _cpu_s(helper: Helper) -> float:
    """Of this process, the helper and its worker."""
    processes = [psutil.Process(), psutil.Process(helper.process.pid), helper.worker]
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def _told(values_ms: list[float]) -> str:
    return f"{median(values_ms):.2f} ms median, {quantiles(values_ms, n=20)[-1]:.2f} ms p95"


if __name__ == "__main__":
    main()
