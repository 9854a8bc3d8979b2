"""What workers ask and only the parent knows."""

from ..errors import StoreError
from . import questions
from .lines import passed_on
from .link import Link, Sources
from .pages import AllPages
from .places import Places


class Answers:
    """Of one service.  What was published meanwhile the caller sends before an answer."""

    def __init__(self, sources: Sources, places: Places, pages: AllPages) -> None:
        self._sources, self._places, self._pages = sources, places, pages

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
            case questions.METRICS:
                return await self._pages.metrics()
            case questions.STATUS:
                return (await self._pages.status()).encode()
        raise StoreError(f"{what}: no such question")
