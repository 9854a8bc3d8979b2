"""The local bus: who gives the numbers, what is kept, what leaves no trace."""

from typing import Any

import pytest
from attrs import define, evolve, field
from support.make import MINUTE, SERIES, T0, kline, trade

from trio_feed.bus.base import Published, Stream, Upstream
from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import CandleNews, ChannelNews
from trio_feed.model import Channel, ChannelKey, KlineMessage, Source, StatusMessage, StreamState

TRADES = ChannelKey("binance_usdm", "BTCUSDT", Channel.TRADE)


@define(eq=False)
class Node:
    """What one node's hub hears."""

    heard: list[Any] = field(factory=list)
    streams: dict[Any, Stream] = field(factory=dict)

    def opened(self, stream: Stream) -> None:
        self.heard.append(("opened", stream.stream_key))
        self.streams[stream.stream_key] = stream

    def closed(self, stream: Stream) -> None:
        self.heard.append(("closed", stream.stream_key))

    def aliased(self, native: str, symbol: str) -> None:
        self.heard.append((native, symbol))

    def published(self, stream: Stream, published: Published) -> None:
        mark = "ephemeral" if published.ephemeral else "numbered"
        self.heard.append((mark, published.message.offset))

    def status_changed(self, stream: Stream, status: StatusMessage) -> None:
        self.heard.append(status)

    def described(self, stream: Stream) -> None:
        self.heard.append(("described", stream.stream_key))


def made(**more: int) -> tuple[LocalBus, Node]:
    bus, node = LocalBus(epoch=7, now_ms=lambda: 5.0, **LIMITS | more), Node()
    bus.listen(node)
    bus.open(SERIES)
    return bus, node


LIMITS = {"history_rows": 3, "resume_messages": 4}


def candle(n: int, *, closed: bool = True, close: str = "100.50", **more: Any) -> CandleNews:
    return CandleNews(SERIES, kline(T0 + n * MINUTE, close, closed=closed), 1, 1.0, **more)


def status(state: StreamState, reason: str = "") -> StatusMessage:
    return StatusMessage(SERIES, state, reason)


def test_numbers_are_given_here_and_returned() -> None:
    bus, node = made()
    bus.open(TRADES)
    first = bus.publish(candle(0, closed=False))
    second = bus.publish(candle(0, after_ms=T0 - MINUTE))
    line = bus.publish(ChannelNews(TRADES, trade(1, T0), Source.EXCHANGE, 1.0))
    assert [(m.epoch, m.offset) for m in (first, second, line) if m] == [(7, 1), (7, 2), (7, 1)]
    assert isinstance(second, KlineMessage)
    assert second.after_ms == T0 - MINUTE
    assert [h for h in node.heard if h[0] == "numbered"] == [("numbered", n) for n in (1, 2, 1)]


def test_a_subject_that_comes_back_goes_on_counting() -> None:
    bus, node = made()
    bus.publish(candle(0))
    bus.close(SERIES)
    bus.close(SERIES)
    with pytest.raises(KeyError):
        bus.publish(candle(1))
    bus.publish(candle(1), ephemeral=True)
    bus.open(SERIES, [kline(T0)], T0)
    assert node.streams[SERIES].offset == 1
    assert node.streams[SERIES].upstream.state == "never_connected"
    again = bus.publish(candle(1))
    assert again is not None
    assert again.offset == 2
    assert [h[0] for h in node.heard] == ["opened", "numbered", "closed", "opened", "numbered"]


def test_what_is_open_already_stays_as_it_is() -> None:
    bus, node = made()
    bus.publish(candle(0))
    bus.open(SERIES, [], None)
    assert [kline.open_ms for kline, _ in node.streams[SERIES].recent] == [T0]


def test_who_listens_later_hears_what_is_there() -> None:
    bus, _ = made()
    bus.alias("BTC-USDT", "BTCUSDT")
    late = Node()
    bus.listen(late)
    assert late.heard == [("opened", SERIES), ("BTC-USDT", "BTCUSDT")]


def test_a_provisional_candle_has_no_number_and_stays_until_it_is_caught_up_with() -> None:
    bus, node = made()
    stream = node.streams[SERIES]
    stream.keep()
    bus.publish(candle(0))
    assert bus.publish(candle(2, closed=False, provisional=True)) is None
    assert node.heard[-1] == ("ephemeral", 1)
    assert stream.provisional is not None
    assert stream.provisional.message.kline.open_ms == T0 + 2 * MINUTE  # type: ignore[union-attr]
    assert (stream.latest, stream.offset) == (None, 1)
    bus.publish(candle(1))
    bus.publish(candle(0, revision=True))
    assert stream.provisional is not None
    bus.publish(candle(2, closed=False))
    assert stream.provisional is None
    assert [kept.message.offset for kept in stream.after(7, 0)] == [1, 2, 3, 4]


def test_the_ring_is_bounded_and_says_how_far_it_reaches() -> None:
    bus, node = made()
    stream = node.streams[SERIES]
    bus.publish(candle(0))
    stream.keep()
    assert stream.continues(7, 1)
    assert not stream.continues(7, 0)
    for n in range(1, 7):
        bus.publish(candle(n))
    assert [stream.continues(7, offset) for offset in (2, 3, 7, 8)] == [False, True, True, False]
    assert not stream.continues(6, 3)
    assert [kept.message.offset for kept in stream.after(7, 4)] == [5, 6, 7]


@pytest.mark.parametrize("back", [1, 3, 4, 6])
def test_a_revision_changes_what_is_kept_and_is_counted(back: int) -> None:
    """Also of a candle that is older than all that is kept."""
    bus, node = made()
    stream = node.streams[SERIES]
    for n in range(6):
        bus.publish(candle(n))
    bus.publish(candle(6 - back, close="77.00", revision=True))
    assert stream.revisions == 1
    closes = [str(row.close) for row, _ in stream.recent]
    assert closes == ["77.00" if 6 - back == n else "100.50" for n in (3, 4, 5)]


def test_never_connected_until_something_came_and_the_words_are_remembered() -> None:
    bus, node = made()
    stream = node.streams[SERIES]
    assert stream.upstream == Upstream("never_connected", "nothing has come from its source yet")
    bus.publish(status(StreamState.STALE, "the proxy refuses"))
    assert stream.upstream == Upstream("never_connected", "the proxy refuses")
    assert stream.status is not None
    bus.publish(status(StreamState.LIVE))
    assert (stream.upstream, stream.status) == (Upstream("live"), None)
    bus.publish(status(StreamState.STALE, "silence"))
    assert stream.upstream == Upstream("stale", "silence")
    bus.publish(candle(0))
    assert stream.upstream == Upstream("stale", "silence")
    bus.publish(status(StreamState.REPAIRING))
    assert stream.upstream == Upstream("live")


@pytest.mark.parametrize(
    ("source", "state"), [(Source.EXCHANGE, "live"), (Source.BACKFILL, "never_connected")]
)
def test_what_was_fetched_says_nothing_about_the_stream(source: Source, state: str) -> None:
    bus, node = made()
    news = candle(0)
    bus.publish(evolve(news, kline=evolve(news.kline, source=source)))
    assert node.streams[SERIES].upstream.state == state


def test_what_is_shown_only_says_nothing_either() -> None:
    bus, node = made()
    bus.publish(candle(0), ephemeral=True)
    bus.publish(status(StreamState.STALE), ephemeral=True)
    stream = node.streams[SERIES]
    assert node.heard == [("opened", SERIES), ("ephemeral", 0)]
    assert (stream.offset, list(stream.recent), stream.upstream.state, stream.status) == (
        0, [], "never_connected", None,
    )  # fmt: skip


def test_waiting_until_something_says_more() -> None:
    bus, node = made()
    stream = node.streams[SERIES]
    bus.set_waiting(SERIES.venue, "ANOTHER", "not in the venue's list")
    bus.set_waiting("another", SERIES.symbol, "not in the venue's list")
    assert stream.upstream.state == "never_connected"
    bus.set_waiting(SERIES.venue, SERIES.symbol, "not in the venue's list")
    assert stream.upstream == Upstream("waiting", "not in the venue's list")
    bus.publish(status(StreamState.STALE, "the proxy refuses"))
    assert stream.upstream == Upstream("never_connected", "the proxy refuses")
    bus.set_waiting(SERIES.venue, SERIES.symbol, "not trading")  # known again: it was connected
    assert stream.upstream == Upstream("waiting", "not trading")
    bus.set_waiting(SERIES.venue, SERIES.symbol, "")
    assert stream.upstream.state == "never_connected"
    bus.set_waiting(SERIES.venue, SERIES.symbol, "not trading")
    bus.publish(candle(0))
    assert stream.upstream.state != "waiting"
