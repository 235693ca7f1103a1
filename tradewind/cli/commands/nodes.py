"""`tradewind nodes`, `tradewind nodes drain|undrain|budget`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from tradewind.cli import boards, wish, words
from tradewind.cli.output import Cell, Output, lined, table_of, to_json, to_json_list
from tradewind.cli.session import Session, command, with_session
from tradewind.domain import units
from tradewind.domain.units import show_bytes, show_mj, show_mw
from tradewind.v1 import node_pb2, orchestrator_pb2


def register(app: typer.Typer, panel: str) -> None:
    """Adds the group; without a subcommand it lists."""
    group = typer.Typer(help="Nodes: list them, take work off them.", invoke_without_command=True)
    app.add_typer(group, name="nodes", rich_help_panel=panel)
    group.callback(invoke_without_command=True)(with_session(nodes))
    command(group, "list")(list_nodes)
    command(group, "drain")(drain)
    command(group, "undrain")(undrain)
    command(group, "budget")(budget)


def nodes(session: Session, context: typer.Context) -> None:
    """Nodes: list them, take work off them."""
    if context.invoked_subcommand is None:
        list_nodes(session)


def list_nodes(session: Session) -> None:
    """List nodes with devices, power and what runs on them."""
    found = session.client.orchestrator.nodes()
    session.out.document({"nodes": to_json_list(found)})
    show_nodes(session.out, found)


def show_nodes(out: Output, found: Sequence[orchestrator_pb2.Node]) -> None:
    """A line for each device of each node."""
    devices = [(node, device) for node in found for device in node.report.devices or [node_pb2.Device()]]
    if not devices:
        out.show("no nodes; `tradewind up` starts an agent on this machine")
        return
    columns = ["node", "state", "device", "^load", "^power", "^memory in use", "^seen"]
    out.show(*lined(columns, [_row(*pair) for pair in devices], [_kind(*pair) for pair in devices]))
    if slices := [_slice_row(node, one) for node in found for r in node.report.readings for one in r.slices]:
        out.show(table_of(["node", "slice", "^load", "^power", "^memory in use", "^energy", "UUID…"], slices))
    for node in found:
        for fault in node.report.faults:
            out.show(Text(f"{node.report.node_id}: {fault}", style="red"))
        for reading in node.report.readings:
            if reading.fault:
                out.show(Text(f"{node.report.node_id} {reading.device_id}: {reading.fault}", style="red"))
        for status in node.report.layouts:
            if trouble := boards.trouble(node.report, status.device_id):
                out.show(Text(f"{node.report.node_id} {status.device_id}: ").append_text(trouble))


def drain(session: Session, node: Annotated[str, typer.Argument(metavar="NODE", help="Node id.")]) -> None:
    """Take work off a node, make-before-break."""
    _drain(session, node, undo=False)


def undrain(session: Session, node: Annotated[str, typer.Argument(metavar="NODE", help="Node id.")]) -> None:
    """Let a node have work again."""
    _drain(session, node, undo=True)


def budget(
    session: Session,
    scope: Annotated[
        str, typer.Argument(metavar="SCOPE", help="site, node/NODE or device/NODE/DEVICE, as `nodes` names them.")
    ],
    limit: Annotated[str, typer.Argument(metavar="POWER", help="Such as 2kW or 350W; `none` takes it away.")],
) -> None:
    """Limit the power of what is placed: of the site, a node or a device."""
    limit_mw = 0 if limit == "none" else math.ceil(wish.parsed("POWER", limit, units.power_mw))
    answer = session.client.orchestrator.set_power_budget(scope, limit_mw)
    session.out.document({"scope": answer.scope, "limit_mw": int(answer.limit_mw)})
    what = f"new work is placed within {show_mw(answer.limit_mw)}" if answer.limit_mw else "has no power budget"
    session.out.show(Text.assemble((answer.scope, "bold"), f" {what}"))


def _drain(session: Session, node_id: str, *, undo: bool) -> None:
    node = session.client.orchestrator.drain(node_id, undo=undo)
    session.out.document({"node": to_json(node)})
    what = "may have work again" if undo else "gets no new work; what it has goes on until it serves elsewhere"
    session.out.show(Text.assemble((node_id, "bold"), f" {what}; ", _state(node)))


def _row(node: orchestrator_pb2.Node, device: node_pb2.Device) -> list[Cell]:
    report = node.report
    readings = {r.device_id: r for r in report.readings}
    reading = readings.get(device.device_id, node_pb2.DeviceReading())
    return [
        report.node_id,
        _state(node),
        device.device_id or "–",
        "asleep" if device.asleep else f"{reading.utilization:.0%}" if device.device_id else "–",
        show_mw(reading.power_mw) if reading.power_mw else "–",
        f"{show_bytes(reading.memory_used_bytes)} of {show_bytes(device.memory_bytes)}" if device.device_id else "–",
        words.age(node.last_seen_time, time.time()),
    ]


def _slice_row(node: orchestrator_pb2.Node, one: node_pb2.SliceReading) -> list[Cell]:
    """A slice of a board; its power and energy are shares of the board's, not measured."""
    return [
        node.report.node_id,
        one.partition.kind,
        f"{one.sm_activity:.0%}" if one.HasField("sm_activity") else "–",
        f"{show_mw(one.power_mw)} ({words.source(one.energy.source)})",
        f"{show_bytes(one.memory_used_bytes)} of {show_bytes(one.partition.memory_bytes)}",
        show_mj(one.energy.energy_mj),
        one.partition.uuid,
    ]


def _kind(node: orchestrator_pb2.Node, device: node_pb2.Device) -> str:
    """What a device is: class, partitions, where its power figures come from."""
    if node.state == orchestrator_pb2.NODE_STATE_GONE:
        return "drained and left, or lost for an hour; it is a node again when it reports"
    if not device.device_id:
        return "no devices reported"
    method = f", {device.energy_method}" if device.energy_method else ""
    partitions = ", ".join(device.partition_kinds) or "whole"
    return f"{device.device_class}; partitions {partitions}; power is {words.source(device.energy_source)}{method}"


def _state(node: orchestrator_pb2.Node) -> Text:
    return words.state(orchestrator_pb2.NodeState, node.state, "NODE_STATE_")
