"""Words for plans: the explanation of a deployment, and the differences between two blueprints. No decisions here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from services.orchestrator.core.facts.blueprint import Blueprint, Replica
from services.orchestrator.core.facts.explanation import Candidate, Explanation, Refusal
from services.orchestrator.core.facts.fleet import DEFAULT_POWER, Budget
from services.orchestrator.core.facts.loads import Sheaf
from services.orchestrator.core.facts.wish import Deployment, LatencyLimit, Metric, Objective, Slo
from services.orchestrator.core.planning.drafts import Draft, Placed
from services.orchestrator.core.planning.figures import told
from services.orchestrator.core.planning.grouping import Line, grouped, more_alike
from services.orchestrator.core.planning.nearest import Nearest
from services.orchestrator.core.planning.points import Point, PointKey
from services.orchestrator.core.planning.scores import Item
from services.orchestrator.core.planning.weigh import Option, Refused

_NO_VARIANT = "NO_VARIANT"
# A smaller gap than this is the solver's tolerance and nobody's concern.
_SHOWN_GAP: Final = 0.0025


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was chosen for a deployment: replicas by option, and how sure the choice is."""

    chosen: tuple[tuple[Item, int], ...]
    settled: bool
    gap: float
    timed_out: bool


def explain_chosen(
    deployment: Deployment,
    verdict: Verdict,
    options: tuple[Option, ...],
    refused: tuple[Refused | Candidate, ...],
    blueprint: Blueprint,
    sheaves: tuple[Sheaf, ...],
) -> Draft:
    """The report on a deployment that is placed.

    Args:
        sheaves: in which all profiles of the options are.
    """
    first = verdict.chosen[0][0].option
    keys = [item.option.key for item, _ in verdict.chosen]
    others = sorted((o for o in options if o.key not in keys), key=_by_cost)
    dearer = [_line(o.point, "", partial(_dearer, deployment, o, first)) for o in others if not o.short]
    short = [_line(o.point, Refusal.CAPACITY, partial(_crowded, o, Refusal.CAPACITY, "")) for o in others if o.short]
    held = " It was swapped lately and is kept for now." if verdict.settled else ""
    pace_ms = next((r.pace_ms for r in blueprint.replicas if r.deployment_id == deployment.deployment_id), 0.0)
    held += f" Tokens are held back to {pace_ms:.4g} ms for larger batches." if pace_ms else ""
    apart = f" The plan is within {verdict.gap:.2%} of the least cost." if verdict.gap > _SHOWN_GAP else ""
    if verdict.timed_out:
        apart += " The search was ended by the clock: made again, the plan may be another one."
    asleep = _cold_start(deployment, first) if deployment.scale_to_zero else ""
    placed = _placed(verdict.chosen)
    lines = grouped([*dearer, *short, *(_refusal(r) for r in refused)])
    refusals = [*(line.refusal for line in short), *(r.refusal for r in refused)]
    count = _weighed(len(options) - len(short), refusals)

    def write(shown: tuple[Candidate, ...], candidates: tuple[Candidate, ...]) -> Explanation:
        best = tuple(replace(one, chosen=True, reason=_why_chosen(deployment, one)) for one in shown)
        places = " and ".join(_place(one) for one in best)
        summary = f"{deployment.name}: {places}. {_sentence(best[0].reason)}. {count}{held}{apart}{asleep}"
        found = (*best, *candidates)
        return Explanation(deployment.deployment_id, summary, blueprint.blueprint_id, found, gap=verdict.gap)

    return Draft(deployment, placed, lines, _points(options), _slow(refused), sheaves, write)


def _cold_start(deployment: Deployment, option: Option) -> str:
    """What waking it costs, before anybody lets it sleep."""
    profile, device = option.point.profile, option.point.device
    wake_s = device.wake_s if device.can_sleep else 0.0
    least_s, most_s = profile.load_s, profile.load_s + wake_s
    joules = (profile.load_s * option.point.at_work_mw + wake_s * device.idle_power_mw) / 1000.0
    waking = f", {most_s:.3g} s where the device sleeps, too" if wake_s else ""
    price = f"a cold start takes {least_s:.3g} s (as profiled){waking} and up to {joules:.3g} J (modelled)"
    if 0.0 < deployment.cold_start_s < least_s:
        return f" It never goes to zero: {price}, {deployment.cold_start_s:g} s are accepted."
    return f" It goes to zero when nothing is asked for: {price}; the next request waits for that."


def _placed(chosen: tuple[tuple[Item, int], ...]) -> tuple[Placed, ...]:
    """What was chosen, each option with its share of the demand: in proportion to capacities."""
    total = sum(item.option.capacity * count for item, count in chosen)
    alone = len(chosen) == 1
    return tuple(
        Placed(item.option, count, 1.0 if alone else item.option.capacity * count / total) for item, count in chosen
    )


def _points(options: tuple[Option, ...]) -> dict[PointKey, Point]:
    return {option.key: option.point for option in options}


def _slow(refused: tuple[Refused | Candidate, ...]) -> dict[PointKey, Point]:
    return {r.point.key: r.point for r in refused if isinstance(r, Refused) and r.slow}


def _line(point: Point, refusal: str, write: Callable[[int], Candidate]) -> Line:
    return Line(point.key[:3], refusal, write)


def _refusal(refused: Refused | Candidate) -> Line:
    if isinstance(refused, Candidate):
        return Line(refused.key[:3], refused.refusal, partial(_again, refused))
    return _line(refused.point, refused.refusal, partial(_refused, refused))


def _again(line: Candidate, alike: int) -> Candidate:
    return line if alike == 1 else replace(line, alike=alike, reason=more_alike(line.reason, alike))


def _refused(refused: Refused, alike: int) -> Candidate:
    return told(refused.point, refused.shown, refused.refusal, more_alike(refused.reason, alike), alike)


def _dearer(deployment: Deployment, option: Option, chosen: Option, alike: int) -> Candidate:
    return told(option.point, option.shown, None, more_alike(_why_not(deployment, option, chosen), alike), alike)


def _crowded(option: Option, refusal: Refusal, reason: str, alike: int) -> Candidate:
    return told(option.point, option.shown, refusal, more_alike(option.short or reason, alike), alike)


def explain_infeasible(
    deployment: Deployment,
    options: tuple[Option, ...],
    refused: tuple[Refused | Candidate, ...],
    near: Nearest | None,
    sheaves: tuple[Sheaf, ...],
    *,
    over_budget: bool,
    enough: Budget | None = None,
) -> Draft:
    """The report on a deployment that cannot be placed.

    Args:
        over_budget: whether it could be without power budgets.
        enough: the raised budget that would do.
    """
    refusals = tuple(r if isinstance(r, Candidate) else r.candidate for r in refused)
    if over_budget:
        binding, reason = Refusal.POWER_BUDGET.value, "a power budget leaves no room for it"
        if enough:
            reason += f"; {enough.limit_mw / 1000:.4g} W for {enough.scope} would do"
    elif options:
        alone = next((o.short for o in options if not o.short), min(o.short for o in options))
        binding = Refusal.CAPACITY.value
        reason = alone or "the nodes have no room for it beside the other deployments"
    else:
        binding, reason = _furthest(refusals)
    if near and not over_budget and not options:
        binding, reason = near.binding, _reason_of(near, refusals) or reason
    crowding = Refusal.POWER_BUDGET if over_budget else Refusal.CAPACITY
    crowded = [_line(o.point, crowding, partial(_crowded, o, crowding, reason)) for o in sorted(options, key=_by_cost)]
    lines = grouped([*crowded, *(_refusal(r) for r in refused)])
    summary = f"{deployment.name}: nothing meets it; {binding} binds: {reason}. {_nearest_words(near)}"
    weighed = _weighed(len(options), [r.refusal for r in refused])

    def write(_: tuple[Candidate, ...], candidates: tuple[Candidate, ...]) -> Explanation:
        return Explanation(
            deployment_id=deployment.deployment_id,
            summary=f"{summary} {weighed}",
            candidates=candidates,
            binding_limit=binding,
            nearest_slo=near.slo if near and not over_budget else None,
            nearest_demand_requests_per_s=near.requests_per_s if near else None,
        )

    return Draft(deployment, (), lines, _points(options), _slow(refused), sheaves, write)


def differences(before: Blueprint, after: Blueprint, names: dict[str, str]) -> tuple[str, ...]:
    """What changes from one blueprint to the next, a line each: + starts, - ends, = stays."""
    old = {r.replica_id: r for r in before.replicas}
    new = {r.replica_id: r for r in after.replicas}
    lines = [f"+ start {_replica(r, names)}" for r in after.replicas if r.replica_id not in old]
    for replica in before.replicas:
        if replica.replica_id not in new:
            gone = next((r for r in after.leaving if r.replica_id == replica.replica_id), None)
            how = " once its successors are ready" if gone and gone.hold else ""
            lines.append(f"- drain and stop {_replica(replica, names)}{how}")
    for new_replica in after.replicas:
        for other in after.leaving:
            if new_replica.replica_id not in old and _overlap(new_replica, other):
                own = new_replica.deployment_id == other.deployment_id
                word = "shares cores for the moment with" if own else "waits for the end of"
                lines.append(f"  {new_replica.replica_id} {word} {other.replica_id}")
    lines += [f"= keep {_replica(r, names)}" for r in after.replicas if r.replica_id in old]
    return tuple(lines)


def slo_words(slo: Slo) -> str:
    """An SLO in words."""
    parts = [f"{limit.metric} p{limit.percentile:g} ≤ {limit.limit_ms:g} ms" for limit in slo.latency]
    if slo.energy_per_token_mj is not None:
        parts.append(f"energy ≤ {slo.energy_per_token_mj:g} mJ a token")
    if slo.power_mw is not None:
        parts.append(f"power ≤ {slo.power_mw:g} mW")
    if slo.min_top1_agreement is not None:
        parts.append(f"top-1 agreement ≥ {slo.min_top1_agreement:g}")
    if slo.max_perplexity_increase is not None:
        parts.append(f"perplexity increase ≤ {slo.max_perplexity_increase:g}")
    if slo.availability is not None:
        parts.append(f"availability ≥ {slo.availability:g}")
    return ", ".join(parts) or "no limits"


def _overlap(a: Replica, b: Replica) -> bool:
    same = a.node_id == b.node_id and a.partition.device_id == b.partition.device_id
    shared = any(cpu in b.partition.cpu_ids for cpu in a.partition.cpu_ids)
    return same and (shared or a.partition.partition_id == b.partition.partition_id)


def _replica(replica: Replica, names: dict[str, str]) -> str:
    variant = names.get(replica.variant_id, replica.variant_id)
    where = f"{replica.node_id} {replica.partition.partition_id}"
    return f"{replica.replica_id}: {variant} on {where}, batch {replica.batch_limit}"


def _place(best: Candidate) -> str:
    count = f"{best.replicas} replica" + ("s" if best.replicas != 1 else "")
    power = f" at {best.power}" if best.power != DEFAULT_POWER else ""
    return (
        f"{count} of {best.variant_name} on {best.device_class} {best.partition_kind}, batch {best.batch_limit}{power}"
    )


def _why_chosen(deployment: Deployment, shown: Candidate) -> str:
    slo = deployment.slo
    parts = [_latency(limit, shown) for limit in slo.latency if _is_shown(limit, slo)]
    if not parts:
        parts = [f"TTFT p95 {shown.ttft_ms:.4g} ms, TPOT p95 {shown.tpot_ms:.4g} ms"]
    parts.append(f"{shown.energy_per_token_mj:.4g} mJ a token ({shown.energy_source.name.lower()})")
    parts.append(f"{shown.power_mw:.4g} mW with its share of idle")
    return f"least {_OBJECTIVE[deployment.objective]} that meets the SLO: {', '.join(parts)}"


_OBJECTIVE = {Objective.ENERGY: "energy", Objective.LATENCY: "latency", Objective.COST: "cost"}


def _is_shown(limit: LatencyLimit, slo: Slo) -> bool:
    return limit.percentile == slo.percentile_of(limit.metric)


def _latency(limit: LatencyLimit, shown: Candidate) -> str:
    reached = {Metric.TTFT: shown.ttft_ms, Metric.TPOT: shown.tpot_ms, Metric.E2E: shown.e2e_ms}[limit.metric]
    return f"{limit.metric} p{limit.percentile:g} {reached:.4g} of {limit.limit_ms:.4g} ms allowed"


def _why_not(deployment: Deployment, option: Option, chosen: Option) -> str:
    mine, best = f"{option.cost:.4g}", f"{chosen.cost:.4g} {_UNIT[deployment.objective]}"
    if math.isclose(option.cost, chosen.cost, rel_tol=1e-6):
        return f"meets the SLO and costs the same ({best}); the chosen has the larger batch limit or fits better"
    if option.cost > chosen.cost:
        return f"meets the SLO; dearer: {mine} against {best}"
    return f"meets the SLO; cheaper ({mine} against {best}), but not by enough to pay for the change, or without room"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


_UNIT = {
    Objective.ENERGY: "mW above idle",
    Objective.LATENCY: "ms to the last token",
    Objective.COST: "device shares",
}


def _weighed(options: int, refusals: list[str]) -> str:
    counts = Counter(refusals)
    words = ", ".join(f"{count} {code}" for code, count in sorted(counts.items()))
    return f"Weighed {options + len(refusals)} options: {options} meet the SLO" + (
        f"; refused: {words}." if words else "."
    )


def _furthest(refused: tuple[Candidate, ...]) -> tuple[str, str]:
    """The refusal that came last in the order of tests: the one nearest to success."""
    if not refused:
        return _NO_VARIANT, "the model has no variants; run `tradewind variant build`"
    order = list(Refusal)
    last = max(refused, key=lambda c: order.index(Refusal(c.refusal)))
    return str(last.refusal), f"{last.variant_name}: {last.reason}"


def _reason_of(near: Nearest, refused: tuple[Candidate, ...]) -> str:
    """Why the option that comes nearest was refused."""
    if near.option is None:
        return ""
    shown = near.option.candidate
    for c in refused:
        if c.key == shown.key:
            return f"{c.variant_name} on {c.device_class} {c.partition_kind}: {c.reason}"
    return ""


def _nearest_words(near: Nearest | None) -> str:
    if near is None:
        return "No other limits would help as things are."
    words = []
    if near.slo is not None and near.stretch > 0.0:
        words.append(f"The nearest that would be met: {slo_words(near.slo)}.")
    if near.requests_per_s is not None:
        words.append(f"With this SLO at most {near.requests_per_s:.4g} requests/s are possible.")
    return " ".join(words)


def _by_cost(option: Option) -> tuple[float, str, int]:
    return (option.cost, option.point.variant.name, option.point.batch_limit)
