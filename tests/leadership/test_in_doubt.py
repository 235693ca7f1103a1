"""A leader that cannot reach PostgreSQL: goes on while nobody else leads, follows as soon as somebody does."""

from __future__ import annotations

import pytest

from services.orchestrator.leadership import Leadership
from services.orchestrator.lease import Lease
from tradewind.domain.errors import DatabaseUnavailable, TradewindError
from tradewind.store.database import Database
from tradewind.store.live import LiveState


class Led:
    """What is led, as far as leadership touches it."""

    leading = True

    def depose(self, error: TradewindError) -> None:
        """Another leads."""
        self.leading = False
        self.why = error.message


async def test_a_leader_cut_off_from_postgresql_heeds_a_newer_number(redis_url: str) -> None:
    live, database, led, clock = LiveState(redis_url), Database("postgresql:///none?host=/nowhere"), Led(), [0.0]
    lease = Lease(database, "a:1")
    lease.fencing = 3
    leadership = Leadership(lease, led, live, lambda: clock[0])  # type: ignore[arg-type]
    for told, leads in ((0, True), (3, True), (4, False)):
        await live.put_leader(told)
        clock[0] += 10.0
        with pytest.raises(DatabaseUnavailable):
            await leadership.look()
        assert led.leading is leads, told
    assert "fencing number 4, ours is 3" in led.why
    await live.close()
    await database.close()
