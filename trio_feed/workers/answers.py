"""What workers ask and only the parent knows."""

from collections.abc import Iterable, Mapping, Sequence

from ..bus.engine.base import EngineFault, Entry
from ..errors import StoreError
from . import questions
from .lines import passed_on
from .link import Link, Sources
from .pages import AllPages
from .places import Places

_MOST_LOG = 8 * 2**20
"""Bytes of entries in an answer; a reader asks again for what is behind them."""


class Answers:
    """Of one service.  What was published meanwhile the caller sends before an answer."""

    def __init__(self, sources: Sources, places: Places, pages: AllPages) -> None:
        self._sources, self._places, self._pages = sources, places, pages
        self._log_found: Mapping[str, Sequence[Entry]] = {}
        self._log_body = b""
        """What was found last, and the answer that was made of it."""

    async def of(self, link: Link, what: str, body: bytes) -> bytes:
        """The answer to a worker's question.  Raises StoreError and JournalError."""
        store, journal = self._sources.store, self._sources.journal
        match what:
            case questions.HISTORY:
                asked = questions.history_of(body)
                rows = await store.history(
                    asked.series, limit=asked.limit, start_ms=asked.start_ms, end_ms=asked.end_ms
                )
                return questions.write_candles(rows)
            case questions.AFTER:
                asked = questions.after_of(body)
                found = await store.after(
                    asked.series,
                    asked.epoch,
                    asked.offset,
                    closed_ms=asked.closed_ms,
                    limit=asked.limit,
                )
                return questions.write_messages(found)
            case questions.APPEND:
                return questions.encode(await journal.append(questions.settlements_of(body)))
            case questions.HEAD:
                return questions.encode(await journal.head(questions.user_of(body)))
            case questions.HEADS:
                others = journal.others
                assert others is not None, "only then they are asked for"
                return questions.encode(dict(await others.heads(questions.users_of(body))))
            case questions.READ:
                return questions.encode(await journal.read(*questions.page_of(body)))
            case questions.TAKE:
                return self._places.take(link.worker, *questions.place_of(body)).encode()
            case questions.DEMAND:
                demand = self._sources.view.demand
                assert demand is not None, "the feeds are of this process"
                return questions.write_granted(await demand.ask(questions.wish_of(body)))
            case questions.PASS:
                passed = questions.pass_of(body)
                return questions.encode(await passed_on(link.lines.outside(passed.venue), passed))
            case questions.DIAL:
                return questions.encode(await link.lines.open(questions.dial_of(body)))
            case questions.RECEIVE:
                return questions.encode(await link.lines.receive(questions.number_of(body)))
            case questions.SEND:
                return questions.encode(await link.lines.send(*questions.sent_of(body)))
            case questions.LOG:
                return await self._log(questions.log_of(body))
            case questions.CHECKPOINT:
                return await self._checkpoint(questions.shard_of(body))
            case questions.METRICS:
                return await self._pages.metrics()
            case questions.STATUS:
                return (await self._pages.status()).encode()
        raise StoreError(f"{what}: no such question")

    async def _log(self, asked: questions.LogQuestion) -> bytes:
        log = self._sources.log
        assert log is not None, "only workers of a node ask"
        try:
            found = await log.read(asked.after, wait_s=asked.wait_s, limit=asked.limit)
        except EngineFault as fault:
            raise StoreError(str(fault)) from None
        if found is not self._log_found:  # workers that are as far get the same
            most = _MOST_LOG // max(1, len(found))
            rows = {shard: _first(entries, most) for shard, entries in found.items()}
            self._log_found, self._log_body = found, questions.encode(rows)
        return self._log_body

    async def _checkpoint(self, shard: str) -> bytes:
        log = self._sources.log
        assert log is not None, "only workers of a node ask"
        try:
            found = await log.since_checkpoint(shard)
        except EngineFault as fault:
            raise StoreError(str(fault)) from None
        return questions.encode(_first(found, _MOST_LOG))


def _first(entries: Iterable[Entry], most: int) -> Sequence[Entry]:
    """At most so many bytes, and one entry."""
    found: list[Entry] = []
    for entry in entries:
        most -= len(entry.body)
        if found and most < 0:
            break
        found.append(entry)
    return found
