"""What a leader has learnt of days outlives it: kept with its decisions, read by the next one on its own clock."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from services.orchestrator.catalogue import Catalogue
from services.orchestrator.control import Control
from services.orchestrator.core.adaptation.history import DAY_S, SLOTS
from services.orchestrator.core.liveness import Patience
from services.orchestrator.core.replay import Look
from services.orchestrator.gauges import Gauges
from services.orchestrator.journal import KeptInputs, kept_inputs
from services.orchestrator.lease import Lease
from services.orchestrator.links import Links
from services.orchestrator.listener import TrafficListener
from services.orchestrator.publisher import Publisher
from services.orchestrator.records import Records, add_decision
from tests.adaptation.test_replay import Witness
from tests.adaptation.test_season import remembered
from tradewind.metrics import Registry
from tradewind.rpc.client import open_channel
from tradewind.store.database import Database
from tradewind.store.live import LiveState

# The leader that died counted seconds from the start of its machine, the next one from that of its own.
AHEAD_S = 5 * 3600.0


def learnt() -> tuple[Look, KeptInputs]:
    """A decision of a house that had seen two days."""
    house = Witness()
    house.run(140)
    look, commit = house.kept[-1]
    days = remembered(15.0, 2 * DAY_S).season
    memory = look.state.learnt
    histories = tuple((name, replace(history, season=days)) for name, history in memory.histories)
    look = replace(look, state=replace(look.state, learnt=replace(memory, histories=histories)))
    kept = kept_inputs(look, commit.plan)
    assert kept
    return look, kept


async def test_the_next_leader_knows_the_days_on_its_own_clock(database_url: str, redis_url: str) -> None:
    database, live, nobody = Database(database_url), LiveState(redis_url), open_channel("127.0.0.1:1")
    await database.migrate()
    lease = Lease(database, "a:1")
    assert await lease.take()
    records = Records(database, lease)
    look, kept = learnt()
    async with records.begin() as session:
        await add_decision(session, "demand of chat", "", None, (), kept)
    memory, offset_s = await records.memory()
    assert offset_s == pytest.approx(time.time() - look.now_s, abs=60.0)
    ((name, history),) = memory.histories
    middles = [(n + 0.5) * DAY_S / SLOTS for n in range(SLOTS)]
    busy_s = max(middles, key=lambda at_s: history.season.rate(at_s) or 0.0)
    assert history.season.rate(busy_s) == pytest.approx(15.0)

    control = Control(
        records,
        Links(time.monotonic, time.time, lambda _: None),
        Catalogue(nobody, nobody, lambda: None),
        Publisher(live, lambda: None),
        time.monotonic,
        Patience(),
        Gauges(Registry()),
        TrafficListener(live, time.time, offset_s - AHEAD_S, lambda: None),
    )
    with capture_logs() as logs:
        await control.lead()
    assert [line["remembered"] for line in logs if line["event"] == "leading"] == [1]
    ((found, resumed),) = control.learnt.histories
    assert (found, resumed.age_s) == (name, 0.0)
    assert resumed.season.rate(busy_s + AHEAD_S) == pytest.approx(15.0)
    for closing in (live.close(), nobody.close(None), database.close()):
        await closing
