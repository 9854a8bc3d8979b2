"""What a store keeps and answers.

A store keeps closed candles, one row per series and open time.  A row keeps the number (epoch,
offset) of the message that brought it.  A revision changes the values of the row; it is kept with
its own number, the time we learned of it, and the values before.
"""

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from attrs import define, evolve, frozen

from ..model import Hole, Interval, Kline, KlineMessage, Series

Keep = Mapping[Interval, float]
"""How many milliseconds of each interval are kept; what is not named is kept forever."""

_INT_MAX = 2**63 - 1
"""Largest integer of SQLite, and of a bigint in PostgreSQL."""


@frozen
class StoredEnd:
    """The end of one stored series: its last closed candle.

    ``settled_ms``: open time up to which everything is either stored or known not to exist at the
    exchange; at least that of ``kline``.  ``first_open_ms``: the oldest candle that is stored.
    ``last_stream_id``: that of the newest candle that has one (0: none has).
    ``recent``: the last candles, ascending, where who asked has read them too.
    """

    kline: Kline
    settled_ms: int
    first_open_ms: int | None = None
    last_stream_id: int = 0
    recent: Sequence[Kline] = ()


@frozen
class Revision:
    """A closed candle that changed later: which one, under which number, and when we learned of it
    (our calendar, unix ms; 0: not known).  ``before`` are the values that it replaced, None where
    they are not known."""

    open_ms: int
    epoch: int
    offset: int
    learned_ms: int
    before: Kline | None


@frozen
class HoleEntry:
    """To be kept: the exchange itself has no candles there."""

    series: Series
    hole: Hole


@frozen
class LostEntry:
    """To be kept: the candle with this number was refused, so what follows an earlier number is
    not known completely."""

    series: Series
    epoch: int
    offset: int


@frozen
class CursorEntry:
    """To be kept: how far a source of many series was read.  It says so of the candles that were
    put before it, so it is never on the disk without them."""

    name: str
    text: str


SeriesEntry = KlineMessage | HoleEntry | LostEntry
"""What belongs to one series."""
Entry = SeriesEntry | CursorEntry


@frozen
class Sizes:
    """What a store takes.  ``rows``: candles by interval.  ``free_bytes``: inside of the file, to
    be used again.  All 0 in memory, except rows."""

    rows: Mapping[Interval, int]
    file_bytes: int = 0
    wal_bytes: int = 0
    free_bytes: int = 0


@frozen
class StoreStatistics:
    """A snapshot.  ``sizes`` are as of the last look at the disk (some seconds ago); ``pruned``
    and ``refused`` count candles since the start.  ``problem``: why nothing can be written now,
    empty: it can; ``advice``: what to do about it; ``full``: so much is pending that nothing new is
    taken.  ``place``: where it is, without secrets."""

    pending: int
    sizes: Sizes
    pruned: int
    refused: int
    problem: str = ""
    full: bool = False
    place: str = ":memory:"
    advice: str = ""


@define
class End:
    """Both ends of one series, kept up to date entry by entry.  Pure.

    ``first_open_ms`` and ``last_open_ms`` are None while there is no candle, ``kline`` is the last
    candle where the caller wants it."""

    first_open_ms: int | None = None
    last_open_ms: int | None = None
    settled_ms: int = 0
    last_stream_id: int = 0
    kline: Kline | None = None

    def add(self, kline: Kline) -> None:
        at = kline.open_ms
        if self.first_open_ms is None or at < self.first_open_ms:
            self.first_open_ms = at
        if self.last_open_ms is None or at >= self.last_open_ms:
            self.last_open_ms, self.kline = at, kline
            self.last_stream_id = kline.last_stream_id or self.last_stream_id
        self.settled_ms = max(self.settled_ms, at)

    def add_hole(self, hole: Hole) -> None:
        self.settled_ms = max(self.settled_ms, hole.last_ms)

    def stored_end(self) -> StoredEnd | None:
        if self.kline is None:
            return None
        return StoredEnd(self.kline, self.settled_ms, self.first_open_ms, self.last_stream_id)


def why_unfit(entry: SeriesEntry) -> str:
    """What a store cannot hold of this; empty: nothing.  Decimals of any size are fine."""
    if isinstance(entry, HoleEntry):
        return _beyond(first_ms=entry.hole.first_ms, last_ms=entry.hole.last_ms)
    if isinstance(entry, LostEntry):
        return _beyond(epoch=entry.epoch, offset=entry.offset)
    k = entry.kline
    taker, taker_quote = k.taker_buy_volume or k.volume, k.taker_buy_quote_volume or k.volume
    decimals = (k.open, k.high, k.low, k.close, k.volume, k.quote_volume, taker, taker_quote)
    if not all(map(Decimal.is_finite, decimals)):
        return "a value that is no number"
    first_id, last_id = k.first_trade_id or 0, k.last_trade_id or 0
    integers = (k.open_ms, k.trades, k.event_ms, k.last_stream_id, first_id, last_id)
    ours = (entry.epoch, entry.offset)
    least, most = min(*integers, *ours), max(*integers, *ours)
    if -_INT_MAX <= least <= most <= _INT_MAX and -_INT_MAX <= entry.received_ms <= _INT_MAX:
        return ""
    return _beyond(
        open_ms=k.open_ms,
        trades=k.trades,
        event_ms=k.event_ms,
        last_stream_id=k.last_stream_id,
        first_trade_id=first_id,
        last_trade_id=last_id,
        epoch=entry.epoch,
        offset=entry.offset,
        received_ms=entry.received_ms,
    )


def _beyond(**numbers: float) -> str:
    for name, number in numbers.items():
        if not -_INT_MAX <= number <= _INT_MAX:  # false for NaN as well
            return f"{name} {number} is beyond 64 bits"
    return ""


class CandleReader(Protocol):
    """What clients are answered from: see :class:`KlineStore`, which is one."""

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> Sequence[Kline]: ...

    async def after(
        self, series: Series, epoch: int, offset: int, *, closed_ms: int | None = None, limit: int
    ) -> Sequence[KlineMessage] | None: ...


class KlineStore(Protocol):
    """Closed candles by series.  Times are unix milliseconds.

    The ``put`` methods are synchronous and never wait; ``wait_capacity`` waits while too much is
    unwritten.  Questions also see what is not on disk yet; they raise StoreError.  ``run`` writes
    and prunes until cancelled; the opener flushes and closes.
    """

    epoch: int
    """Larger at each opening of the same store; the first half of every message's number."""

    def put(self, message: KlineMessage) -> None:
        """Keep a closed candle with its epoch and offset.  One with a number that no store holds
        (see :func:`why_unfit`) is refused: counted and logged."""

    def put_hole(self, series: Series, hole: Hole) -> None:
        """Keep that the exchange itself has no candles there."""

    def put_cursor(self, name: str, text: str) -> None:
        """Keep how far a source was read, in place of what was kept under that name."""

    async def cursor(self, name: str) -> str | None:
        """What :meth:`put_cursor` kept last; None: nothing yet."""

    @property
    def is_full(self) -> bool:
        """More rows are pending than the settings allow."""

    async def wait_capacity(self) -> bool:
        """Wait while it :attr:`is_full`; whether it had to."""

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[Kline]:
        """The last ``limit`` candles with start_ms <= open < end_ms, ascending; with ``start_ms``
        and no ``end_ms`` the first ``limit`` from there on."""

    async def stored_ends(
        self, venue: str | None = None, symbols: Collection[str] | None = None
    ) -> dict[Series, StoredEnd]:
        """The last closed candle of every series; of one ``venue``, of some ``symbols``.  Its cost
        grows with the number of those series, not with that of candles."""

    async def first_open(self, series: Series) -> int | None:
        """Open time of the oldest candle of a series."""

    async def after(
        self, series: Series, epoch: int, offset: int, *, closed_ms: int | None = None, limit: int
    ) -> list[KlineMessage] | None:
        """Closed candles and revisions that were published after that number, in the order in
        which they were, with the values that they have now; ``received_ms`` is not kept and is 0.

        None where that is not known exactly: more than ``limit``; some of it was pruned, or was
        not published in the order of open times; an epoch that is not this store's, or one whose
        process was killed and may have given that number after its last write.  Of such an epoch
        ``closed_ms``, the open time of the last closed candle that was published up to that
        number, decides, if it is stored and is not of the history before the first candle that was
        published: that is in no answer.  Its cost grows with the
        answer and never beyond ``limit``.
        """

    async def revisions(
        self, series: Series, *, start_ms: int = 0, end_ms: int | None = None, limit: int
    ) -> list[Revision]:
        """The first ``limit`` revisions of candles with start_ms <= open < end_ms, by open time
        and number."""

    async def run(self) -> None:
        """Write batches and apply retention until cancelled."""

    def pending(self) -> int:
        """Rows not yet on disk."""

    def statistics(self) -> StoreStatistics:
        """Sizes and counts; no I/O."""


def boundaries(keep: Keep, newest_ms: int, wall_ms: float) -> dict[Interval, int]:
    """Open time before which candles of an interval may be deleted.

    Age counts back from the newest candle in the store, and never from later than our own
    calendar: neither a wrong clock nor one absurd candle deletes anything.
    """
    now = min(newest_ms, int(wall_ms))
    return {interval: int(now - length) for interval, length in keep.items()}


def merge_messages(
    stored: Sequence[KlineMessage], unwritten: Sequence[KlineMessage], limit: int
) -> list[KlineMessage] | None:
    """What :meth:`KlineStore.after` answers: each number once, ascending, the newest values."""
    found = {(m.epoch, m.offset): m for m in (*stored, *unwritten)}
    values = {m.kline.open_ms: m.kline for m in (*stored, *unwritten)}
    out = [
        evolve(m, kline=values[m.kline.open_ms], received_ms=0.0) for _, m in sorted(found.items())
    ]
    return out if len(out) <= limit else None
