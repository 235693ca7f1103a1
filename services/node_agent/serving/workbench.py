"""What those who measure need of their agent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from services.node_agent.artifacts.fetcher import Fetcher
from services.node_agent.core.power import Setting
from services.node_agent.core.target import ReplicaSpec
from services.node_agent.devices.inventory import Inventory
from services.node_agent.devices.port import Device
from services.node_agent.gpu.managed_boards import Still
from services.node_agent.replica.spec import ProcessSpec


@dataclass(frozen=True, slots=True)
class Workbench:
    """Parts of the agent; see `Surroundings` for those of replicas."""

    fetcher: Fetcher
    inventory: Inventory
    node_id: str
    busy: Callable[[], set[int | str]]
    process_spec: Callable[[ReplicaSpec, Path, int], ProcessSpec]
    envelope_path: Callable[[str], Path]
    load_limit_s: float
    at_setting: Callable[[Device, Setting], AbstractAsyncContextManager[Still]]
