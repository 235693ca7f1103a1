"""A deployment's wish from what people write: limits with units, objectives, labels. Pure but for the messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from tradewind.domain import units
from tradewind.domain.errors import InvalidField
from tradewind.v1 import common_pb2, orchestrator_pb2

METRICS: Final = {
    "ttft": common_pb2.LATENCY_METRIC_TTFT,
    "tpot": common_pb2.LATENCY_METRIC_TPOT,
    "e2e": common_pb2.LATENCY_METRIC_E2E,
}
OBJECTIVES: Final = {
    "energy": common_pb2.OBJECTIVE_ENERGY,
    "latency": common_pb2.OBJECTIVE_LATENCY,
    "cost": common_pb2.OBJECTIVE_COST,
}
# The greatest number that the contract carries; what makes sense is far below.
_MOST_WIRE: Final = 2**32 - 1
T = TypeVar("T")


def parsed(field: str, text: str, parse: Callable[[str], T]) -> T:
    """What a text means.

    Raises:
        InvalidField: it means nothing; names the field.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidField(field, str(error)) from error


def latency_limit(field: str, metric: str, percentile: str, limit: str) -> common_pb2.LatencyLimit:
    """A limit such as ttft, p95, 300ms.

    Raises:
        InvalidField: one of them is none.
    """
    if metric not in METRICS:
        raise InvalidField(field, f"{metric!r} is no latency; choose {', '.join(METRICS)}")
    return common_pb2.LatencyLimit(
        metric=METRICS[metric],
        percentile=parsed(field, percentile, units.percentile),
        limit_ms=parsed(field, limit, units.duration_ms),
    )


def latency_limits(options: Sequence[str]) -> list[common_pb2.LatencyLimit]:
    """Limits of `--latency ttft-p95=300ms`, as `--ttft-p95 300ms` is rewritten.

    Raises:
        InvalidField: malformed, or two limits for one metric and percentile.
    """
    limits: list[common_pb2.LatencyLimit] = []
    for option in options:
        name, equals, value = option.partition("=")
        metric, dash, percentile = name.partition("-")
        if not equals or not dash:
            raise InvalidField("--latency", f"{option!r} is no limit; write --ttft-p95 300ms")
        if not value:
            raise InvalidField(f"--{name}", f"needs a duration, such as --{name} 300ms")
        limits.append(latency_limit(f"--{name}", metric, percentile, value))
    check_limits_differ(limits)
    return limits


def check_limits_differ(limits: Sequence[common_pb2.LatencyLimit]) -> None:
    """Refuses two limits for one metric and percentile.

    Raises:
        InvalidField: there are.
    """
    seen: set[tuple[int, float]] = set()
    for limit in limits:
        if (limit.metric, limit.percentile) in seen:
            name = common_pb2.LatencyMetric.Name(limit.metric).removeprefix("LATENCY_METRIC_").lower()
            raise InvalidField("slo", f"two limits for {name} p{limit.percentile:g}; keep one")
        seen.add((limit.metric, limit.percentile))


def objective(field: str, name: str) -> common_pb2.Objective.ValueType:
    """An objective by name.

    Raises:
        InvalidField: it is none.
    """
    if name not in OBJECTIVES:
        raise InvalidField(field, f"{name!r} is no objective; choose {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def labels(field: str, pairs: Sequence[str]) -> dict[str, str]:
    """Node labels of "key=value" pairs.

    Raises:
        InvalidField: a pair has no "=".
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidField(field, f"{pair!r} is no label; write key=value")
        found[key] = value
    return found


def spread(field: str, label: str, domains: str) -> orchestrator_pb2.Spread:
    """Replicas over at least so many values of a node label; the server says which numbers make sense.

    Raises:
        InvalidField: no label, or no whole number.
    """
    if not label.strip() or not domains.isdecimal():
        raise InvalidField(field, f"{f'{label}={domains}'!r} is no spread; write label=domains, such as rack=2")
    return orchestrator_pb2.Spread(label=label, domains=min(int(domains), _MOST_WIRE))


def spread_option(text: str) -> orchestrator_pb2.Spread:
    """The spread of `--spread rack=2`.

    Raises:
        InvalidField: it is none.
    """
    label, _, domains = text.partition("=")
    return spread("--spread", label, domains)


def same_wish(
    one: orchestrator_pb2.DeploymentSpec, other: orchestrator_pb2.DeploymentSpec, model_names: Sequence[str]
) -> bool:
    """Whether two wishes mean the same: defaults written out, the model by name or id, limits in any order.

    Args:
        model_names: name and id of one model, which mean the same.
    """
    return _normal(one, model_names) == _normal(other, model_names)


def _normal(spec: orchestrator_pb2.DeploymentSpec, model_names: Sequence[str]) -> orchestrator_pb2.DeploymentSpec:
    normal = orchestrator_pb2.DeploymentSpec()
    normal.CopyFrom(spec)
    if normal.model in model_names:
        normal.model = model_names[0]
    normal.objective = normal.objective or common_pb2.OBJECTIVE_ENERGY
    normal.min_replicas = normal.min_replicas or 1
    limits = sorted(normal.slo.latency, key=lambda limit: (limit.metric, limit.percentile))
    del normal.slo.latency[:]
    normal.slo.latency.extend(limits)
    # An empty message and an unset one are the same wish.
    if not normal.demand.ByteSize():
        normal.ClearField("demand")
    return normal
