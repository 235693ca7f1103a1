"""Who measures what: variants × device classes × partition kinds, what is known already left out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from services.profiler.core.loads import Limits, Load, choose_loads, spread
from services.profiler.core.settings import DEFAULT, NO_CLOCKS, key_of, settings_for, words
from tradewind.domain.errors import InvalidField, NotFound, ServiceUnavailable, VariantRejected
from tradewind.v1 import common_pb2, compiler_pb2, node_pb2, orchestrator_pb2, profiler_pb2

# Partition kinds of one device measured by default: the ends and some between show how a variant scales.
MAX_DEFAULT_KINDS: Final = 4
_MAY_MEASURE: Final = (compiler_pb2.VARIANT_STATE_ADMITTED, compiler_pb2.VARIANT_STATE_UNCHECKED)


@dataclass(frozen=True, slots=True)
class PointKey:
    """What profiles are kept by; `power` is the setting as bytes, empty for the default."""

    variant_id: str
    device_class: str
    partition_kind: str
    batch_limit: int
    power: bytes = b""


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement: a variant on a partition kind of a device at a setting, with the loads that are not known yet.

    Attributes:
        power: setting of the whole device.
        known: the profile that the new loads are added to, if there is one.
    """

    variant: compiler_pb2.Variant
    node_id: str
    address: str
    device: node_pb2.Device
    partition_kind: str
    batch_limit: int
    loads: tuple[Load, ...]
    power: common_pb2.PowerSetting = field(default_factory=common_pb2.PowerSetting)
    known: profiler_pb2.Profile | None = None

    @property
    def key(self) -> PointKey:
        """The operating point."""
        point = (self.variant.variant_id, self.device.device_class, self.partition_kind, self.batch_limit)
        return PointKey(*point, key_of(self.power))

    @property
    def title(self) -> str:
        """For a person: variant, node, partition kind, and the setting unless it is the default."""
        at = f" at {words(self.power)}" if self.power != DEFAULT else ""
        return f"{self.variant.name} on {self.node_id} {self.partition_kind}{at}"


@dataclass(frozen=True, slots=True)
class Campaign:
    """Measurements to do, and profiles that answer already."""

    jobs: tuple[Job, ...]
    reused: tuple[profiler_pb2.Profile, ...]


def choose_variants(
    model_name: str, variants: Sequence[compiler_pb2.Variant], wanted: Sequence[str]
) -> list[compiler_pb2.Variant]:
    """The variants to measure: those named (by id or name), else every admitted one.

    Raises:
        NotFound: one named does not exist.
        VariantRejected: one named may not serve, or no variant of the model may; lists the reasons.
    """
    if not wanted:
        admitted = [v for v in variants if v.state == compiler_pb2.VARIANT_STATE_ADMITTED]
        if not admitted:
            raise _nothing_admitted(model_name, variants)
        return admitted
    chosen: dict[str, compiler_pb2.Variant] = {}
    for name in wanted:
        found = [v for v in variants if name in (v.variant_id, v.name)]
        if not found:
            known = ", ".join(sorted(v.name for v in variants)) or "none"
            raise NotFound("variant", name, f"variants of {model_name}: {known}")
        # A name that was built again has old bearers; the list comes newest first among equals.
        variant = next((v for v in found if v.state in _MAY_MEASURE), found[0])
        if variant.state not in _MAY_MEASURE:
            raise VariantRejected(
                f"variant {variant.name} may not serve: {variant.state_reason}; choose another",
                {"variant": variant.variant_id},
            )
        chosen[variant.variant_id] = variant
    return list(chosen.values())


def choose_nodes(nodes: Sequence[orchestrator_pb2.Node], wanted: Sequence[str]) -> list[orchestrator_pb2.Node]:
    """The nodes that may measure: those named, else every active one.

    Raises:
        NotFound: one named is not there.
        ServiceUnavailable: no node is active.
    """
    active = [n for n in nodes if n.state == orchestrator_pb2.NODE_STATE_ACTIVE]
    if wanted:
        by_id = {n.report.node_id: n for n in active}
        for node_id in wanted:
            if node_id not in by_id:
                raise NotFound("active node", node_id, f"active nodes: {', '.join(sorted(by_id)) or 'none'}")
        return [by_id[node_id] for node_id in dict.fromkeys(wanted)]
    if not active:
        raise ServiceUnavailable(
            "no node is there to measure on; start a node agent (`tradewind up` starts one on this machine) "
            "and see `tradewind nodes`",
            {"service": "node-agent"},
        )
    return sorted(active, key=lambda n: n.report.node_id)


def plan(
    variants: Sequence[compiler_pb2.Variant],
    nodes: Sequence[orchestrator_pb2.Node],
    request: profiler_pb2.RunProfileRequest,
    known: Mapping[PointKey, profiler_pb2.Profile],
) -> Campaign:
    """Who measures what. Without named nodes one node stands for its device class.

    Raises:
        InvalidField: a load, partition kind or setting that cannot be had.
        ServiceUnavailable: no device runs any of the variants.
    """
    jobs: list[Job] = []
    reused: list[profiler_pb2.Profile] = []
    for variant in variants:
        limits = limits_of(variant)
        loads = choose_loads(limits, request.prompt_tokens, request.concurrencies)
        for node, device in _devices(nodes, variant, all_nodes=bool(request.node_ids)):
            for kind in _kinds(node, device, request.partition_kinds):
                for power in settings_for(request, device, kind):
                    where = (variant, node.report.node_id, node.report.address, device, kind)
                    job = Job(*where, limits.most_sequences, loads, power)
                    earlier = None if request.force else known.get(job.key)
                    missing = _missing(loads, earlier)
                    if earlier is not None and not missing:
                        reused.append(earlier)
                        continue
                    jobs.append(replace(job, loads=missing, known=earlier))
    if not jobs and not reused:
        raise _nothing_runs(variants, nodes, request)
    return Campaign(tuple(jobs), tuple(reused))


def limits_of(variant: compiler_pb2.Variant) -> Limits:
    """What a variant can take, by its recipe."""
    recipe = variant.recipe
    return Limits(max(recipe.context_buckets, default=0), tuple(sorted(recipe.decode_batches)), recipe.slots)


def runs_on(variant: compiler_pb2.Variant, device: node_pb2.Device) -> bool:
    """Whether a device runs a variant: it lists the target asked for or the one compiled for."""
    return bool({variant.target, variant.compiled_target} & set(device.targets))


def _devices(
    nodes: Sequence[orchestrator_pb2.Node], variant: compiler_pb2.Variant, *, all_nodes: bool
) -> list[tuple[orchestrator_pb2.Node, node_pb2.Device]]:
    able = [(node, device) for node in nodes for device in node.report.devices if runs_on(variant, device)]
    if all_nodes:
        return able
    chosen: dict[str, tuple[orchestrator_pb2.Node, node_pb2.Device]] = {}
    # A board with replicas on it refuses other clocks, and is measured beside them at best.
    for node, device in sorted(able, key=lambda one: _replicas_on(*one)):
        chosen.setdefault(device.device_class, (node, device))
    return [one for one in able if one in chosen.values()]


def _replicas_on(node: orchestrator_pb2.Node, device: node_pb2.Device) -> int:
    """Replicas on a board; cores are shared where others have them all."""
    mine = [p for p in (r.partition_id for r in node.report.replicas) if p.startswith(f"{device.device_id}:")]
    return 0 if device.cpu_ids else len(mine)


def _kinds(node: orchestrator_pb2.Node, device: node_pb2.Device, wanted: Collection[str]) -> list[str]:
    """Kinds wanted, else the useful ones: cores are cut as needed, of a board only what stands can be measured."""
    kinds = list(device.partition_kinds) or ["whole"]
    if wanted:
        return [k for k in kinds if k in wanted]
    standing = {p.kind for p in node.report.partitions if p.device_id == device.device_id and not device.cpu_ids}
    return spread([k for k in kinds if k in standing] or kinds, MAX_DEFAULT_KINDS)


def _missing(loads: tuple[Load, ...], known: profiler_pb2.Profile | None) -> tuple[Load, ...]:
    have = {(p.prompt_tokens, p.concurrency) for p in known.loads} if known is not None else set()
    return tuple(load for load in loads if load.key not in have)


def _nothing_admitted(model_name: str, variants: Sequence[compiler_pb2.Variant]) -> VariantRejected:
    build = f"`tradewind variant build {model_name}`"
    if not variants:
        return VariantRejected(f"{model_name} has no variants yet; build some with {build}")
    reasons = "; ".join(f"{v.name}: {v.state_reason or 'no reason given'}" for v in variants)
    return VariantRejected(f"no variant of {model_name} is admitted ({reasons}); build others with {build}")


def _nothing_runs(
    variants: Sequence[compiler_pb2.Variant],
    nodes: Sequence[orchestrator_pb2.Node],
    request: profiler_pb2.RunProfileRequest,
) -> Exception:
    devices, kinds = [d for n in nodes for d in n.report.devices], request.partition_kinds
    runners = [(n, d) for n in nodes for d in n.report.devices if any(runs_on(v, d) for v in variants)]
    if any(_kinds(node, device, kinds) for node, device in runners):
        asked = ", ".join(words(one) for one in request.power_settings)
        return InvalidField("power_settings", f"no device that runs them can be set to {asked}: {NO_CLOCKS}")
    if kinds and runners:
        offered = sorted({k for d in devices for k in d.partition_kinds})
        return InvalidField(
            "partition_kinds", f"no device has {', '.join(sorted(kinds))}; there are {', '.join(offered)}"
        )
    targets = sorted({v.target for v in variants})
    offered = sorted({t for d in devices for t in d.targets})
    return ServiceUnavailable(
        f"no active node runs {', '.join(targets)}; the nodes run {', '.join(offered) or 'nothing'}: "
        "build variants for one of these, or start a node agent on such a machine",
        {"service": "node-agent"},
    )
