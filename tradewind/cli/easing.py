"""Which variants could have their boards' clocks eased and were measured at one clock only. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tradewind.v1 import compiler_pb2, orchestrator_pb2, profiler_pb2


def uneased(
    profiles: Iterable[profiler_pb2.Profile], nodes: Iterable[orchestrator_pb2.Node]
) -> frozenset[tuple[str, str]]:
    """Models and variants, by id, with a profile of a whole board at its default and none at the clock it eases to."""
    eased_mhz = {
        device.device_class: setting.eased_sm_clock_mhz
        for node in nodes
        for device in node.report.devices
        for setting in device.power_settings
        if setting.HasField("eased_sm_clock_mhz")
    }
    points = {
        (p.model_id, p.point.variant_id, p.point.device_class, p.point.partition_kind, p.point.power.sm_clock_mhz)
        for p in profiles
        if not p.point.power.HasField("power_cap_mw")
    }
    return frozenset(
        (model_id, variant_id)
        for model_id, variant_id, board, kind, clock in points
        if not clock and board in eased_mhz and kind.endswith("/whole")
        if (model_id, variant_id, board, kind, eased_mhz[board]) not in points
    )


def advice(
    models: Iterable[compiler_pb2.Model],
    profiles: Iterable[profiler_pb2.Profile],
    nodes: Iterable[orchestrator_pb2.Node],
) -> list[str]:
    """What to run so that plans can ease clocks; empty when they can already, or no board offers it."""
    missing = {model_id for model_id, _ in uneased(profiles, nodes)}
    return [
        f"boards could ease their clock under {model.name}, which is not measured at a lower one: "
        f"`tradewind profile run {model.name} --sm-clock auto`"
        for model in models
        if model.model_id in missing
    ]
