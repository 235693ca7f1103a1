"""Clusters as YAML: device types × counts, labels and racks. Built into nodes as the orchestrator sees them.

model: llama-3-8b
devices:
  - {type: h100-sxm, count: 8, per_node: 4, rack: r1, labels: {zone: a}}
  - {type: a100-sxm, count: 8, per_node: 4}

With `profiles: FILE` (of `tradewind profile export`, relative to this file) the model and its device classes are
those of our own store; `cores` says how many each CPU has.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import yaml

from services.orchestrator.core.facts.fleet import (
    WHOLE_KIND,
    Device,
    DeviceKind,
    Node,
    NodeState,
    Partition,
    PowerSetting,
    SliceKind,
)
from services.simulator.devices.boards import Board
from services.simulator.devices.menu import Model, board_named, model_named
from services.simulator.devices.slices import SLICES, kind_of
from services.simulator.stored.menu import StoredMenu, stored_menu
from tradewind.client.profile_file import read_profiles
from tradewind.domain.errors import InvalidField

# Larger clusters are split by people too; the simulator keeps every node in memory.
MAX_DEVICES: Final = 100_000
_KEYS: Final = ("model", "devices", "name", "profiles")
_DEVICE_KEYS: Final = ("type", "count", "per_node", "labels", "rack", "slices", "cores")
# Cores of a CPU of the public tables: both sockets together, never cut.
_TABLE_CORES: Final = 128
# Every node has its device type as a label, so that a wish can ask for one.
TYPE_LABEL: Final = "device-type"


@dataclass(frozen=True, slots=True)
class Group:
    """So many equal devices.

    Attributes:
        slices: whether they may be partitioned, if their type can be.
        cores: of each, if it is a CPU.
    """

    board: Board
    count: int
    per_node: int = 1
    labels: tuple[tuple[str, str], ...] = ()
    slices: bool = True
    cores: int = _TABLE_CORES


@dataclass(frozen=True, slots=True)
class Cluster:
    """A model and the devices it may run on.

    Attributes:
        model: of the public tables, or what our store has measured of one.
    """

    name: str
    model: Model | StoredMenu
    groups: tuple[Group, ...] = field(default_factory=tuple)

    @property
    def model_id(self) -> str:
        """As variants of the catalog name their model."""
        return self.model.catalog.variants[0].model_id if isinstance(self.model, StoredMenu) else self.model.name

    @property
    def boards(self) -> tuple[Board, ...]:
        """Device types, each once."""
        return tuple({g.board.name: g.board for g in self.groups}.values())

    def nodes(self) -> tuple[Node, ...]:
        """Every node with its devices, as reported at the start: awake, whole, with nothing on them."""
        return tuple(node for node, _ in self.placed())

    def placed(self) -> tuple[tuple[Node, tuple[Board, ...]], ...]:
        """Every node with the device type of each of its devices."""
        nodes = [(_node(g, i, k), g.board) for k, g in enumerate(self.groups) for i in range(_nodes(g))]
        return tuple((node, (board,) * len(node.devices)) for node, board in nodes)

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        devices = [
            {"type": g.board.name, "count": g.count, "per_node": g.per_node}
            | ({"cores": g.cores} if g.board.kind == "cpu" else {})
            for g in self.groups
        ]
        return {"name": self.name, "model": self.model.name, "devices": devices}


def read_cluster(path: Path) -> Cluster:
    """Reads a cluster file.

    Raises:
        InvalidField: no such file, no YAML, unknown keys or device types (the nearest is named), absurd counts.
        ProfileMissing: it takes profiles of our store, which has none of that device class.
    """
    if not path.is_file():
        raise InvalidField("cluster", f"no file {path}; docs/simulator.md shows what a cluster file looks like")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidField("cluster", f"{path.name} is no YAML: {error}") from error
    if not isinstance(raw, dict):
        raise InvalidField("cluster", f"{path.name} holds no mapping; it needs model and devices")
    return parse_cluster(raw, path.stem, path.parent)


def parse_cluster(raw: dict[str, Any], name: str, folder: Path = Path()) -> Cluster:
    """A cluster from what its file holds; raises as `read_cluster`. `folder` is where its profiles are looked for."""
    _known(raw, _KEYS, "cluster")
    devices = raw.get("devices")
    if not isinstance(devices, list) or not devices:
        raise InvalidField("cluster.devices", "a list of {type, count} is needed")
    model = _model(raw, folder)
    groups = tuple(_group(entry, i, model) for i, entry in enumerate(devices))
    if sum(g.count for g in groups) > MAX_DEVICES:
        raise InvalidField("cluster.devices", f"at most {MAX_DEVICES} devices can be simulated")
    return Cluster(str(raw.get("name", name)), model, groups)


def _model(raw: dict[str, Any], folder: Path) -> Model | StoredMenu:
    wanted = str(raw.get("model", ""))
    if "profiles" not in raw:
        return model_named(wanted)
    menu = stored_menu(read_profiles(folder / str(raw["profiles"])))
    if wanted not in ("", menu.name):
        raise InvalidField("cluster.model", f"{raw['profiles']} is of {menu.name}, not of {wanted!r}")
    return menu


def _group(entry: Any, number: int, model: Model | StoredMenu) -> Group:
    where = f"cluster.devices[{number}]"
    if not isinstance(entry, dict):
        raise InvalidField(where, "a mapping with type and count is needed")
    _known(entry, _DEVICE_KEYS, where)
    kind = str(entry.get("type", ""))
    board, known = _board(model, kind)
    count, per_node, cores = entry.get("count", 1), entry.get("per_node", 1), entry.get("cores", known)
    for key, value in (("count", count), ("per_node", per_node), ("cores", cores)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_DEVICES:
            raise InvalidField(f"{where}.{key}", f"a whole number from 1 to {MAX_DEVICES} is needed, not {value!r}")
    labels = entry.get("labels", {})
    if not isinstance(labels, dict):
        raise InvalidField(f"{where}.labels", "a mapping is needed")
    rack = {"rack": entry["rack"]} if "rack" in entry else {}
    pairs = tuple(sorted((str(k), str(v)) for k, v in {**labels, **rack}.items()))
    slices = entry.get("slices", True)
    if not isinstance(slices, bool):
        raise InvalidField(f"{where}.slices", f"true or false is needed, not {slices!r}")
    return Group(_of_cores(board, cores, known), count, per_node, pairs, slices, cores)


def _board(model: Model | StoredMenu, kind: str) -> tuple[Board, int]:
    """A device type and the cores it has, at least 1."""
    if isinstance(model, StoredMenu):
        return model.board(kind), max(model.cores[model.board(kind).name], 1)
    return board_named(kind), _TABLE_CORES


def _of_cores(board: Board, cores: int, known: int) -> Board:
    """A CPU with other cores than were asked for its figures draws idle in proportion."""
    if board.kind != "cpu" or cores == known:
        return board
    share = cores / known
    return replace(board, bare_idle_w=board.bare_idle_w * share, loaded_idle_w=board.loaded_idle_w * share,
                   sleep_w=board.sleep_w * share)  # fmt: skip


def _known(raw: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in raw:
        if key not in keys:
            near = get_close_matches(str(key), keys, 1, 0.0)[0]
            raise InvalidField(f"{where}.{key}", f"not known; did you mean {near!r}?")


def _nodes(group: Group) -> int:
    return -(-group.count // group.per_node)


def _node(group: Group, number: int, index: int) -> Node:
    name = f"{group.board.name}-{chr(97 + index % 26)}{number:04d}"
    here = min(group.per_node, group.count - number * group.per_node)
    devices = tuple(_device(group, f"{group.board.kind}{i}") for i in range(here))
    return Node(
        name,
        NodeState.ACTIVE,
        devices,
        labels=tuple(sorted((*group.labels, (TYPE_LABEL, group.board.name)))),
        address=name,
    )


def _device(group: Group, device_id: str) -> Device:
    board = group.board
    memory = board.memory_bytes
    if board.kind == "cpu":
        return Device(
            device_id, board.name, memory, cpu_ids=tuple(range(group.cores)), idle_power_mw=board.bare_idle_w * 1000.0,
            sleep_power_mw=board.sleep_w * 1000.0, wake_s=board.wake_s, price_per_hour=board.price_per_hour,
        )  # fmt: skip
    whole = Partition(f"{device_id}:whole", device_id, WHOLE_KIND, uuid=f"GPU-{device_id}", memory_bytes=memory)
    settings = tuple(PowerSetting(sm_clock_mhz=clock) for clock in board.clocks_mhz[1:])
    if settings:
        settings = (PowerSetting(eased_sm_clock_mhz=min(board.clocks_mhz)), *settings)
    return Device(
        device_id, board.name, memory, partitions=(whole,), idle_power_mw=board.bare_idle_w * 1000.0,
        kind=DeviceKind.GPU, power_settings=settings, table=_table(board) if board.mig and group.slices else (),
        sleep_power_mw=board.sleep_w * 1000.0, wake_s=board.wake_s, price_per_hour=board.price_per_hour,
    )  # fmt: skip


def _table(board: Board) -> tuple[SliceKind, ...]:
    memory = board.memory_bytes
    return tuple(
        SliceKind(
            i, kind_of(s, board.memory_bytes), memory * s.memory // 8, s.compute, s.memory, s.starts, len(s.starts)
        )
        for i, s in enumerate(SLICES)
    )
