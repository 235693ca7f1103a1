"""A leader that is deposed while it decides."""

from __future__ import annotations

import asyncio
import time

from services.orchestrator.catalogue import Catalogue
from services.orchestrator.control import Control
from services.orchestrator.core.liveness import Patience
from services.orchestrator.gauges import Gauges
from services.orchestrator.lease import Lease
from services.orchestrator.links import Links
from services.orchestrator.listener import TrafficListener
from services.orchestrator.publisher import Publisher
from services.orchestrator.records import Records
from tradewind.domain.errors import StaleGeneration
from tradewind.metrics import Registry
from tradewind.rpc.client import open_channel
from tradewind.store.database import Database
from tradewind.store.live import LiveState


async def test_what_was_being_decided_when_another_took_the_lead_is_not_published(redis_url: str) -> None:
    live, database = LiveState(redis_url), Database("postgresql:///none?host=/nowhere")
    publisher, nobody = Publisher(live, lambda: None), open_channel("127.0.0.1:1")
    control = Control(
        Records(database, Lease(database, "a:1")),
        Links(time.monotonic, time.time, lambda _: None),
        Catalogue(nobody, nobody, lambda: None),
        publisher,
        time.monotonic,
        Patience(1.0, 2.5),
        Gauges(Registry()),
        TrafficListener(live, time.time, 0.0, lambda: None),
    )
    for deposed in (False, True):
        control.leader.tell(here=True, address="a:1")
        looking = asyncio.ensure_future(control.look())
        # Its first stop is where it waits for the thread that decides.
        await asyncio.sleep(0)
        assert not looking.done()
        if deposed:
            control.depose(StaleGeneration("another orchestrator leads"))
        await looking
        await publisher.write()
        assert publisher.knows("of the new leader") is deposed, "only who leads has a table of its own"
    await live.close()
    await nobody.close(None)
    await database.close()
