"""The engine's calls as commands.

Keys: ``<prefix>:{<shard>}:log`` and ``:lease``, ``<prefix>:node:<name>`` with the set
``<prefix>:nodes`` of their names, ``<prefix>:value:<name>``, ``<prefix>:cluster``.  An entry of a
log has its own id, and the fields ``b``, its body, and ``c``, where it is a checkpoint.
"""

import logging
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define

from ....errors import StartError
from ....settings import EngineSettings
from ....supervise import HelperNursery
from ..base import EMPTY, Append, Entry, EntryId
from . import rights
from .link import Link
from .problems import problems_of
from .scripts import APPEND, DROP, HOLDERS, RENEW

_PAGE = 500
"""Entries of one answer on the way back to a checkpoint."""


@asynccontextmanager
async def open_valkey(settings: EngineSettings) -> AsyncIterator["ValkeyEngine"]:
    """Dials nothing by itself; its connections end with the context.  Raises StartError where
    certificates cannot be read."""
    context = _ssl_context(settings)
    # What it logs of a dial that failed, with a traceback each time, is in the EngineFault.
    logging.getLogger("coredis").setLevel(logging.CRITICAL)
    async with HelperNursery() as nursery:
        link = Link(settings, nursery, context)
        nursery.start_soon(link.watch, name="engine sentinels")
        yield ValkeyEngine(link, settings.prefix)


def _ssl_context(settings: EngineSettings) -> ssl.SSLContext | None:
    if not any(place.tls for place in settings.places):
        return None
    key = "engine.ca_file"
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        key = "engine.tls_cert_file"
        if settings.tls_cert_file:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, lambda: b"")
    except ssl.SSLError:
        raise StartError(f"{key}: is no certificate in PEM form, or has not its key") from None
    except OSError as error:
        raise StartError(f"{key}: {error.strerror}") from None
    return context


@define(eq=False)
class ValkeyEngine:
    """An :class:`~trio_feed.bus.engine.base.Engine`."""

    _link: Link
    _prefix: str

    async def append(self, appends: Sequence[Append]) -> list[EntryId | None]:
        if not appends:
            return []
        answers = await self._link.ask(
            *(
                (
                    APPEND, 1, self._log(each.shard), _text(each.previous), _text(each.entry_id),
                    each.body, int(each.checkpoint),
                )
                for each in appends
            )
        )  # fmt: skip
        return [_entry_id(answer) if answer else None for answer in answers]

    async def read(
        self, after: Mapping[str, EntryId], *, wait_s: float, limit: int
    ) -> dict[str, list[Entry]]:
        if not after:
            await trio.sleep(wait_s)
            return {}
        shards = {self._log(shard).encode(): shard for shard in after}
        block = [b"BLOCK", max(1, round(wait_s * 1000))] if wait_s > 0 else []
        where = [b"STREAMS", *shards, *map(_text, after.values())]
        command = [b"XREAD", b"COUNT", limit, *block, *where]
        if block:
            found = await self._link.wait_for(command, wait_s)
        else:
            (found,) = await self._link.ask(command)
        return {shards[key]: list(map(_entry, rows)) for key, rows in (found or {}).items()}

    async def since_checkpoint(self, shard: str) -> list[Entry]:
        found: list[Entry] = []
        end = "+"
        while True:
            (rows,) = await self._link.ask(
                (b"XREVRANGE", self._log(shard), end, b"-", b"COUNT", _PAGE)
            )
            for row in rows:
                found.append(_entry(row))
                if found[-1].checkpoint:
                    return found[::-1]
            if len(rows) < _PAGE:
                return []
            end = f"({_text(found[-1].entry_id)}"

    async def tail(self, shard: str) -> EntryId:
        (rows,) = await self._link.ask((b"XREVRANGE", self._log(shard), b"+", b"-", b"COUNT", 1))
        return _entry_id(rows[0][0]) if rows else EMPTY

    async def take_lease(self, shard: str, holder: str, ttl_s: float) -> bool:
        (answer,) = await self._link.ask(
            (b"SET", self._lease(shard), holder, b"NX", b"PX", _ms(ttl_s))
        )
        return answer is not None

    async def renew_leases(self, holders: Mapping[str, str], ttl_s: float) -> dict[str, bool]:
        if not holders:
            return {}
        answers = await self._link.ask(
            *(
                (RENEW, 1, self._lease(shard), holder, _ms(ttl_s))
                for shard, holder in holders.items()
            )
        )
        return dict(zip(holders, map(bool, answers), strict=True))

    async def drop_lease(self, shard: str, holder: str) -> None:
        await self._link.ask((DROP, 1, self._lease(shard), holder))

    async def holders(self, shards: Sequence[str]) -> dict[str, str]:
        if not shards:
            return {}
        (found,) = await self._link.ask((HOLDERS, len(shards), *map(self._lease, shards)))
        return {
            shard: (holder or b"").decode(errors="replace")
            for shard, holder in zip(shards, found, strict=True)
        }

    async def trim(self, shard: str, before: EntryId) -> None:
        # The last one stays: the tail is known by it.
        if (last := await self.tail(shard)) != EMPTY:
            await self._link.ask(
                (b"XTRIM", self._log(shard), b"MINID", b"~", _text(min(before, last)))
            )

    async def bytes_of(self, shards: Sequence[str]) -> dict[str, int]:
        if not shards:
            return {}
        answers = await self._link.ask(*((b"MEMORY USAGE", self._log(shard)) for shard in shards))
        return dict(zip(shards, (each or 0 for each in answers), strict=True))

    async def put_node(self, name: str, body: bytes, ttl_s: float) -> None:
        await self._link.ask(
            (b"SET", self._node(name), body, b"PX", _ms(ttl_s)),
            (b"SADD", self._nodes, name),
        )

    async def nodes(self) -> dict[str, bytes]:
        (members,) = await self._link.ask((b"SMEMBERS", self._nodes))
        names = sorted(name.decode(errors="replace") for name in members)
        if not names:
            return {}
        (bodies,) = await self._link.ask((b"MGET", *map(self._node, names)))
        found = dict(zip(names, bodies, strict=True))
        if gone := [name for name, body in found.items() if body is None]:
            # One that comes back in this moment says so again soon.
            await self._link.ask((b"SREM", self._nodes, *gone))
        return {name: body for name, body in found.items() if body is not None}

    async def put_value(self, name: str, body: bytes) -> None:
        await self._link.ask((b"SET", self._value(name), body))

    async def value(self, name: str) -> bytes | None:
        (found,) = await self._link.ask((b"GET", self._value(name)))
        return None if found is None else bytes(found)

    async def join(self, cluster: bytes) -> bytes:
        key = self._cluster
        _, first = await self._link.ask((b"SET", key, cluster, b"NX"), (b"GET", key))
        return bytes(first)

    async def cluster(self) -> bytes | None:
        (first,) = await self._link.ask((b"GET", self._cluster))
        return None if first is None else bytes(first)

    async def try_anew(self) -> None:
        await self._link.try_anew()

    async def problems(self) -> list[str]:
        address, version = await self._link.server()
        tries = rights.tries(f"{self._prefix}:try")
        found = rights.lacking(tries, await self._link.try_each(*tries))
        if not found:
            parts = await self._link.ask(
                *((b"INFO", part) for part in ("persistence", "memory", "replication"))
            )
            found = problems_of(version, b"\r\n".join(parts).decode(errors="replace"))
        return [f"{address}: {'; '.join(found)}"] if found else []

    def _log(self, shard: str) -> str:
        return f"{self._prefix}:{{{shard}}}:log"

    def _lease(self, shard: str) -> str:
        return f"{self._prefix}:{{{shard}}}:lease"

    def _node(self, name: str) -> str:
        return f"{self._prefix}:node:{name}"

    def _value(self, name: str) -> str:
        return f"{self._prefix}:value:{name}"

    @property
    def _cluster(self) -> str:
        return f"{self._prefix}:cluster"

    @property
    def _nodes(self) -> str:
        return f"{self._prefix}:nodes"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _text(entry_id: EntryId) -> str:
    return f"{entry_id[0]}-{entry_id[1]}"


def _entry_id(text: bytes) -> EntryId:
    epoch, _, sequence = text.partition(b"-")
    return int(epoch), int(sequence)


def _entry(row: Any) -> Entry:
    entry_id, fields = row
    return Entry(_entry_id(entry_id), fields[1], len(fields) > 2)
