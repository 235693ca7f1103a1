"""The machines of a live run as a cluster file of the simulator, with the store's profiles beside it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from services.simulator.cluster import Cluster, parse_cluster
from services.simulator.trace import Trace
from tradewind.client.profile_file import StoredProfiles
from tradewind.domain.errors import InvalidField
from tradewind.v1 import orchestrator_pb2

PROFILES: Final = "profiles.json"
CLUSTER: Final = "cluster.yaml"
TRACE: Final = "trace.csv"


def write_cluster(
    folder: Path, stored: StoredProfiles, nodes: Iterable[orchestrator_pb2.Node], trace: Trace
) -> Cluster:
    """Writes profiles, cluster and the trace as it is played, so that `tradewind simulate` repeats the run.

    Raises:
        InvalidField: the folder cannot be written.
        ProfileMissing: nothing can be played from these profiles.
    """
    raw = _cluster(stored, nodes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROFILES).write_text(json.dumps(stored.to_json(), indent=1) + "\n", encoding="utf-8")
        (folder / CLUSTER).write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        _write_trace(folder / TRACE, trace)
    except OSError as error:
        raise InvalidField("--out", f"{folder} cannot be written: {error}") from error
    return parse_cluster(raw, "this machine", folder)


def _cluster(stored: StoredProfiles, nodes: Iterable[orchestrator_pb2.Node]) -> dict[str, Any]:
    known = {d.device_class for d in stored.devices}
    devices = Counter(
        (device.device_class, len(device.cpu_ids))
        for node in nodes
        for device in node.report.devices
        if device.device_class in known
    )
    entries = [
        {"type": name, "count": count} | ({"cores": cores} if cores else {})
        for (name, cores), count in sorted(devices.items())
    ]
    return {"model": stored.model.name, "profiles": PROFILES, "devices": entries}


def _write_trace(path: Path, trace: Trace) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("arrival_s", "prompt_tokens", "output_tokens"))
        for at_s, prompt, output in zip(trace.arrival_s, trace.prompt_tokens, trace.output_tokens, strict=True):
            writer.writerow((f"{at_s:.4f}", prompt, output))
