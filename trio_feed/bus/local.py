"""The bus of a single process: publishers and hub in the same loop, everything in memory."""

from collections import deque
from collections.abc import Callable, Iterable

from attrs import define, evolve

from ..core.effects import CandleNews, ChannelNews, News, TradeNews
from ..model import (
    ChannelMessage,
    Kline,
    KlineMessage,
    Series,
    Source,
    StatusMessage,
    StreamKey,
    StreamState,
)
from .base import Listener, Numbered, Published, Upstream, is_torn, upstream_of

_NOTHING_TO_TELL = (StreamState.LIVE, StreamState.REPAIRED)


@define(eq=False)
class LocalStream:
    """See :class:`.base.Stream`.  ``resume_messages`` are kept at most, once somebody subscribed.

    ``connected``: a message came live, or a status other than stale.
    """

    stream_key: StreamKey
    epoch: int
    offset: int
    recent: deque[tuple[Kline, int]]
    first_ms: int | None
    resume_messages: int
    sparse: bool = False
    revisions: int = 0
    revised: tuple[int, int] = (0, 0)
    """The number of the last revision; (0, 0): none is known."""
    heard_at: float | None = None
    latest: Published | None = None
    provisional: Published | None = None
    status: StatusMessage | None = None
    connected: bool = False
    waiting: str = ""
    ring: deque[Published] | None = None
    torn_at: tuple[int, int] = (0, 0)
    """Behind this number something is missing: nothing is resumed from it, nor from before."""

    @property
    def upstream(self) -> Upstream:
        return upstream_of(self.status, self.waiting, connected=self.connected)

    def keep(self) -> None:
        if self.ring is None:
            self.ring = deque(maxlen=self.resume_messages)

    def continues(self, epoch: int, offset: int) -> bool:
        if epoch != self.epoch or offset > self.offset or (epoch, offset) <= self.torn_at:
            return False
        if offset == self.offset:
            return True
        return (
            bool(self.ring) and self.ring is not None and self.ring[0].message.offset <= offset + 1
        )

    def after(self, epoch: int, offset: int) -> list[Published]:
        if epoch > self.epoch:
            return []
        least = offset if epoch == self.epoch else 0
        return [kept for kept in self.ring or () if kept.message.offset > least]

    def begin(self, epoch: int) -> None:
        """Its numbers are of that epoch from now on."""
        self.epoch, self.offset = epoch, 0
        if self.ring is not None:
            self.ring.clear()

    def note(self, published: Published) -> None:
        """A numbered message."""
        message = published.message
        self.offset = message.offset
        if self.ring is not None:
            self.ring.append(published)
        if isinstance(message, KlineMessage):
            self._note_candle(message, published)
        else:
            self.latest = published
            self.connected = True

    def note_status(self, status: StatusMessage) -> None:
        if is_torn(status):
            self.torn_at = self.epoch, self.offset
        self.status = None if status.state in _NOTHING_TO_TELL else status
        self.connected |= status.state is not StreamState.STALE
        self.waiting = ""  # the newer of the two is said: the list, or the connection

    def _note_candle(self, message: KlineMessage, published: Published) -> None:
        kline = message.kline
        if kline.source is not Source.BACKFILL:  # which comes by REST, whatever the stream does
            self.connected = True
        if message.revision:
            self.revised = message.epoch, message.offset
            self._revise(kline, message.update_count)
            return
        ahead = self.provisional
        if ahead is not None and _open_ms(ahead) <= kline.open_ms:
            self.provisional = None
        if not kline.closed:
            self.latest = published
            return
        self.recent.append((kline, message.update_count))
        self.latest = None
        if self.first_ms is None:
            self.first_ms = kline.open_ms

    def _revise(self, kline: Kline, update_count: int) -> None:
        self.revisions += 1
        for at in range(len(self.recent) - 1, -1, -1):
            if self.recent[at][0].open_ms <= kline.open_ms:
                if self.recent[at][0].open_ms == kline.open_ms:
                    self.recent[at] = (kline, update_count)
                return


class LocalBus:
    """Publisher and reader in one, see :mod:`.base`.

    ``epoch`` is the store's: larger at each start; or what says it of a stream key that is opened.
    Inside of it a stream key's offsets go on even when it is closed and opened again.
    ``history_rows`` closed candles are kept per series, and the last ``resume_messages`` messages
    of each stream key that somebody subscribed to.
    """

    def __init__(
        self,
        *,
        epoch: int | Callable[[StreamKey], int],
        history_rows: int,
        resume_messages: int,
        now_ms: Callable[[], float],
    ) -> None:
        self._epoch = epoch
        self._history_rows, self._resume_messages = history_rows, resume_messages
        self._now_ms = now_ms
        self._streams: dict[StreamKey, LocalStream] = {}
        self._offsets: dict[StreamKey, tuple[int, int]] = {}
        """Where the numbers of closed stream keys ended."""
        self._aliases: dict[str, str] = {}
        self._listeners: list[Listener] = []

    def __repr__(self) -> str:
        return f"<LocalBus {len(self._streams)} stream keys>"

    # Reader

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)
        for stream in self._streams.values():
            listener.opened(stream)
        for native, symbol in self._aliases.items():
            listener.aliased(native, symbol)

    def begin(self, stream_keys: Iterable[StreamKey], epoch: int) -> None:
        """These are numbered anew, in that epoch."""
        for stream_key in stream_keys:
            if (stream := self._streams.get(stream_key)) is not None:
                stream.begin(epoch)

    def say_again(self, message: Numbered) -> Numbered:
        """Hand out, under the next number, what was numbered in another epoch and kept since."""
        key = message.series if isinstance(message, KlineMessage) else message.key
        stream = self._streams[key]
        stream.offset += 1
        again = evolve(message, epoch=stream.epoch, offset=stream.offset)
        if isinstance(again, KlineMessage) and again.revision:
            stream.revised = again.epoch, again.offset
        self._hand_out(stream, Published(again, self._now_ms()))
        return again

    # Publisher

    def open(
        self,
        stream_key: StreamKey,
        history: Iterable[Kline] = (),
        first_ms: int | None = None,
        *,
        sparse: bool = False,
    ) -> None:
        if stream_key in self._streams:
            return
        epoch = self._epoch(stream_key) if callable(self._epoch) else self._epoch
        before = self._offsets.pop(stream_key, (0, 0))
        stream = self._streams[stream_key] = LocalStream(
            stream_key,
            epoch,
            before[1] if before[0] == epoch else 0,
            deque(((kline, 1) for kline in history), self._history_rows),
            first_ms,
            self._resume_messages,
            sparse,
        )
        for listener in self._listeners:
            listener.opened(stream)

    def close(self, stream_key: StreamKey) -> None:
        stream = self._streams.pop(stream_key, None)
        if stream is None:
            return
        self._offsets[stream_key] = stream.epoch, stream.offset
        for listener in self._listeners:
            listener.closed(stream)

    def alias(self, native: str, symbol: str) -> None:
        self._aliases[native] = symbol
        for listener in self._listeners:
            listener.aliased(native, symbol)

    def set_waiting(self, venue: str, symbol: str, problem: str) -> None:
        for stream_key, stream in self._streams.items():
            if stream_key.venue == venue and stream_key.symbol == symbol:
                stream.waiting = problem
                self._describe(stream)

    def deepen(self, series: Series, first_ms: int) -> None:
        stream = self._streams.get(series)
        if stream is not None and (stream.first_ms is None or first_ms < stream.first_ms):
            stream.first_ms = first_ms
            self._describe(stream)

    def publish(self, news: News, *, ephemeral: bool = False) -> Numbered | None:
        if ephemeral:
            self._pass_on(news)
            return None
        if isinstance(news, StatusMessage):
            stream = self._streams[news.stream_key]
            stream.note_status(news)
            for listener in self._listeners:
                listener.status_changed(stream, news)
            return None
        if isinstance(news, TradeNews):
            self._publish_trades(news)
            return None
        stream = self._streams[_stream_key(news)]
        if isinstance(news, CandleNews) and news.provisional:
            stream.connected = True
            shown = stream.provisional = self._shown(stream, news)
            self._hand_out(stream, shown)
            return None
        message = _numbered(news, stream.epoch, stream.offset + 1)
        self._keep(stream, Published(message, self._now_ms()))
        return message

    def _publish_trades(self, news: TradeNews) -> None:
        """Each gets its number; only where somebody has subscribed, or for who comes next, there is
        a message of it."""
        stream = self._streams[news.key]
        offset, sent_ms = stream.offset, self._now_ms()
        trades = news.trades
        if stream.ring is None:
            offset += len(trades) - 1
            trades = trades[-1:]
        for trade in trades:
            offset += 1
            message = ChannelMessage(
                news.key, trade, news.source, stream.epoch, offset, news.received_ms
            )
            self._keep(stream, Published(message, sent_ms))

    def _keep(self, stream: LocalStream, published: Published) -> None:
        stream.note(published)
        self._hand_out(stream, published)

    def _pass_on(self, news: News) -> None:
        if isinstance(news, StatusMessage | TradeNews):
            return
        stream = self._streams.get(_stream_key(news))
        if stream is not None:
            self._hand_out(stream, self._shown(stream, news))

    def _shown(self, stream: LocalStream, news: CandleNews | ChannelNews) -> Published:
        provisional = isinstance(news, CandleNews) and news.provisional
        message = _numbered(news, stream.epoch, stream.offset)
        return Published(message, self._now_ms(), ephemeral=True, provisional=provisional)

    def _hand_out(self, stream: LocalStream, published: Published) -> None:
        for listener in self._listeners:
            listener.published(stream, published)

    def _describe(self, stream: LocalStream) -> None:
        for listener in self._listeners:
            listener.described(stream)


def _stream_key(news: CandleNews | ChannelNews) -> StreamKey:
    return news.series if isinstance(news, CandleNews) else news.key


def _numbered(news: CandleNews | ChannelNews, epoch: int, offset: int) -> Numbered:
    if isinstance(news, ChannelNews):
        return ChannelMessage(news.key, news.data, news.source, epoch, offset, news.received_ms)
    return KlineMessage(
        news.series,
        news.kline,
        epoch,
        offset,
        news.update_count,
        news.received_ms,
        news.revision,
        news.after_ms,
        news.provisional,
    )


def _open_ms(published: Published) -> int:
    assert isinstance(published.message, KlineMessage), "only candles are provisional"
    return published.message.kline.open_ms
