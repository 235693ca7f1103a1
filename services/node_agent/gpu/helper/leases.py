"""Power settings under lease: sets them, ends them when nobody renews, keeps them on disk over its own restart.

The clock is the one that runs since boot: a lease written before a restart of the helper ends when it would have. After
a reboot the board has its defaults, so leases of an earlier boot are dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import structlog

from services.node_agent.core.power import OutOfBounds, Setting, admit
from services.node_agent.core.power_lease import LEASE_S, Lease, afterwards, ended
from services.node_agent.gpu.bounds import bounds_of
from services.node_agent.gpu.faults import GpuError, InvalidRequest, NotThere
from services.node_agent.gpu.port import BoardFacts
from services.node_agent.state_folder import write_whole
from tradewind.rpc.service import end_task

# Leases are looked at this often, and a board that does not answer is asked again this soon.
PERIOD_S: Final = 1.0

Ask = Callable[..., Awaitable[Any]]
Told = Callable[[str, dict[str, Any], str], None]


class Leases:
    """All leases of this machine.

    Args:
        ask: has the worker do a verb.
        file: where leases are kept.
        boot_id: of the machine.
        now_s: seconds since boot.
        told: hears of what is done here by itself: verb, arguments, result.
    """

    def __init__(self, ask: Ask, file: Path, boot_id: str, now_s: Callable[[], float], told: Told) -> None:
        self._ask, self._file, self._boot_id, self._now_s, self._told = ask, file, boot_id, now_s, told
        self._leases: dict[str, Lease] = _load(file, boot_id)
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("leases")

    def start(self) -> None:
        """Begins to end leases in time."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends every lease now: who stops the helper stops what keeps settings from outliving their owner."""
        if self._task is not None:
            task, self._task = self._task, None
            await end_task(task)
        for lease in list(self._leases.values()):
            await self._finish(lease)

    async def hold(
        self, uuid: str, setting: Setting, lease_s: float = LEASE_S, safety_cap_mw: int | None = None
    ) -> None:
        """Sets a board under a lease, or renews it.

        Raises:
            GpuError: the board does not take it; what was set in part ends with the lease.
        """
        admitted = await self._admitted(uuid, setting, safety_cap_mw)
        async with self._one_at_a_time:
            # Written first: whatever is set is known to be ended. Set at renewals, too: a reset of the board undoes it.
            self._keep(Lease(uuid, admitted, self._now_s() + lease_s, safety_cap_mw))
            await self._set(uuid, admitted)

    async def change(self, uuid: str, **part: int | None) -> None:
        """Sets the cap or the clock alone, under the usual lease."""
        lease = self._leases.get(uuid)
        old = lease.setting if lease else Setting()
        new = Setting(part.get("cap_mw", old.cap_mw), part.get("clock_mhz", old.clock_mhz))
        await self.hold(uuid, new, safety_cap_mw=lease.safety_cap_mw if lease else None)

    async def release(self, uuid: str) -> None:
        """Ends a lease now; none is well, too.

        Raises:
            GpuError: the board did not take its default; it is tried again.
        """
        async with self._one_at_a_time:
            if lease := self._leases.get(uuid):
                self._keep(replace(lease, ends_at_s=self._now_s()))
                await self._set(uuid, afterwards(lease))
                self._drop(uuid)

    async def _admitted(self, uuid: str, setting: Setting, safety_cap_mw: int | None) -> Setting:
        boards: tuple[BoardFacts, ...] = await self._ask("boards")
        facts = next((board for board in boards if board.uuid == uuid), None)
        if facts is None:
            raise NotThere(f"no board {uuid}; there are {', '.join(b.uuid for b in boards)}", 6, uuid)
        answer = admit(setting, bounds_of(facts), safety_cap_mw)
        if isinstance(answer, OutOfBounds):
            raise InvalidRequest(answer.words, 2, uuid)
        return answer

    async def _set(self, uuid: str, setting: Setting) -> None:
        await self._ask("set_power_cap", uuid=uuid, cap_mw=setting.cap_mw)
        await self._ask("lock_sm_clock", uuid=uuid, clock_mhz=setting.clock_mhz)

    async def look(self) -> None:
        """Ends what is over. A board that does not take its default is asked again at the next look."""
        for lease in ended(self._leases.values(), self._now_s()):
            async with self._one_at_a_time:
                # A renewal may have come while the lock was waited for.
                if self._leases.get(lease.uuid) is lease:
                    await self._finish(lease)

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_S)

    async def _finish(self, lease: Lease) -> None:
        back = afterwards(lease)
        try:
            await self._set(lease.uuid, back)
        except GpuError as error:
            self._log.error("a board does not go back to its default", board=lease.uuid, error=error.message)
            return
        self._drop(lease.uuid)
        self._told("end_lease", {"uuid": lease.uuid, **asdict(back)}, "done")

    def _keep(self, lease: Lease) -> None:
        self._leases[lease.uuid] = lease
        self._save()

    def _drop(self, uuid: str) -> None:
        self._leases.pop(uuid, None)
        self._save()

    def _save(self) -> None:
        leases = [asdict(lease) for lease in self._leases.values()]
        write_whole(self._file, json.dumps({"boot_id": self._boot_id, "leases": leases}).encode())


def _load(file: Path, boot_id: str) -> dict[str, Lease]:
    try:
        kept = json.loads(file.read_bytes())
        if kept["boot_id"] != boot_id:
            return {}
        return {one["uuid"]: Lease(**{**one, "setting": Setting(**one["setting"])}) for one in kept["leases"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        structlog.get_logger("leases").error(
            "kept leases cannot be read and are lost", file=str(file), error=repr(error)
        )
        return {}
