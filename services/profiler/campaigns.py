"""Runs a campaign: looks at the world, plans, has the nodes measure, keeps each profile as it is finished.

Jobs of one node run one after another, for two measurements at once would disturb each other; nodes run side by side.
The first failure ends the rest. Profiles finished before it are whole and stay, so a second try goes on from there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from itertools import groupby

from services.profiler.core.assembly import assemble, newest_by_point
from services.profiler.core.campaign import Campaign, Job, PointKey, choose_nodes, choose_variants, plan
from services.profiler.ports import Catalogue, Fleet, Meter, Profiles
from tradewind.domain.errors import TradewindError
from tradewind.rpc.operations import Progress
from tradewind.v1 import profiler_pb2


class Campaigns:
    """Measures variants.

    Args:
        catalogue: knows models and variants.
        fleet: knows nodes.
        meter: measures.
        profiles: keeps.
        now_s: seconds since 1970.
    """

    def __init__(
        self, catalogue: Catalogue, fleet: Fleet, meter: Meter, profiles: Profiles, now_s: Callable[[], float]
    ) -> None:
        self._catalogue, self._fleet, self._meter, self._profiles = catalogue, fleet, meter, profiles
        self._now_s = now_s

    async def run(self, request: profiler_pb2.RunProfileRequest, progress: Progress) -> Sequence[str]:
        """Does what a request asks for; returns ids of all profiles that answer it, reused ones too.

        Raises:
            TradewindError: see `core.campaign` and `AgentMeter`; profiles finished until then are kept.
        """
        progress.update("looking up variants and nodes", 0.0)
        campaign = await self._plan(request)
        if not campaign.jobs:
            progress.update("everything is known already; use force to measure again", 1.0)
        shares = _Shares(len(campaign.jobs), progress)
        by_node = [list(jobs) for _, jobs in groupby(sorted(campaign.jobs, key=_node), key=_node)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._measure_node(jobs, shares)) for jobs in by_node]
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        made = [profile_id for task in tasks for profile_id in task.result()]
        return [*(p.profile_id for p in campaign.reused), *made]

    async def _plan(self, request: profiler_pb2.RunProfileRequest) -> Campaign:
        model = await self._catalogue.model(request.model)
        variants = choose_variants(model.name, await self._catalogue.variants(model.model_id), request.variant_ids)
        nodes = choose_nodes(await self._fleet.nodes(), request.node_ids)
        kept = newest_by_point(await self._profiles.all_of(model.model_id))
        known = {PointKey(*key): profile for key, profile in kept.items()}
        return plan(variants, nodes, request, known)

    async def _measure_node(self, jobs: Sequence[Job], shares: _Shares) -> list[str]:
        return [await self._measure(job, shares) for job in jobs]

    async def _measure(self, job: Job, shares: _Shares) -> str:
        number = shares.begin(job)
        sent = await self._meter.measure(job, lambda stage, share: shares.tell(number, job, stage, share))
        profile = assemble(job, sent, f"profile-{uuid.uuid4().hex}", self._now_s())
        await self._profiles.add(profile)
        shares.tell(number, job, "done", 1.0)
        return profile.profile_id


class _Shares:
    """Adds up the shares of jobs that run side by side."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._progress = total, progress
        self._done: list[float] = []

    def begin(self, job: Job) -> int:
        self._done.append(0.0)
        number = len(self._done)
        self.tell(number, job, "starting", 0.0)
        return number

    def tell(self, number: int, job: Job, stage: str, share: float) -> None:
        self._done[number - 1] = max(self._done[number - 1], min(1.0, share))
        words = f"{number}/{self._total} {job.title}: {stage}" if stage else f"{number}/{self._total} {job.title}"
        self._progress.update(words, sum(self._done) / self._total)


def _node(job: Job) -> str:
    return job.node_id


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure of a group; the others followed from it or say the same of other nodes.

    A fault of ours goes before a refusal, for it needs a look.
    """
    ours = errors.split(TradewindError)[1]
    found: BaseException = ours if ours is not None else errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
