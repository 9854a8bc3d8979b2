"""How a stream key's upstream stands, as clients see it, when it depends on several streams."""

from support.engine import BOOKS, CANDLES, TICKERS, TRADES
from support.make import SERIES

from trio_feed.core.status import StreamStatus
from trio_feed.core.streams import Stream
from trio_feed.model import Channel, ChannelKey, StatusMessage, StreamState

TICKER = ChannelKey("binance_usdm", "BTCUSDT", Channel.TICKER)
TOPS = BOOKS
LIVE, STALE = StreamState.LIVE, StreamState.STALE
REPAIRING, REPAIRED = StreamState.REPAIRING, StreamState.REPAIRED


def flowing() -> StreamStatus:
    """Candles on one stream, a ticker on two; all of them flowed."""
    status = StreamStatus({CANDLES: [SERIES], TICKERS: [TICKER], TOPS: [TICKER]})
    assert status.flows(CANDLES, {}) == [StatusMessage(SERIES, LIVE)]
    assert status.flows(TICKERS, {}) == [StatusMessage(TICKER, LIVE)]
    assert status.flows(TOPS, {}) == []  # told already
    return status


def states(found: list[StatusMessage]) -> list[StreamState]:
    return [message.state for message in found]


def test_a_stream_is_lost_and_flows_again() -> None:
    status = flowing()
    assert status.lost(CANDLES, "gone") == [StatusMessage(SERIES, STALE, "gone")]
    assert status.lost(CANDLES, "gone") == []
    assert status.flows(CANDLES, {}) == [StatusMessage(SERIES, LIVE)]


def test_what_was_missed_is_told_with_its_times() -> None:
    status = flowing()
    status.lost(CANDLES, "gone")
    span = (60, 180)
    assert status.missing(SERIES) is None
    assert status.flows(CANDLES, {SERIES: span}) == [StatusMessage(SERIES, REPAIRING, "", 60, 180)]
    assert status.missing(SERIES) == span
    assert status.reached(SERIES, 179) == []
    assert status.reached(SERIES, 180) == [StatusMessage(SERIES, REPAIRED, "", 60, 180)]
    assert status.missing(SERIES) is None


def test_a_key_of_two_streams_is_stale_while_one_of_them_is() -> None:
    status = flowing()
    assert states(status.lost(TICKERS, "one")) == [STALE]
    assert status.lost(TOPS, "other") == []
    assert status.flows(TICKERS, {}) == []
    assert states(status.flows(TOPS, {})) == [LIVE]


def test_a_connection_that_is_back_tells_that_it_repairs_and_nothing_else() -> None:
    status = flowing()
    status.lost(CANDLES, "gone")
    assert status.up(CANDLES, {}) == []
    assert status.up(CANDLES, {SERIES: None}) == []
    assert status.up(CANDLES, {SERIES: (1, 2)}) == [StatusMessage(SERIES, REPAIRING, "", 1, 2)]
    fresh = StreamStatus({CANDLES: [SERIES]})
    assert fresh.up(CANDLES, {SERIES: (1, 2)}) == []
    assert fresh.missing(SERIES) is None
    # It begins here: what is fetched before it is history, and no repair.
    assert fresh.flows(CANDLES, {SERIES: (1, 2)}) == [StatusMessage(SERIES, LIVE)]
    assert fresh.missing(SERIES) is None


def test_what_was_lost_before_it_ever_flowed_is_not_told() -> None:
    status = StreamStatus({CANDLES: [SERIES]})
    assert status.lost(CANDLES, "gone") == []
    assert states(status.flows(CANDLES, {})) == [LIVE]
    assert states(status.lost(CANDLES, "gone")) == [STALE]


def test_a_hole_that_nobody_has() -> None:
    status = flowing()
    (message,) = status.hole(SERIES, (60, 120))
    assert (message.state, message.first_ms, message.last_ms) == (
        StreamState.UNREPAIRABLE, 60, 120,
    )  # fmt: skip
    assert message.reason
    status.lost(CANDLES, "gone")
    status.flows(CANDLES, {SERIES: (180, 300)})
    assert status.hole(SERIES, (180, 240)) == []
    (message,) = status.reached(SERIES, 300)
    assert (message.state, message.first_ms, message.last_ms) == (
        StreamState.UNREPAIRABLE, 180, 240,
    )  # fmt: skip


def test_a_hole_is_told_before_anything_flows_where_there_may_be_subscribers_of_before() -> None:
    status = StreamStatus({CANDLES: [SERIES]})
    assert status.hole(SERIES, (60, 120)) == []
    status.go_on([SERIES])
    (message,) = status.hole(SERIES, (60, 120))
    assert message.state is StreamState.UNREPAIRABLE
    assert states(status.flows(CANDLES, {})) == [LIVE]


def test_what_is_not_known_says_nothing() -> None:
    status = flowing()
    stranger = Stream("x", "y", "BTCUSDT", TRADES.kind)
    other = ChannelKey("binance_usdm", "ETHUSDT", Channel.TRADE)
    assert status.lost(stranger, "gone") == status.flows(stranger, {}) == []
    assert status.up(stranger, {}) == []
    assert status.missing(other) is None
    assert status.reached(other, 1) == status.hole(other, (1, 2)) == []
