"""Who leads, as far as this orchestrator knows; wakes those who wait for another answer."""

from __future__ import annotations

import asyncio


class LeaderWatch:
    """Who leads.

    Attributes:
        here: this orchestrator does.
        address: "host:port" where the leader answers; "" when not known.
        changed: set once, at the next change; a new one stands here from then on.
    """

    def __init__(self) -> None:
        self.here, self.address = False, ""
        self.changed = asyncio.Event()

    def tell(self, *, here: bool, address: str) -> None:
        """What is known from now on."""
        if (here, address) == (self.here, self.address):
            return
        self.here, self.address = here, address
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
