"""Runs a search: asks the core what to try, has it tried, keeps what it found. Judges no candidate itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from services.compiler.catalog import Catalog
from services.compiler.jobs.keyed import KeyedLocks
from services.compiler.jobs.places import Places
from services.compiler.jobs.runner import Report as Tell
from services.compiler.order import Order
from services.compiler.search.bench import Wish
from services.compiler.search.core.facts import WHOLE, Candidate, Fate, Trial, Verdict
from services.compiler.search.core.schedule import Next, Plan, next_trials, verdicts
from services.compiler.search.devices import DeviceTimer, DeviceTimers
from services.compiler.search.probing import Prober, Try
from services.compiler.search.records import SearchRecords, shape_class
from services.compiler.search.trying import Trier
from services.compiler.search.verdict_words import described_search, kept_of, with_floor
from services.compiler.store.index import key_of
from services.compiler.targets import Target
from tradewind.domain.errors import ServiceUnavailable, TradewindError
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
        self,
        tries: tuple[Trier, Prober],
        places: Places,
        records: SearchRecords,
        catalog: Catalog,
        devices: DeviceTimers,
    ) -> None:
        """Over the parts that the composition root made."""
        self._trier, self._prober = tries
        self._places, self._records, self._catalog = places, records, catalog
        self._devices, self._locks = devices, KeyedLocks()
        self._log = structlog.get_logger("search")

    async def search(self, wanted: SearchOrder, progress: Progress) -> Sequence[str]:
        """Searches every target; ids of the variants that were built whole, those kept first.

        The same search wanted twice is made once: the second waits, and finds what the first has kept.

        Raises:
            NoSpace: the store's disk is full.
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        progress.update("waiting for the same search to end", 0.0)
        async with self._locks.of(wanted.key):
            if (known := await self._known(wanted)) is not None:
                progress.update("searched before", 1.0)
                return known
            return await self._search(wanted, progress)

    async def _search(self, wanted: SearchOrder, progress: Progress) -> Sequence[str]:
        began = time.monotonic()
        report = _Report(progress, wanted, began)
        wish = await self._wish(wanted, report)
        left = [await self._begin(wanted, orders, wish) for orders in wanted.orders.values()]
        # Targets that can be measured first: what is left of their time is of use to the others, not the other way.
        for index, search in enumerate(order := sorted(left, key=lambda s: not s.plan.measurable)):
            spent_s = time.monotonic() - began
            budget_s = _share(order[index:], wanted.budget_s - spent_s)
            search.plan = replace(search.plan, budget_s=budget_s)
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
        # Nodes measure prompts and answers; a tensor model is timed on this machine or not at all.
        timer = None if wanted.first.infers else await self._devices.timer_of(target)
        measurable = target.runnable_here or timer is not None
        plan = _plan(ordered, wanted.budget_s, self._places.count, measurable=measurable)
        if not measurable or any(r not in wish.references for r in plan.rungs):
            # Depths cannot be timed, or the model cannot be cut to them.
            plan = replace(plan, cuttable=False)
        return TargetSearch(target, {order.recipe.name: order for order in orders}, plan, timer)

    async def _run(self, search: TargetSearch, wish: Wish, report: _Report) -> None:
        """Tries until nothing is left to try; anew without the device of a node that went away.

        Figures of two machines are not compared with each other, so what it measured does not count any more.
        """
        try:
            await self._try_in_turn(search, wish, report)
        except ServiceUnavailable as error:
            if search.timer is None:
                raise
            self._log.warning("a device was lost", target=search.target.name, error=error.message)
            search.timer, search.trials = None, []
            search.plan = replace(search.plan, measurable=search.target.runnable_here)
            await self._try_in_turn(search, wish, report)

    async def _try_in_turn(self, search: TargetSearch, wish: Wish, report: _Report) -> None:
        began = time.monotonic()
        while (step := next_trials(search.plan, search.trials, time.monotonic() - began)).recipes:
            left_s = search.plan.budget_s - (time.monotonic() - began)
            await self._try_all(search, step, wish, report, left_s)

    async def _try_all(self, search: TargetSearch, step: Next, wish: Wish, report: _Report, left_s: float) -> None:
        """One step: its candidates side by side. What fails for a reason of ours ends the search, and its jobs."""
        try:
            if step.layers != WHOLE:
                search.trials += await self._probe(search, step, wish, report, left_s)
                return
            async with asyncio.TaskGroup() as group:
                orders = [search.orders[recipe] for recipe in step.recipes]
                tasks = [group.create_task(self._try(search, order, wish, report)) for order in orders]
        except* TradewindError as errors:
            raise _first(errors) from None
        search.trials += [task.result() for task in tasks]

    async def _try(self, search: TargetSearch, order: Order, wish: Wish, report: _Report) -> Trial:
        tell = report.of(f"{order.recipe.name} on the whole model", order.target.name)
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

    async def _probe(self, search: TargetSearch, step: Next, wish: Wish, report: _Report, left_s: float) -> list[Trial]:
        """Probes that the search's time ends are told so; it is not the candidates that hang then."""
        began, trials = time.monotonic(), list[Trial]()
        tries = [
            Try(order, report.of(f"{order.recipe.name} on {step.layers} layers", order.target.name))
            for order in (search.orders[recipe] for recipe in step.recipes)
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(left_s, 1.0)):
                await self._prober.probe(tries, step.layers, wish, trials.append, search.timer)
        spent_s = time.monotonic() - began
        words = f"the search's time was over after {spent_s:.0f} s of this trial; give more with --budget"
        ended = {trial.recipe for trial in trials}
        return [
            *trials,
            *(
                Trial(recipe, step.layers, spent_s, None, Fate.OVER_BUDGET, words)
                for recipe in step.recipes
                if recipe not in ended
            ),
        ]

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


def _first(errors: BaseExceptionGroup[TradewindError]) -> TradewindError:
    """The first of a group: the others followed from it, or say the same."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, TradewindError)
    return found


def _share(left: Sequence[TargetSearch], left_s: float) -> float:
    """What the first of the targets left may take of the time left."""
    weights = [1.0 if search.plan.measurable else UNMEASURED_WEIGHT for search in left]
    return max(0.0, left_s) * weights[0] / sum(weights)
