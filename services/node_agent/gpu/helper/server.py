"""The helper's socket: who may speak, one request after the other, each checked, done and audited.

A connection that sends what is no request is answered and closed. Changes are for one connection at a time: the first
that makes one, until it closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import structlog

from services.node_agent.core.power import Setting
from services.node_agent.gpu.faults import GpuError, InUse, InvalidRequest, NoPermission
from services.node_agent.gpu.helper.audit import Audit, Peer
from services.node_agent.gpu.helper.frames import MAX_REQUEST_BYTES, Request, answer_line, error_line, parse
from services.node_agent.gpu.helper.leases import Ask, Leases
from services.node_agent.gpu.helper.verbs import Cap, Clock, Hold, Kind, OfBoard
from tradewind.domain.errors import InUse as PathInUse
from tradewind.domain.errors import InvalidField

# An agent and a person who looks; more are a mistake.
MAX_CONNECTIONS: Final = 8
# How long a refused peer's first line is waited for before it is told.
REFUSED_LINGER_S: Final = 1.0
_UCRED: Final = struct.Struct("3i")


class Server:
    """See the module.

    Args:
        ask: has the worker do a verb.
        leases: keeps power settings.
        audit: hears of every call.
        allowed_uids: who may connect.
    """

    def __init__(self, ask: Ask, leases: Leases, audit: Audit, allowed_uids: Collection[int]) -> None:
        self._ask, self._leases, self._audit, self._allowed_uids = ask, leases, audit, frozenset(allowed_uids)
        self._writer: asyncio.StreamWriter | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._log = structlog.get_logger("helper")

    async def start(self, listening: socket.socket) -> None:
        """Begins to accept."""
        self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=MAX_REQUEST_BYTES)

    async def stop(self) -> None:
        """Closes every connection. Idempotent."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._connections):
                writer.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _peer_of(writer.get_extra_info("socket"))
        self._connections.add(writer)
        try:
            if refusal := self._refusal(peer):
                self._audit.call(peer, "connect", {}, f"refused: {refusal.message}", 0.0)
                # Closing over unread bytes would take the answer away from the peer.
                with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    async with asyncio.timeout(REFUSED_LINGER_S):
                        await reader.readuntil(b"\n")
                writer.write(error_line(0, refusal))
                await writer.drain()
            else:
                await self._talk(peer, reader, writer)
        except ConnectionError:
            self._log.debug("peer went away", pid=peer.pid)
        finally:
            self._connections.discard(writer)
            self._writer = None if self._writer is writer else self._writer
            writer.close()

    def _refusal(self, peer: Peer) -> GpuError | None:
        if peer.uid not in self._allowed_uids:
            return NoPermission(f"uid {peer.uid} may not use this helper; an administrator adds it to allowed_uids", 4)
        if len(self._connections) > MAX_CONNECTIONS:
            return InUse(f"{MAX_CONNECTIONS} connections are open already")
        return None

    async def _talk(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readuntil(b"\n")
                request = parse(line)
            except asyncio.IncompleteReadError:
                return
            except (asyncio.LimitOverrunError, InvalidRequest) as error:
                wrong = error if isinstance(error, InvalidRequest) else InvalidRequest("the line is too long")
                self._audit.call(peer, "unreadable", {}, f"refused: {wrong.message}", 0.0)
                writer.write(error_line(0, wrong))
                await writer.drain()
                return
            writer.write(await self._answer(peer, request, writer))
            await writer.drain()

    async def _answer(self, peer: Peer, request: Request, writer: asyncio.StreamWriter) -> bytes:
        begun_s = time.monotonic()
        arguments = request.arguments.model_dump()
        try:
            self._must_be_writer(request, writer)
            answer = await self._do(request, arguments)
        except GpuError as error:
            result = f"{type(error).__name__}: {error.message}"
            self._audit.call(peer, request.name, arguments, result, time.monotonic() - begun_s)
            return error_line(request.number, error)
        if request.verb.kind is Kind.READ:
            self._audit.looked(peer, request.name)
        else:
            self._audit.call(peer, request.name, arguments, "done", time.monotonic() - begun_s)
        return answer_line(request.number, request.verb.answer, answer)

    def _must_be_writer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.verb.kind is Kind.READ:
            return
        if self._writer not in (None, writer):
            raise InUse("another connection changes boards; one agent manages a machine")
        self._writer = writer

    async def _do(self, request: Request, arguments: dict[str, Any]) -> Any:
        match request.arguments:
            case Hold() as hold:
                setting = Setting(hold.cap_mw, hold.clock_mhz)
                return await self._leases.hold(hold.uuid, setting, hold.lease_s, hold.safety_cap_mw)
            case Cap() as cap:
                return await self._leases.change(cap.uuid, cap_mw=cap.cap_mw)
            case Clock() as clock:
                return await self._leases.change(clock.uuid, clock_mhz=clock.clock_mhz)
            case OfBoard() as board if request.name == "release_power":
                return await self._leases.release(board.uuid)
        return await self._ask(request.name, **arguments)


def listen(path: Path, gid: int | None) -> socket.socket:
    """A socket at a path that only its owner and a group may use.

    Raises:
        InvalidField: the folder can be written by others, or something that is no socket of ours lies there.
        InUse: another helper answers at it.
    """
    folder = path.parent.lstat()
    if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.geteuid() or folder.st_mode & 0o022:
        raise InvalidField("socket", f"{path.parent} has to be a folder of this user that nobody else can write")
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(os.fspath(path))
    finally:
        os.umask(before)
    if gid is not None:
        os.chown(path, -1, gid, follow_symlinks=False)
        path.chmod(0o660)
    return listening


def _remove_stale(path: Path) -> None:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(facts.st_mode) or facts.st_uid != os.geteuid():
        raise InvalidField("socket", f"{path} exists and is no socket of this user; it is left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(os.fspath(path)) == 0:
            raise PathInUse(f"another helper answers at {path}; stop it first", {"path": str(path)})
    path.unlink()


def _peer_of(connection: socket.socket) -> Peer:
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(uid, gid, pid)
