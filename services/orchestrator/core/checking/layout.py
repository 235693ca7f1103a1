"""Part of the independent check: layouts of boards, power settings, sleep. Rules stated again, in other code.

A board is a row of memory slices; each slice of the layout is laid on it, one after the other.
"""

from __future__ import annotations

from collections import defaultdict

from services.orchestrator.core.facts.blueprint import Blueprint, NodeLayout, Replica
from services.orchestrator.core.facts.fleet import Device, Node, Partition, SliceKind
from services.orchestrator.core.facts.situation import Situation


def layout_findings(situation: Situation, blueprint: Blueprint) -> list[str]:
    """Everything that is wrong with the layouts of a blueprint."""
    nodes = {node.node_id: node for node in situation.nodes}
    ended = frozenset(situation.gone)
    there: dict[tuple[str, str], list[Replica]] = defaultdict(list)
    for replica in (*blueprint.replicas, *blueprint.leaving):
        if replica.replica_id not in ended:
            there[replica.node_id, replica.partition.device_id].append(replica)
    findings: list[str] = []
    names = [layout.node_id for layout in blueprint.layouts]
    if len(set(names)) != len(names):
        findings.append("a node has two layouts")
    for layout in blueprint.layouts:
        if layout.node_id not in nodes:
            findings.append(f"a layout for {layout.node_id}, which is not known")
            continue
        findings += _node(nodes[layout.node_id], layout, there)
    return findings


def _node(node: Node, layout: NodeLayout, there: dict[tuple[str, str], list[Replica]]) -> list[str]:
    devices = {device.device_id: device for device in node.devices}
    findings: list[str] = []
    by_device: dict[str, list[Partition]] = defaultdict(list)
    for partition in layout.partitions:
        by_device[partition.device_id].append(partition)
    for device_id, partitions in sorted(by_device.items()):
        if device_id not in devices:
            findings.append(f"a layout for {node.node_id} {device_id}, which is not known")
        else:
            findings += [f"{node.node_id} {device_id}: {words}" for words in _board(devices[device_id], partitions)]
            given = {partition.partition_id for partition in partitions}
            findings += [
                f"{replica.replica_id} is on {replica.partition.partition_id}, which the layout takes away"
                for replica in there[node.node_id, device_id]
                if replica.partition.partition_id not in given
            ]
    for device_id, setting in layout.power_settings:
        if device_id not in devices or setting not in devices[device_id].power_settings:
            findings.append(f"{node.node_id} {device_id} cannot be set to {setting}")
    for device_id in layout.asleep:
        if device_id not in devices or not devices[device_id].can_sleep:
            findings.append(f"{node.node_id} {device_id} cannot sleep")
        elif there[node.node_id, device_id]:
            findings.append(
                f"{node.node_id} {device_id} shall sleep with {len(there[node.node_id, device_id])} replicas"
            )
    return findings


def _board(device: Device, partitions: list[Partition]) -> list[str]:
    """What is wrong with a set of slices on one board."""
    if not device.table:
        return ["its layout is not ours to change"]
    given = {partition.partition_id for partition in partitions}
    row: dict[int, str] = {}
    kinds: list[SliceKind] = []
    findings = [f"{name} could not be made lately" for name in device.barred if name in given]
    findings += [f"{name} could not be taken away lately" for name in device.kept if name not in given]
    for partition in partitions:
        if partition.partition_id == f"{device.device_id}:whole":
            if len(partitions) > 1:
                findings.append("the whole board beside slices")
            continue
        kind, start = _slice(device, partition)
        if kind is None or start not in kind.starts or partition.kind != kind.kind:
            findings.append(f"{partition.partition_id} ({partition.kind}) is no slice of its table")
            continue
        kinds.append(kind)
        for seat in range(start, start + kind.memory_slices):
            if seat in row:
                findings.append(f"{partition.partition_id} and {row[seat]} overlap on memory slice {seat}")
            row[seat] = partition.partition_id
    if sum(kind.compute_slices for kind in kinds) > max(kind.compute_slices for kind in device.table):
        findings.append("more compute slices than there are")
    for kind in device.table:
        if sum(one.profile_id == kind.profile_id for one in kinds) > kind.most:
            findings.append(f"more than {kind.most} of {kind.kind}")
    if sum(kind.extra_engine for kind in kinds) > 1:
        findings.append("two slices with the one extra engine")
    return findings


def _slice(device: Device, partition: Partition) -> tuple[SliceKind | None, int]:
    profile, _, start = partition.partition_id.removeprefix(f"{device.device_id}:mig:").partition("@")
    if not profile.isdigit() or not start.isdigit():
        return None, -1
    return next((kind for kind in device.table if kind.profile_id == int(profile)), None), int(start)
