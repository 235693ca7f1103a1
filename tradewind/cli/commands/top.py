"""`tradewind top`: power, load and latency, live."""

from __future__ import annotations

import json
import threading
import time
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from tradewind.cli import boards, words
from tradewind.cli.end_to_end import kept_lines
from tradewind.cli.output import Cell, table_of, to_json_list
from tradewind.cli.session import Session, command
from tradewind.cli.wish import parsed
from tradewind.domain import units
from tradewind.domain.figures import weakest
from tradewind.domain.units import show_bytes, show_ms, show_mw
from tradewind.v1 import node_pb2, orchestrator_pb2


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command."""
    command(app, "top", rich_help_panel=panel)(top)


def top(
    session: Session,
    every: Annotated[str, typer.Option("--every", help="Time between looks.")] = "2s",
    count: Annotated[int, typer.Option("--count", min=0, help="Looks to take; 0: until Ctrl-C.")] = 0,
) -> None:
    """Watch nodes and deployments. Without a terminal, and with --json, one look unless --count says more."""
    period_s = parsed("--every", every, units.duration_s)
    orchestrator = session.client.orchestrator
    live = session.out.screen.is_terminal and not session.out.json
    looks = count or (0 if live else 1)
    taken = 0
    try:
        with Live(console=session.out.screen, auto_refresh=False, screen=live and not count) as screen:
            while not looks or taken < looks:
                if taken:
                    threading.Event().wait(period_s)
                nodes, deployments = orchestrator.nodes(), orchestrator.deployments()
                taken += 1
                if session.out.json:
                    _line(session, nodes, deployments)
                elif live:
                    screen.update(_view(nodes, deployments), refresh=True)
                else:
                    session.out.show(_view(nodes, deployments))
    except KeyboardInterrupt:
        # The way to leave a live view; nothing went wrong.
        return


def _line(session: Session, nodes: list[orchestrator_pb2.Node], deployments: list[orchestrator_pb2.Deployment]) -> None:
    """One look as one line of JSON."""
    look: dict[str, Any] = {"nodes": to_json_list(nodes), "deployments": to_json_list(deployments)}
    session.out.screen.file.write(json.dumps(look, ensure_ascii=False) + "\n")
    session.out.screen.file.flush()


def _view(nodes: list[orchestrator_pb2.Node], deployments: list[orchestrator_pb2.Deployment]) -> RenderableType:
    readings = [r for n in nodes for r in n.report.readings]
    total = sum(r.power_mw for r in readings)
    here = sum(n.state != orchestrator_pb2.NODE_STATE_GONE for n in nodes)
    label = weakest(d.energy_source for n in nodes for d in n.report.devices).label.replace("_", " ")
    head = Text.assemble(
        ("tradewind top", "bold"), f"  {time.strftime('%H:%M:%S')}  {here} nodes, {show_mw(total)} ({label})"
    )
    kept = [line for d in deployments for line in kept_lines(d)]
    return Group(head, _node_table(nodes), _replica_table(nodes, deployments), *kept)


def _node_table(nodes: list[orchestrator_pb2.Node]) -> RenderableType:
    rows: list[list[Cell]] = []
    for node in nodes:
        for r in node.report.readings:
            rows.append(
                [
                    node.report.node_id,
                    words.state(orchestrator_pb2.NodeState, node.state, "NODE_STATE_"),
                    r.device_id,
                    _gauge(r.utilization),
                    f"{r.utilization:.0%}",
                    show_mw(r.power_mw),
                    show_bytes(r.memory_used_bytes),
                    boards.slices(node.report, r.device_id),
                    Text(r.fault, style="red") if r.fault else boards.trouble(node.report, r.device_id),
                ]
            )
    return table_of(["node", "state", "device", "load", "^", "^power", "^memory", "slices", "fault…"], rows)


def _replica_table(
    nodes: list[orchestrator_pb2.Node], deployments: list[orchestrator_pb2.Deployment]
) -> RenderableType:
    names = {d.deployment_id: d.name for d in deployments}
    rows: list[list[Cell]] = []
    for node in nodes:
        for r in node.report.replicas:
            rows.append(
                [
                    names.get(r.deployment_id, words.short(r.deployment_id)),
                    words.state(node_pb2.ReplicaState, r.state, "REPLICA_STATE_"),
                    f"{node.report.node_id} {r.partition_id}",
                    words.short(r.variant_id),
                    str(r.active_sequences),
                    str(r.queued_sequences),
                    show_ms(r.ttft.p95_ms) if r.ttft.samples else "–",
                    show_ms(r.tpot.p95_ms) if r.tpot.samples else "–",
                    str(r.generated_tokens),
                ]
            )
    return table_of(
        ["deployment", "state", "where", "variant", "^busy", "^queue", "^TTFT p95", "^TPOT p95", "^tokens"], rows
    )


def _gauge(share: float, width: int = 12) -> Text:
    full = round(max(0.0, min(1.0, share)) * width)
    style = "green" if share < 0.7 else "yellow" if share < 0.9 else "red"
    return Text("█" * full, style=style) + Text("░" * (width - full), style="dim")
