"""What Prometheus is told of boards and slices. Filled from whole readings: what is gone leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from services.node_agent.core.easing import Easing
from services.node_agent.devices.port import BoardDetail, Reading, SliceDetail

_PREFIX: Final = "tradewind_gpu_"
_SLICE: Final = ("device", "slice", "kind")


def board_metrics(readings: Sequence[tuple[str, Reading]]) -> Iterator[Metric]:
    """Metrics of devices that are boards.

    Args:
        readings: (device id, reading) of every device.
    """
    boards = [(device, reading.board) for device, reading in readings if reading.board is not None]
    if boards:
        yield from _gauges(boards)
        yield from _counters(boards)
        yield from _slices([(device, one) for device, board in boards for one in board.slices])


def easing_metrics(easings: Mapping[str, Easing]) -> Iterator[Metric]:
    """Metrics of boards that have a clock to ease to, by device id."""
    eased = GaugeMetricFamily(f"{_PREFIX}clock_eased", "1 while the eased clock is in force", labels=("device",))
    changes = CounterMetricFamily(f"{_PREFIX}clock_changes", "Changes between its two clocks", labels=("device",))
    for device, easing in easings.items():
        eased.add_metric((device,), float(easing.eased))
        changes.add_metric((device,), easing.changes)
    if easings:
        yield from (eased, changes)


def _gauges(boards: Sequence[tuple[str, BoardDetail]]) -> Iterator[Metric]:
    values: tuple[tuple[str, str, Callable[[BoardDetail], float | None]], ...] = (
        ("temperature_celsius", "Temperature", lambda b: b.temperature_c),
        ("sm_clock_mhz", "Clock of the multiprocessors", lambda b: b.sm_clock_mhz),
        ("memory_clock_mhz", "Clock of the memory", lambda b: b.memory_clock_mhz),
        ("power_cap_watts", "Power cap in force", _cap_w),
        ("ecc_uncorrected_errors", "Since the driver was loaded", lambda b: b.ecc_uncorrected),
    )
    for name, words, value_of in values:
        family = GaugeMetricFamily(_PREFIX + name, words, labels=("device",))
        for device, board in boards:
            if (value := value_of(board)) is not None:
                family.add_metric((device,), value)
        yield family
    reasons = GaugeMetricFamily(f"{_PREFIX}clock_reason", "1 while it holds clocks down", labels=("device", "reason"))
    for device, board in boards:
        for reason in board.clock_reasons:
            reasons.add_metric((device, reason), 1)
    yield reasons


def _cap_w(board: BoardDetail) -> float | None:
    return None if board.power_cap_mw is None else board.power_cap_mw / 1e3


def _counters(boards: Sequence[tuple[str, BoardDetail]]) -> Iterator[Metric]:
    events = CounterMetricFamily(f"{_PREFIX}events", "Events of the driver", labels=("device", "event"))
    unallocated = CounterMetricFamily(
        f"{_PREFIX}unallocated_energy_joules", "Energy of no slice", labels=("device", "source")
    )
    for device, board in boards:
        for kind, count in board.events:
            events.add_metric((device, kind), count)
        if board.unallocated is not None:
            source = board.unallocated.source.label
            unallocated.add_metric((device, source), board.unallocated.energy_mj / 1e3)
    yield events
    yield unallocated


def _slices(slices: Sequence[tuple[str, SliceDetail]]) -> Iterator[Metric]:
    energy = CounterMetricFamily(
        f"{_PREFIX}slice_energy_joules", "Attributed since it was first seen", labels=(*_SLICE, "source")
    )
    power = GaugeMetricFamily(f"{_PREFIX}slice_power_watts", "Attributed", labels=(*_SLICE, "source"))
    memory = GaugeMetricFamily(f"{_PREFIX}slice_memory_used_bytes", "Memory in use", labels=_SLICE)
    sm = GaugeMetricFamily(f"{_PREFIX}slice_sm_activity", "Share of its multiprocessors at work", labels=_SLICE)
    dram = GaugeMetricFamily(f"{_PREFIX}slice_dram_activity", "Share of its memory bandwidth in use", labels=_SLICE)
    for device, one in slices:
        labels = (device, one.partition.uuid, one.partition.kind)
        energy.add_metric((*labels, one.energy.source.label), one.energy.energy_mj / 1e3)
        power.add_metric((*labels, one.energy.source.label), one.power_mw / 1e3)
        memory.add_metric(labels, one.memory_used_bytes)
        if one.sm_activity is not None:
            sm.add_metric(labels, one.sm_activity)
        if one.dram_activity is not None:
            dram.add_metric(labels, one.dram_activity)
    yield from (energy, power, memory, sm, dram)
