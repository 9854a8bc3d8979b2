"""``async with trio_feed.feed(...)``: one venue's data in a loop or a callback, without a service.

It is the service's own feed on the same bus (:class:`trio_feed.feeds.Feeds`); in the place of the
push server stands an :class:`~.inbox.Inbox`, in the place of the disk the memory.

::

    feed(...)
    ├─ the exchange in a box    with ``simulated=True``
    └─ feeds                    the venue's task tree, see :mod:`trio_feed.ingest.venue`
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import trio

from ..bus.local import LocalBus
from ..core.calendar import length_ms
from ..environment import Environment, real_environment
from ..errors import SettingsError
from ..feeds import Feeds, Redirect
from ..ingest.context import FeedContext
from ..metrics import Metrics
from ..model import Interval, Kline, Series
from ..settings import Settings
from ..store import MemoryStore
from ..supervise import HelperNursery
from . import library_logs
from .inbox import FeedMessage, Inbox
from .options import ProxyOption, Words, settings_of

Handler = Callable[[FeedMessage], Awaitable[object] | object]
"""Called with each message, one after the other; an async one is waited for."""
_FRESH_S = 30.0
_KEPT_BARS = 1_500
_KEPT_MINUTES_MS = 45 * 86_400_000.0
"""Of which a month's candle is made."""
_MOST_HISTORY = 1_000


class Feed:
    """A running feed.  Iterate it (one task), or hand it a callback with :meth:`deliver`.  Made by
    :func:`feed`; it ends with its block.

    A slow reader costs nothing but its own time: an open candle, ticker or book that still waits
    is replaced by its newer state; at ``buffer`` unread messages nothing more is taken from the
    exchange until there is room, and what was missed is then fetched.  No closed candle and no
    trade is left out.
    """

    def __init__(self, inbox: Inbox, feeds: Feeds, store: MemoryStore) -> None:
        self._inbox, self._feeds, self._store = inbox, feeds, store

    def __repr__(self) -> str:
        return f"<Feed {' '.join(map(repr, self._feeds.running))}, {len(self._inbox)} unread>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeedMessage:
        return await self._inbox.receive()

    @property
    def unread(self) -> int:
        """Messages that wait to be read."""
        return len(self._inbox)

    @property
    def problem(self) -> str:
        """Why the data is not fresh, in one line: the proxy that refuses, a symbol that is not
        listed.  Empty while all is well."""
        return next((why for each in self._feeds.running if (why := each.not_ready(_FRESH_S))), "")

    def status(self) -> dict[str, Any]:
        """A snapshot: connections (number, streams, state, messages), proxies, series."""
        (feed,) = self._feeds.running
        return feed.status()

    async def history(self, symbol: str, interval: str, *, limit: int = 100) -> list[Kline]:
        """The last closed candles, ascending, as far as they are in memory; [] for what is not fed.
        Raises ValueError for an interval that does not exist."""
        (feed,) = self._feeds.running
        series = Series(feed.venue.NAME, symbol, Interval.parse(interval))
        return await self._store.history(series, limit=limit)

    async def deliver(self, handler: Handler) -> None:
        """Call ``handler`` with each message, for ever.  What it raises comes out."""
        async for message in self:
            waited = handler(message)
            if isinstance(waited, Awaitable):
                await waited


@asynccontextmanager
async def feed(
    venue: str,
    *,
    symbols: Words,
    intervals: Words = (),
    channels: Words = (),
    proxy: ProxyOption = None,
    proxy_from_env: bool = False,
    history: int = 0,
    statuses: bool = False,
    buffer: int = 1_000,
    simulated: bool = False,
    settings: Mapping[str, Any] | None = None,
    environment: Environment | None = None,
) -> AsyncIterator[Feed]:
    """A venue's candles, trades and more, gap-free, while the block runs; leaving it closes
    everything.  Inside of ``trio.run`` only.

    ``intervals``: of candles, ``1m`` or ``m1``; what the venue does not offer is made of its trades
    or minutes.  ``channels``: ``trade``, ``ticker``, ``book``, ``bbo``, ``mark_price``,
    ``liquidation``, ``open_interest``.
    ``proxy``: a URL, a table, or a list of both that is a chain; nothing goes
    around it.  None: direct, or with ``proxy_from_env`` as HTTPS_PROXY, ALL_PROXY and NO_PROXY say.
    ``history``: so many closed candles are fetched: the last 99 come first, all are in
    :meth:`Feed.history`.  ``statuses``: what became stale, repaired or is unrepairable comes among
    the messages.  ``buffer``: unread messages at which the feed waits.
    ``simulated``: a made-up market on loopback in the place of the exchange.  ``settings``: more of
    ``[exchanges.<venue>]``, as in docs/settings.md.  Log lines go to ``logging.getLogger
    ("trio_feed")``.  ``environment`` is for tests.

    Raises SettingsError at once where an argument is wrong, StartError where the simulator cannot
    listen.  An exchange that is out of reach is no error: it is tried again for ever, and
    :attr:`Feed.problem` says why.
    """
    if buffer < 1:
        raise SettingsError("buffer", f"{buffer} is not at least 1")
    if not 0 <= history <= _MOST_HISTORY:
        raise SettingsError("history", f"{history} is not between 0 and {_MOST_HISTORY}")
    found = settings_of(
        venue, symbols, intervals, channels, proxy, proxy_from_env, history, simulated,
        settings or {},
    )  # fmt: skip
    environment = environment or real_environment()
    inbox = Inbox(buffer, statuses=statuses)
    with library_logs.lent():
        async with HelperNursery() as nursery:
            redirect = None
            if simulated:
                from ..serving import start_simulator  # it brings the push server's libraries

                redirect = await start_simulator(nursery, found, environment)
            store = _ReadersStore(inbox, int(environment.now_ms()), _keep_ms())
            feeds = await _open(found, inbox, store, environment, redirect)
            nursery.start_soon(feeds.run, name="feeds")
            nursery.start_soon(store.run, name="store")
            yield Feed(inbox, feeds, store)


def run_feed(handler: Handler, venue: str, **options: Any) -> None:
    """The same for a program without Trio: calls ``handler`` with each message until it raises, or
    Ctrl-C.  ``options`` are those of :func:`feed`.  It blocks: beside asyncio it wants a thread."""

    async def run() -> None:
        async with feed(venue, **options) as running:
            await running.deliver(handler)

    trio.run(run)


class _ReadersStore(MemoryStore):
    """Candles in memory, of which no more are taken than the program reads."""

    def __init__(self, inbox: Inbox, epoch: int, keep: Mapping[Interval, float]) -> None:
        super().__init__(epoch, keep)
        self._inbox = inbox

    @property
    def is_full(self) -> bool:
        return self._inbox.is_full

    async def wait_capacity(self) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._inbox.wait_room()


def _keep_ms() -> dict[Interval, float]:
    found = {interval: float(_KEPT_BARS * length_ms(interval)) for interval in Interval}
    return found | {Interval.M1: _KEPT_MINUTES_MS}


async def _open(
    settings: Settings,
    inbox: Inbox,
    store: MemoryStore,
    environment: Environment,
    redirect: Redirect | None,
) -> Feeds:
    bus = LocalBus(epoch=store.epoch, history_rows=1, resume_messages=1, now_ms=environment.now_ms)
    bus.listen(inbox)
    environ = os.environ if settings.proxy.from_env else None
    keep = {interval: kept / 1000 for interval, kept in _keep_ms().items()}
    context = FeedContext(environment, environ, store, bus, Metrics(), keep=keep)
    feeds = Feeds(settings, context, redirect)
    await feeds.open()
    return feeds
