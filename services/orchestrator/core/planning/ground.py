"""The fleet folded into groups of devices that are alike in everything a plan looks at, with what stands on them.

A thousand equal nodes with equal content are one group, so a plan costs what the number of groups is, not that of
nodes. Built once for each plan. Decides nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from services.orchestrator.core.facts.blueprint import Replica
from services.orchestrator.core.facts.fleet import Device, DeviceKind, Node, PowerSetting, ReplicaState, cores_of
from services.orchestrator.core.facts.situation import Situation
from services.orchestrator.core.facts.wish import Deployment
from services.orchestrator.core.planning.boards import Board, Boards

# Failure domains told apart; with more of them, several count as one, which spreads wider than asked and never less.
MOST_DOMAINS: Final = 32
NODE_LABEL: Final = "node"
_TENTH: Final = math.log(1.1)
# States in which a leaving replica can be taken back, or still answers for its deployment.
_ALIVE: Final = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.DRAINED)

Base = tuple[str, str, str, int]
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Tenant:
    """A replica as content of a device; equal tenants are interchangeable.

    Attributes:
        base: variant, device class, partition kind, batch limit.
        units: cores, or 1 for a slice.
        keepable: a plan may keep it.
        planned: it was meant to serve, and not on its way out.
    """

    deployment_id: str
    base: Base
    units: int
    memory_bytes: int
    keepable: bool
    planned: bool
    ready: bool


@dataclass(frozen=True, slots=True)
class Likeness:
    """What devices of one group share; power is that of one of them. `labels` are those that some wish looks at."""

    device_class: str
    kind: DeviceKind
    memory_bytes: int
    cores: int
    idle_power_mw: float
    least_power_mw: float
    wake_s: float
    price_per_hour: float
    power_settings: tuple[PowerSetting, ...]
    setting: PowerSetting
    asleep: bool
    takes_work: bool
    labels: tuple[tuple[str, str], ...]
    budgets: tuple[str, ...]
    board: int
    occupied: int
    standing: int
    content: tuple[Tenant, ...]


@dataclass(frozen=True, slots=True)
class Spot:
    """One device with the replicas on it, in the order of its group's content."""

    node: Node
    device: Device
    replicas: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Devices that are alike. `board` is None for CPUs."""

    number: int
    likeness: Likeness
    board: Board | None
    spots: tuple[Spot, ...]

    @property
    def device(self) -> Device:
        """One of them."""
        return self.spots[0].device

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.spots)

    def matches(self, selector: tuple[tuple[str, str], ...]) -> bool:
        """Whether its nodes have every label asked for."""
        mine = dict(self.likeness.labels)
        return all(mine.get(key) == value for key, value in selector)


@dataclass(frozen=True, slots=True)
class Ground:
    """All groups of devices on nodes that keep work, and what deployments have on them."""

    groups: tuple[Group, ...]
    incumbents: dict[str, tuple[Replica, ...]]
    nodes: dict[str, Node]


_Content = list[tuple[Tenant, Replica]]


def ground_of(situation: Situation, boards: Boards | None = None) -> Ground:
    """The fleet of a situation, folded.

    Args:
        boards: those enumerated before.
    """
    boards = boards or Boards()
    nodes = {node.node_id: node for node in situation.nodes}
    reports = {(n.node_id, r.replica_id): r.state for n in situation.nodes for r in n.replicas}
    wishes = {d.deployment_id: d for d in situation.deployments}
    gone = frozenset(situation.gone)
    content: dict[tuple[str, str], _Content] = defaultdict(list)
    incumbents: dict[str, list[Replica]] = defaultdict(list)
    for planned, replicas in ((True, situation.parent.replicas), (False, situation.parent.leaving)):
        for replica in replicas:
            state = reports.get((replica.node_id, replica.replica_id))
            keepable = _keepable(
                replica, wishes.get(replica.deployment_id), nodes, state, gone, boards, planned=planned
            )
            if keepable:
                incumbents[replica.deployment_id].append(replica)
            if replica.replica_id not in gone:
                tenant = _tenant(replica, keepable=keepable, planned=planned, ready=state is ReplicaState.READY)
                content[replica.node_id, replica.partition.device_id].append((tenant, replica))
    groups = _groups(situation, content, boards)
    return Ground(groups, {k: tuple(v) for k, v in incumbents.items()}, nodes)


def base_of(replica: Replica) -> Base:
    """What a running replica is compared with options by; the power setting is its device's and needs no restart."""
    return (replica.variant_id, replica.device_class, replica.partition.kind, replica.batch_limit)


def exists_on(device: Device, replica: Replica, boards: Boards) -> bool:
    """Whether the device (still) has what a replica was given."""
    if replica.partition.cpu_ids:
        return set(replica.partition.cpu_ids) <= set(device.cpu_ids)
    return bool(boards.of(device).mask_of(device.device_id, (replica.partition.partition_id,)))


def _keepable(
    replica: Replica,
    wish: Deployment | None,
    nodes: dict[str, Node],
    state: ReplicaState | None,
    gone: frozenset[str],
    boards: Boards,
    *,
    planned: bool,
) -> bool:
    node = nodes.get(replica.node_id)
    if not node or not node.keeps_work or not wish or not node.matches(wish.node_selector):
        return False
    device = next((d for d in node.devices if d.device_id == replica.partition.device_id), None)
    if not device or not exists_on(device, replica, boards):
        return False
    return planned or (replica.hold and replica.replica_id not in gone and state in _ALIVE)


def _tenant(replica: Replica, *, keepable: bool, planned: bool, ready: bool) -> Tenant:
    units = cores_of(replica.partition.kind) or 1
    return Tenant(replica.deployment_id, base_of(replica), units, replica.memory_bytes, keepable, planned, ready)


def _groups(situation: Situation, content: dict[tuple[str, str], _Content], boards: Boards) -> tuple[Group, ...]:
    traits = _Traits(situation, boards)
    found: dict[tuple[object, ...], tuple[Likeness, list[Spot]]] = {}
    for node in sorted(situation.nodes, key=lambda n: n.node_id):
        if not node.keeps_work:
            continue
        labels = traits.labels.of(node)
        for device in node.devices:
            here = content.get((node.node_id, device.device_id), [])
            if len(here) > 1:
                here = sorted(here, key=_tenant_order)
            key = traits.key(node, device, labels, here)
            if key not in found:
                found[key] = (traits.likeness(node, device, labels, here), [])
            found[key][1].append(Spot(node, device, tuple(replica for _, replica in here)))
    return tuple(
        Group(number, likeness, traits.kinds[likeness.board] if likeness.board >= 0 else None, tuple(spots))
        for number, (likeness, spots) in enumerate(found.values())
    )


def step_of(power_mw: float) -> float:
    """Power in steps of a tenth, as devices are told apart: no two boards draw the same to the milliwatt."""
    return float(round(math.log(power_mw) / _TENTH)) if power_mw > 0.0 else -1.0


class _Traits:
    """What tells devices of a situation apart. `kinds` are the boards met, which likenesses name by their number."""

    def __init__(self, situation: Situation, boards: Boards) -> None:
        self.labels, self.kinds = _Labels(situation), list[Board]()
        self._boards, self._numbers = boards, dict[int, int]()
        self._scopes = {budget.scope for budget in situation.budgets}
        self._settings: dict[int, tuple[tuple[int, int, int], ...]] = {}

    def key(self, node: Node, device: Device, labels: Labels, here: _Content) -> tuple[object, ...]:
        """Equal for devices that are alike: no two boards draw the same to the milliwatt."""
        return (
            device.device_class,
            device.kind is DeviceKind.GPU,
            device.memory_bytes,
            len(device.cpu_ids),
            step_of(device.idle_power_mw),
            step_of(device.least_power_mw),
            device.wake_s,
            device.price_per_hour,
            self._settings_of(device),
            setting_of(device).order,
            device.asleep,
            node.takes_work,
            labels,
            self._budgets(node, device),
            *self._layout(device, here),
            tuple(tenant for tenant, _ in here),
        )

    def likeness(self, node: Node, device: Device, labels: Labels, here: _Content) -> Likeness:
        """The same as a likeness, with the power of this device."""
        board, occupied, standing = self._layout(device, here)
        return Likeness(
            device_class=device.device_class,
            kind=device.kind,
            memory_bytes=device.memory_bytes,
            cores=len(device.cpu_ids),
            idle_power_mw=device.idle_power_mw,
            least_power_mw=device.least_power_mw,
            wake_s=device.wake_s,
            price_per_hour=device.price_per_hour,
            power_settings=device.power_settings,
            setting=setting_of(device),
            asleep=device.asleep,
            takes_work=node.takes_work,
            labels=labels,
            budgets=self._budgets(node, device),
            board=board,
            occupied=occupied,
            standing=standing,
            content=tuple(tenant for tenant, _ in here),
        )

    def _settings_of(self, device: Device) -> tuple[tuple[int, int, int], ...]:
        settings = device.power_settings
        if id(settings) not in self._settings:
            self._settings[id(settings)] = tuple(setting.order for setting in settings)
        return self._settings[id(settings)]

    def _budgets(self, node: Node, device: Device) -> tuple[str, ...]:
        if not self._scopes:
            return ()
        own = (f"node/{node.node_id}", f"device/{node.node_id}/{device.device_id}")
        return tuple(scope for scope in own if scope in self._scopes)

    def _layout(self, device: Device, here: _Content) -> tuple[int, int, int]:
        """The number of the board, the seats that replicas take, and those that partitions stand on."""
        if device.kind is not DeviceKind.GPU and device.cpu_ids:
            return (-1, 0, 0)
        board = self._boards.of(device)
        if id(board) not in self._numbers:
            self._numbers[id(board)] = len(self.kinds)
            self.kinds.append(board)
        occupied = board.mask_of(device.device_id, tuple(replica.partition.partition_id for _, replica in here))
        standing = board.mask_of(device.device_id, tuple(p.partition_id for p in device.partitions))
        return (self._numbers[id(board)], occupied, standing)


def setting_of(device: Device) -> PowerSetting:
    """The setting in force, when it is one that the device offers; a cap set by others is no choice of ours."""
    return device.setting if device.setting in device.power_settings else PowerSetting()


def _tenant_order(entry: tuple[Tenant, Replica]) -> tuple[object, ...]:
    tenant, replica = entry
    return (not tenant.planned, not tenant.ready, tenant.deployment_id, tenant.base, replica.replica_id)


class _Labels:
    """The labels that wishes look at, and failure domains folded to `MOST_DOMAINS`."""

    def __init__(self, situation: Situation) -> None:
        wishes = situation.deployments
        self._keys = sorted({key for wish in wishes for key, _ in wish.node_selector})
        self._domains: dict[str, dict[str, str]] = {}
        for label in sorted({wish.spread.label for wish in wishes if wish.spread}):
            values = sorted({domain_of(node, label) for node in situation.nodes})
            # A node without the label is in the domain "", which counts for no spread.
            named = [value for value in values if value]
            self._domains[label] = {value: str(i % MOST_DOMAINS) for i, value in enumerate(named)}

    def of(self, node: Node) -> tuple[tuple[str, str], ...]:
        """What matters of a node's labels; domains as "domain:LABEL"."""
        mine = dict(node.labels)
        chosen = [(key, mine[key]) for key in self._keys if key in mine]
        for label, domains in self._domains.items():
            chosen.append((f"domain:{label}", domains.get(domain_of(node, label), "")))
        return tuple(chosen)


def domain_of(node: Node, label: str) -> str:
    """The failure domain of a node, "" when it has none."""
    return node.node_id if label == NODE_LABEL else dict(node.labels).get(label, "")
