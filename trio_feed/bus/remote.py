"""The bus of a node that reads what another process publishes: streams made of items of the wire.

Epoch and offset are the publisher's, so that a client may resume at any node.  What nobody
subscribed to is only numbered here: its values stay bytes until somebody wants them.
"""

from collections.abc import Callable, Iterable, Sequence

from ..core.sequence import is_before
from ..model import (
    ChannelKey,
    ChannelMessage,
    KlineMessage,
    StatusMessage,
    StreamKey,
    StreamState,
    Trade,
)
from . import wire
from .base import EVENTS, Listener
from .remote_stream import Hearing, RemoteStream

_BEGINS = "the node that feeds it now connects"
_LOST = "its feed began anew, at this node or another; what came between is not known"
_FORGOT = "the engine lost a part of its log; what came between is not known"
_NOT_READ = "this node could not read a part of the engine's log; what came between is not known"
_NOT_STORED = "the store does not have what this node missed"
_NOT_CORRECTED = "a closed candle was corrected, and the store does not have it"


class OutOfStep(Exception):
    """Something is missing in what came: this node cannot go on."""


class RemoteBus:
    """The :class:`.base.Reader` of such a node.  ``tell_kept(stream)``, with the publisher's number
    of it, asks that all nodes keep a stream's messages from now on.

    ``repairs``: what is missing before a candle is asked of the store by the caller
    (:attr:`waiting`, :meth:`repair`); else it ends the node."""

    def __init__(
        self,
        *,
        history_rows: int,
        resume_messages: int,
        tell_kept: Callable[[int], None],
        now: Callable[[], float],
        repairs: bool = False,
    ) -> None:
        self._history_rows, self._resume_messages = history_rows, resume_messages
        self._tell_kept, self._now, self._repairs = tell_kept, now, repairs
        self._streams: dict[int, RemoteStream] = {}
        """By the publisher's numbers."""
        self._numbers: dict[RemoteStream, int] = {}
        self._aliases: dict[str, str] = {}
        self._listeners: list[Listener] = []
        self._waiting: dict[RemoteStream, None] = {}
        self._last_trades: dict[RemoteStream, Trade] = {}
        """Of trades: what was handed out before another node took over."""
        self._hearing = Hearing()
        self._silent: dict[RemoteStream, StatusMessage | None] = {}
        """How they stood when the publisher fell silent."""

    def __repr__(self) -> str:
        return f"<RemoteBus {len(self._streams)} stream keys>"

    @property
    def streams(self) -> Sequence[RemoteStream]:
        return list(self._streams.values())

    @property
    def waiting(self) -> Sequence[RemoteStream]:
        """Series whose guard misses something."""
        return list(self._waiting)

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)
        for stream in self._streams.values():
            listener.opened(stream)
        for native, symbol in self._aliases.items():
            listener.aliased(native, symbol)

    def take(self, items: Iterable[wire.Item]) -> None:
        """What came, in order.  Raises OutOfStep where something before it is missing, KeyError
        for a stream that was not opened."""
        for item in items:
            match item:
                case wire.Candle():
                    self._take_candle(item)
                case wire.Line():
                    self._take_line(item)
                case wire.Status():
                    self._take_status(item)
                case wire.Opened():
                    self._open(item)
                case wire.Closed(stream):
                    self._close(self._streams[stream])
                case wire.Aliased():
                    self._alias(item)
                case wire.Described():
                    self._describe(item)
                case wire.Kept(stream):
                    self._streams[stream].start_ring()
                case wire.Checkpoint():
                    self._compare(item)

    def repair(self, stream: RemoteStream, rows: Iterable[KlineMessage]) -> None:
        """All that was published of what is missing of a series, ascending."""
        number = self._numbers.get(stream)
        if number is None:
            return  # closed meanwhile
        items = [wire.sent(number, row, self._now() * 1000) for row in rows]
        candles = [item for item in items if isinstance(item, wire.Candle)]
        for each in stream.guard.settle(candles, self._now()):
            self._hand_out(stream, each)
        self._note_waiting(stream)

    def give_up(self, stream: RemoteStream) -> None:
        """The store lacks what is missing of a series: it goes on, and listeners hear of it.  Who
        comes back with a number of before asks the store, which may have it by then."""
        missing = stream.guard.missing
        if missing is None or stream not in self._numbers:
            return
        waited = stream.guard.give_up(self._now())
        until_ms = waited[0].after_ms if waited else missing.until_ms
        first_ms: int | None = missing.after_ms + 1
        last_ms, reason = until_ms, _NOT_STORED
        if until_ms == missing.after_ms:
            first_ms = last_ms = None
            reason = _NOT_CORRECTED
        key = stream.stream_key
        self._tell(stream, StatusMessage(key, StreamState.UNREPAIRABLE, reason, first_ms, last_ms))
        stream.tear()
        for each in waited:
            self._hand_out(stream, each)
        self._note_waiting(stream)

    def fall_silent(self, reason: str) -> None:
        """Nothing comes of the publisher: say so of every stream.  Whatever comes next ends it."""
        if self._silent:
            return
        before = {stream: stream.status for stream in self._streams.values()}
        for stream in before:
            self._tell(stream, StatusMessage(stream.stream_key, StreamState.STALE, reason))
        self._silent = before

    def is_heard(self) -> None:
        """Something came of the publisher."""
        self._hearing.at = self._now()
        silent, self._silent = self._silent, {}
        for stream, status in silent.items():
            if stream in self._numbers:
                again = StatusMessage(stream.stream_key, StreamState.LIVE)
                self._tell(stream, again if status is None else status)

    # What comes

    def _open(self, item: wire.Opened) -> RemoteStream:
        stream = RemoteStream(
            item.stream_key,
            item.epoch,
            item.offset,
            self._history_rows,
            self._resume_messages,
            lambda kept: self._tell_kept(self._numbers[kept]),
            self._hearing,
        )
        stream.restore(item)
        self._streams[item.stream], self._numbers[stream] = stream, item.stream
        key = stream.stream_key
        if self._repairs and isinstance(key, ChannelKey) and key.channel in EVENTS:
            stream.start_ring()  # clients of other nodes may come and want to go on
        for listener in self._listeners:
            listener.opened(stream)
        return stream

    def _close(self, stream: RemoteStream) -> None:
        del self._streams[self._numbers.pop(stream)]
        self._waiting.pop(stream, None)
        self._last_trades.pop(stream, None)
        for listener in self._listeners:
            listener.closed(stream)

    def _alias(self, item: wire.Aliased) -> None:
        self._aliases[item.native] = item.symbol
        for listener in self._listeners:
            listener.aliased(item.native, item.symbol)

    def _describe(self, item: wire.Described) -> None:
        stream = self._streams[item.stream]
        stream.first_ms, stream.waiting = item.first_ms, item.waiting
        for listener in self._listeners:
            listener.described(stream)

    def _take_status(self, item: wire.Status) -> None:
        stream = self._streams[item.stream]
        self._tell(stream, wire.status_of(stream.stream_key, item))

    def _tell(self, stream: RemoteStream, status: StatusMessage) -> None:
        self._silent.pop(stream, None)
        stream.note_status(status)
        for listener in self._listeners:
            listener.status_changed(stream, status)

    def _take_candle(self, item: wire.Candle) -> None:
        stream = self._streams[item.stream]
        for each in stream.guard.take(item, self._now()):
            self._hand_out(stream, each)
        self._note_waiting(stream)

    def _note_waiting(self, stream: RemoteStream) -> None:
        missing = stream.guard.missing
        if missing is None:
            if self._waiting:
                self._waiting.pop(stream, None)
        elif self._repairs:
            self._waiting[stream] = None
        else:
            where = f"a candle up to {missing.until_ms}"
            raise OutOfStep(f"{stream.stream_key}: {where} is missing")

    def _take_line(self, item: wire.Line) -> None:
        stream = self._streams[item.stream]
        if self._last_trades and (last := self._last_trades.get(stream)) is not None:
            message = wire.message_of(stream.stream_key, item)
            assert isinstance(message, ChannelMessage), "the stream is a line"
            if isinstance(message.data, Trade) and is_before(message.data, last):
                stream.pass_over(item)
                return
            del self._last_trades[stream]
        self._hand_out(stream, item)

    def _hand_out(self, stream: RemoteStream, item: wire.Sent) -> None:
        published = stream.published(item)
        stream.note(item, published)
        for listener in self._listeners:
            listener.published(stream, published)

    # Checkpoints

    def _compare(self, item: wire.Checkpoint) -> None:
        """How the publisher's streams stand, and how they stand here."""
        known: dict[StreamKey, RemoteStream] = {
            stream.stream_key: stream for stream in self._numbers
        }
        if item.opening:  # its numbers of streams are another node's
            self._streams = {}
            self._numbers = dict.fromkeys(self._numbers, -1)
        for alias in item.aliases:
            if self._aliases.get(alias.native) != alias.symbol:
                self._alias(alias)
        for opened in item.streams:
            stream = known.pop(opened.stream_key, None)
            if stream is None:
                stream = self._open(opened)
                continue
            self._streams[opened.stream], self._numbers[stream] = stream, opened.stream
            if item.opening:
                self._follow(stream, opened, item)
            self._stand(stream, opened)
        for stream in known.values():
            if item.opening:
                self._numbers[stream] = _GONE
                self._streams[_GONE] = stream
            self._close(stream)

    def _follow(self, stream: RemoteStream, opened: wire.Opened, item: wire.Checkpoint) -> None:
        """Another epoch begins."""
        before = item.before.get(opened.stream, (0, 0))
        reason = _FORGOT if before < stream.number else _NOT_READ
        whole = before == stream.number
        if whole:
            reason = _LOST
        else:
            stream.forget_ring()
        key = stream.stream_key
        if not isinstance(key, ChannelKey):
            return
        latest = None if stream.latest is None else stream.latest.message
        if isinstance(latest, ChannelMessage) and isinstance(latest.data, Trade):
            self._last_trades[stream] = latest.data
        stream.epoch, stream.offset = opened.epoch, opened.offset
        if key.channel in EVENTS and (opened.stream in item.lost or not whole):
            since = None if latest is None else int(latest.received_ms)
            self._tell(stream, StatusMessage(key, StreamState.UNREPAIRABLE, reason, since, None))

    def _stand(self, stream: RemoteStream, opened: wire.Opened) -> None:
        """A node that is ahead of a log that forgot keeps its number until the log is there."""
        if opened.is_series and opened.recent:
            closed_ms = wire.candle_of(opened.recent[-1][0]).open_ms
            if stream.guard.closed_ms is None:
                stream.guard.closed_ms = closed_ms
            number = opened.epoch, opened.offset
            stream.guard.want(closed_ms, number, self._now(), opened.revised)
            self._note_waiting(stream)
            waits = stream.guard.missing is not None
            if not waits and stream.guard.closed_ms == closed_ms and stream.number < number:
                stream.epoch, stream.offset = number
                stream.guard.number = number
                stream.note_latest(opened)
        if stream.describe_again(opened):
            for listener in self._listeners:
                listener.described(stream)
        status = None if opened.status is None else wire.status_of(stream.stream_key, opened.status)
        if status is None and not opened.connected and not opened.waiting:
            status = StatusMessage(stream.stream_key, StreamState.STALE, _BEGINS)
        if stream in self._silent:
            self._silent[stream] = status
        elif status != stream.status:
            self._tell(stream, status or StatusMessage(stream.stream_key, StreamState.LIVE))


_GONE = -1
"""The number of a stream that the new owner does not have."""
