"""What the agent counts: load, tokens and step times of replicas, restarts, energy. Filled from whole states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.node_agent.core.easing import Easing
from services.node_agent.core.replica_states import ReplicaState
from services.node_agent.devices.port import Device
from services.node_agent.gpu.metrics import board_metrics, easing_metrics
from services.node_agent.supervision.fleet import Fleet

_PREFIX: Final = "tradewind_"


class AgentMetrics(Collector):
    """Reads fleet and devices when it is asked, so that a replica that is gone leaves no metric behind.

    Args:
        fleet: the replicas.
        devices: the devices.
        easings: boards that have a clock to ease to, by device id.
    """

    def __init__(self, fleet: Fleet, devices: Sequence[Device], easings: Callable[[], Mapping[str, Easing]]) -> None:
        self._fleet, self._devices, self._easings = fleet, devices, easings

    def collect(self) -> Iterator[Metric]:
        """All metrics now."""
        yield from self._replica_metrics()
        joules = CounterMetricFamily(
            f"{_PREFIX}device_energy_joules", "Energy since the agent started", labels=("device", "source")
        )
        watts = GaugeMetricFamily(f"{_PREFIX}device_power_watts", "Mean power", labels=("device", "source"))
        faults = GaugeMetricFamily(f"{_PREFIX}device_fault", "1 while it is taken out", labels=("device",))
        readings = [(device.facts.device_id, device.read()) for device in self._devices]
        for device_id, reading in readings:
            labels = (device_id, reading.energy.source.label)
            joules.add_metric(labels, reading.energy.energy_mj / 1e3)
            power_source = reading.board.power_source if reading.board else reading.energy.source
            watts.add_metric((device_id, power_source.label), reading.power_mw / 1e3)
            faults.add_metric((device_id,), float(bool(reading.fault)))
        yield from (joules, watts, faults)
        yield from board_metrics(readings)
        yield from easing_metrics(self._easings())

    def _replica_metrics(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(f"{_PREFIX}replica_state", "1 for the state it is in", labels=("replica", "state"))
        starts = CounterMetricFamily(f"{_PREFIX}replica_starts", "Starts of its process", labels=("replica",))
        active = GaugeMetricFamily(f"{_PREFIX}replica_active_sequences", "Sequences at work", labels=("replica",))
        queued = GaugeMetricFamily(f"{_PREFIX}replica_queued_sequences", "Sequences waiting", labels=("replica",))
        memory = GaugeMetricFamily(f"{_PREFIX}replica_memory_bytes", "Resident memory", labels=("replica",))
        phased = ("replica", "phase")
        tokens = CounterMetricFamily(f"{_PREFIX}replica_tokens", "Tokens taken or generated", labels=phased)
        steps = CounterMetricFamily(f"{_PREFIX}replica_steps", "Steps of the engine", labels=phased)
        seconds = CounterMetricFamily(f"{_PREFIX}replica_step_seconds", "Time in steps", labels=phased)
        reused = CounterMetricFamily(
            f"{_PREFIX}replica_reused_prompt_tokens", "Prompt tokens that the cache held already", labels=("replica",)
        )
        core = CounterMetricFamily(f"{_PREFIX}replica_core_seconds", "CPU time in steps", labels=("replica",))
        for replica in self._fleet.replicas:
            name, process = replica.spec.replica_id, replica.process
            for known in ReplicaState:
                state.add_metric((name, known.name.lower()), float(replica.state is known))
            starts.add_metric((name,), replica.starts)
            if process is None:
                continue
            active.add_metric((name,), process.stats.active)
            queued.add_metric((name,), process.stats.queued)
            memory.add_metric((name,), process.memory_bytes)
            totals = process.stats.totals
            core.add_metric((name,), totals.get("core_s", 0))
            for phase in ("prefill", "decode"):
                tokens.add_metric((name, phase), totals.get(f"{phase}_tokens", 0))
                steps.add_metric((name, phase), totals.get(f"{phase}_steps", 0))
                seconds.add_metric((name, phase), totals.get(f"{phase}_s", 0))
            reused.add_metric((name,), totals.get("reused_tokens", 0))
        yield from (state, starts, active, queued, memory, core, tokens, steps, seconds, reused)
