"""Runs a search: asks the core what to try, has it tried, keeps what it found. Judges no candidate itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from services.compiler.catalog import Catalog
from services.compiler.jobs.places import Places
from services.compiler.jobs.runner import Report as Tell
from services.compiler.order import Order
from services.compiler.search.core.facts import WHOLE, Candidate, Fate, Trial, Verdict
from services.compiler.search.core.schedule import Next, Plan, next_trials, verdicts
from services.compiler.search.devices import DeviceTimer, DeviceTimers
from services.compiler.search.records import SearchRecords, shape_class
from services.compiler.search.trying import Trier, Wish
from services.compiler.search.verdict_words import described_search, kept_of, with_floor
from services.compiler.store.index import key_of
from services.compiler.targets import Target
from tradewind.domain.errors import TradewindError
from tradewind.domain.quality_floor import QualityFloor
from tradewind.rpc.operations import Progress
from tradewind.v1 import compiler_pb2

# What a search takes when nobody says: the book for the host of a small model, and a whole build of each precision.
DEFAULT_BUDGET_S: Final = 300
# A target that nothing can be timed on takes a share of the time that is this much of one that is measured.
UNMEASURED_WEIGHT: Final = 0.5


@dataclass(frozen=True, slots=True)
class SearchOrder:
    """A search wanted.

    Attributes:
        search_id: its identity; the owner of its jobs.
        orders: candidates of each target in the book's order, by the target's name.
        budget_s: time for all targets.
        floor: least quality.
        chain: whether the targets are a fallback chain.
    """

    search_id: str
    orders: dict[str, tuple[Order, ...]]
    budget_s: float
    floor: QualityFloor
    chain: bool

    @property
    def first(self) -> Order:
        """Any order: model and toolchain are those of all."""
        return next(order for orders in self.orders.values() for order in orders)

    @property
    def key(self) -> str:
        """Digest of everything that the answer depends on but time."""
        keys = {name: [order.key for order in orders] for name, orders in self.orders.items()}
        return key_of("search", keys, repr(self.floor), self.chain)


@dataclass(slots=True)
class TargetSearch:
    """One target under search: what is decided from, and what was found."""

    target: Target
    orders: dict[str, Order]
    plan: Plan
    timer: DeviceTimer | None
    trials: list[Trial] = field(default_factory=list)
    variants: dict[str, compiler_pb2.Variant] = field(default_factory=dict)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What became of each candidate."""
        return verdicts(self.plan, self.trials)


class Searcher:
    """Searches; several may be under way, their jobs take turns."""

    def __init__(
        self, trier: Trier, places: Places, records: SearchRecords, catalog: Catalog, devices: DeviceTimers
    ) -> None:
        """Over the parts that the composition root made."""
        self._trier, self._places, self._records, self._catalog = trier, places, records, catalog
        self._devices = devices

    async def search(self, wanted: SearchOrder, progress: Progress) -> Sequence[str]:
        """Searches every target; ids of the variants that were built whole, those kept first.

        Raises:
            NoSpace: the store's disk is full.
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        if (known := await self._known(wanted)) is not None:
            progress.update("searched before", 1.0)
            return known
        began = time.monotonic()
        report = _Report(progress, wanted, began)
        wish = await self._wish(wanted, report)
        left = [await self._begin(wanted, orders, wish) for orders in wanted.orders.values()]
        # Targets that can be measured first: what is left of their time is of use to the others, not the other way.
        for index, search in enumerate(order := sorted(left, key=lambda s: not s.plan.measurable)):
            spent_s = time.monotonic() - began
            budget_s = _share(order[index:], wanted.budget_s - spent_s)
            search.plan = _given(search.plan, budget_s)
            await self._run(search, wish, report)
        return await self._keep(wanted, left, time.monotonic() - began)

    async def _known(self, wanted: SearchOrder) -> list[str] | None:
        """Variants of the same search made before, when all are there and more time would not find more."""
        search = await self._records.known(wanted.key)
        if search is None:
            return None
        unfinished = any(c.fate == compiler_pb2.CANDIDATE_FATE_OVER_BUDGET for c in search.candidates)
        if unfinished and wanted.budget_s > search.budget_s:
            return None
        orders = {(order.target.name, order.recipe.name): order for all_ in wanted.orders.values() for order in all_}
        for candidate in search.candidates:
            order = orders.get((candidate.target, candidate.recipe))
            if candidate.variant_id and (order is None or self._trier.find(order) is None):
                return None
        await self._records.add(search, wanted.key)
        return kept_of(search)

    async def _wish(self, wanted: SearchOrder, report: _Report) -> Wish:
        order = wanted.first
        depths = {WHOLE}
        for orders in wanted.orders.values():
            depths |= set(_plan(orders, 0.0, self._places.count, measurable=True).rungs)
        tell = report.of("the source's answers", order.target.name)
        references = await self._trier.references(order, tuple(sorted(depths)), tell)
        return Wish(wanted.floor, wanted.search_id, references)

    async def _begin(self, wanted: SearchOrder, orders: Sequence[Order], wish: Wish) -> TargetSearch:
        target = orders[0].target
        known = await self._records.best_recipes(target.resolved, shape_class(wanted.first.model.model))
        place = {recipe: number for number, recipe in enumerate(known)}
        ordered = sorted(orders, key=lambda order: place.get(order.recipe.name, len(place)))
        timer = await self._devices.timer_of(target.name, target.resolved)
        measurable = target.runnable_here or timer is not None
        plan = _plan(ordered, wanted.budget_s, self._places.count, measurable=measurable)
        if not target.runnable_here or any(r not in wish.references for r in plan.rungs):
            # Depths cannot be compared, or not be timed: a node's devices run whole variants only.
            plan = Plan(plan.candidates, plan.model_layers, plan.budget_s, plan.width, measurable, cuttable=False)
        return TargetSearch(target, {order.recipe.name: order for order in orders}, plan, timer)

    async def _run(self, search: TargetSearch, wish: Wish, report: _Report) -> None:
        began = time.monotonic()
        while (step := next_trials(search.plan, search.trials, time.monotonic() - began)).recipes:
            left_s = search.plan.budget_s - (time.monotonic() - began)
            await self._try_all(search, step, wish, report, left_s)

    async def _try_all(self, search: TargetSearch, step: Next, wish: Wish, report: _Report, left_s: float) -> None:
        """One step: its candidates side by side. What fails for a reason of ours ends the search, and its jobs."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._try(search, search.orders[recipe], step.layers, wish, report, left_s))
                    for recipe in step.recipes
                ]
        except* TradewindError as errors:
            raise errors.exceptions[0] from None
        search.trials += [task.result() for task in tasks]

    async def _try(
        self, search: TargetSearch, order: Order, layers: int, wish: Wish, report: _Report, left_s: float
    ) -> Trial:
        what = f"{layers} layers" if layers else "the whole model"
        tell = report.of(f"{order.recipe.name} on {what}", order.target.name)
        if layers != WHOLE:
            return await self._probe(order, layers, wish, tell, left_s)
        trial, variant = await self._trier.whole(order, wish, tell, search.timer)
        if variant is not None:
            variant = with_floor(variant, wish.floor)
            await self._catalog.add_variant(variant, order.key)
            search.variants[order.recipe.name] = variant
            below = variant.state == compiler_pb2.VARIANT_STATE_REJECTED and trial.fate is None
            if below:
                return Trial(
                    trial.recipe, WHOLE, trial.spent_s, None, Fate.BELOW_FLOOR, variant.state_reason, trial.variant_id
                )
        return trial

    async def _probe(self, order: Order, layers: int, wish: Wish, tell: Tell, left_s: float) -> Trial:
        """A probe that the search's time ends is told so; it is not the candidate that hangs then."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(left_s, 1.0)):
                return await self._trier.probe(order, layers, wish, tell)
        except TimeoutError:
            spent_s = time.monotonic() - began
            words = f"the search's time was over after {spent_s:.0f} s of this trial; give more with --budget"
            return Trial(order.recipe.name, layers, spent_s, None, Fate.OVER_BUDGET, words)

    async def _keep(self, wanted: SearchOrder, searches: Sequence[TargetSearch], spent_s: float) -> list[str]:
        search = described_search(wanted, searches, spent_s)
        await self._records.add(search, wanted.key)
        shape = shape_class(wanted.first.model.model)
        for one in searches:
            kept = [v.recipe for v in one.verdicts if v.fate is Fate.KEPT]
            if one.plan.measurable and kept:
                beaten = [v.recipe for v in one.verdicts if v.fate in (Fate.DOMINATED, Fate.SLOWER)]
                await self._records.remember(one.target.resolved, shape, [*kept, *beaten])
        return kept_of(search)


class _Report:
    """Says where a search stands: the candidates under way, and the share of its time that is spent."""

    def __init__(self, progress: Progress, wanted: SearchOrder, began: float) -> None:
        self._progress, self._budget_s, self._began = progress, wanted.budget_s, began

    def of(self, what: str, target: str) -> Tell:
        """A listener for one job."""

        def tell(stage: str, _share: float) -> None:
            share = (time.monotonic() - self._began) / self._budget_s
            self._progress.update(f"{target}: {what}: {stage}", min(share, 0.99))

        return tell


def _plan(orders: Sequence[Order], budget_s: float, width: int, *, measurable: bool) -> Plan:
    candidates = tuple(Candidate(order.recipe.name, order.recipe.precision) for order in orders)
    return Plan(candidates, orders[0].model.model.layer_count, budget_s, width, measurable)


def _given(plan: Plan, budget_s: float) -> Plan:
    return Plan(plan.candidates, plan.model_layers, budget_s, plan.width, plan.measurable, plan.cuttable)


def _share(left: Sequence[TargetSearch], left_s: float) -> float:
    """What the first of the targets left may take of the time left."""
    weights = [1.0 if search.plan.measurable else UNMEASURED_WEIGHT for search in left]
    return max(0.0, left_s) * weights[0] / sum(weights)
