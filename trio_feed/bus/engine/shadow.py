"""What a node would have said of shards that others own, kept for a takeover without a question.

A node in hot standby feeds all shards.  Of those that it does not own its bus numbers messages that
go nowhere; here the last minute of closed candles and of events is kept.  Who takes a shard over
says what follows the end of its log, if that is here without a hole.
"""

from collections import deque
from collections.abc import Callable, MutableSequence, Sequence

from attrs import define, field, frozen

from ...core.sequence import is_before
from ...model import (
    Channel,
    ChannelKey,
    ChannelMessage,
    KlineMessage,
    Series,
    StatusMessage,
    StreamKey,
    Trade,
)
from ..base import EVENTS, Numbered, Published, Stream, is_torn

_KEEP_S = 60.0
_MOST = 5_000
"""Of one stream."""


def _nothing_told(venue: str, symbol: str) -> Trade | None:
    return None


@frozen
class _Kept:
    message: Numbered
    at: float


@define(eq=False)
class Shadow:
    """A listener of the local bus.  ``is_owned(venue, symbol)``: it says that itself; ``now``:
    monotonic seconds; ``told(venue, symbol)``: the trade behind which its trades begin, of one that
    is opened now."""

    _is_owned: Callable[[str, str], bool]
    _now: Callable[[], float]
    _told: Callable[[str, str], Trade | None] = _nothing_told
    _kept: dict[StreamKey, deque[_Kept]] = field(factory=dict)
    _corrected: dict[StreamKey, deque[_Kept]] = field(factory=dict)
    """Revisions."""
    _behind: dict[StreamKey, Trade] = field(factory=dict)
    """The last trade before those that are kept, which are all since."""

    def candles_after(
        self, series: Series, closed_ms: int, until_ms: int
    ) -> Sequence[KlineMessage] | None:
        """The closed candles behind that one up to ``until_ms``, where the feed stands, in order;
        None: some are missing."""
        kept = [each.message for each in self._kept.get(series, ())]
        found = [m for m in kept if isinstance(m, KlineMessage) and m.kline.open_ms > closed_ms]
        last_ms = closed_ms
        for message in found:
            if message.after_ms is None or message.after_ms > last_ms:
                return None
            last_ms = message.kline.open_ms
        return found if last_ms >= until_ms else None

    def trades_after(self, key: ChannelKey, last: Trade) -> Sequence[ChannelMessage] | None:
        """The trades behind that one, in order; None: some may be missing."""
        kept = [each.message for each in self._kept.get(key, ())]
        trades = [m for m in kept if isinstance(m, ChannelMessage) and isinstance(m.data, Trade)]
        found = [m for m in trades if not is_before(m.data, last)]  # type: ignore[arg-type]
        behind = self._behind.get(key)
        reaches_back = (
            len(found) < len(trades)
            or (behind is not None and is_before(behind, last))
            or (bool(found) and found[0].data.trade_id == last.trade_id + 1)  # type: ignore[union-attr]
        )
        return found if reaches_back else None

    def corrections(self, series: Series) -> Sequence[KlineMessage]:
        """Revisions of the last minute, in order.  The owner may have said them too."""
        since = self._now() - _KEEP_S
        kept = [each.message for each in self._corrected.get(series, ()) if each.at >= since]
        return [message for message in kept if isinstance(message, KlineMessage)]

    # From the bus

    def opened(self, stream: Stream) -> None:
        key = stream.stream_key
        self._forget(key)
        if isinstance(key, ChannelKey) and key.channel is Channel.TRADE:
            self._begin_behind(key, self._told(key.venue, key.symbol))

    def closed(self, stream: Stream) -> None:
        self._forget(stream.stream_key)

    def aliased(self, native: str, symbol: str) -> None: ...

    def described(self, stream: Stream) -> None: ...

    def status_changed(self, stream: Stream, status: StatusMessage) -> None:
        if is_torn(status):  # what is here does not reach back over that
            self._kept.pop(stream.stream_key, None)
            self._behind.pop(stream.stream_key, None)

    def published(self, stream: Stream, published: Published) -> None:
        key = stream.stream_key
        if published.ephemeral:
            return
        if isinstance(key, ChannelKey) and key.channel not in EVENTS:
            return
        message = published.message
        if self._is_owned(key.venue, key.symbol):
            self._forget(key)
            self._begin_behind(key, message.data if isinstance(message, ChannelMessage) else None)
            return
        if isinstance(message, KlineMessage) and not message.kline.closed:
            return
        if isinstance(message, KlineMessage) and message.revision:
            self._revise(self._kept.get(key, []), message)
            self._keep(self._corrected, key, message)
            return
        self._keep(self._kept, key, message)

    def _keep(
        self, those: dict[StreamKey, deque[_Kept]], key: StreamKey, message: Numbered
    ) -> None:
        kept, now = those.setdefault(key, deque()), self._now()
        kept.append(_Kept(message, now))
        while len(kept) > 1 and (kept[0].at < now - _KEEP_S or len(kept) > _MOST):
            gone = kept.popleft().message
            self._begin_behind(key, gone.data if isinstance(gone, ChannelMessage) else None)

    def _begin_behind(self, key: StreamKey, told: object) -> None:
        if isinstance(told, Trade):
            self._behind[key] = told

    def _forget(self, key: StreamKey) -> None:
        self._kept.pop(key, None)
        self._corrected.pop(key, None)
        self._behind.pop(key, None)

    def _revise(self, kept: MutableSequence[_Kept], revision: KlineMessage) -> None:
        for place, each in enumerate(kept):
            message = each.message
            same = isinstance(message, KlineMessage) and (
                message.kline.open_ms == revision.kline.open_ms
            )
            if same:
                kept[place] = _Kept(_with_values(message, revision), each.at)  # type: ignore[arg-type]


def _with_values(message: KlineMessage, revision: KlineMessage) -> KlineMessage:
    return KlineMessage(
        message.series,
        revision.kline,
        message.epoch,
        message.offset,
        message.update_count,
        message.received_ms,
        after_ms=message.after_ms,
    )
