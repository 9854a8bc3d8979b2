"""Whatever a client sends to a dialect is answered in the form of it, and raises nothing."""

import json
from collections.abc import Mapping
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.dialect import SOURCE, Desk
from support.stack import open_stack, settings_for_tests
from test_server import KEY, UPGRADE, get, until_closed
from trio.testing import MockClock

from trio_feed.core.effects import ChannelNews
from trio_feed.dialects.binance.control import BinanceControl
from trio_feed.dialects.binance.profile import SPOT, USDM, Profile
from trio_feed.dialects.binance.streams import Whole
from trio_feed.dialects.session import DialectSession
from trio_feed.dialects.udf.mount import udf_mount
from trio_feed.metrics import Metrics
from trio_feed.model import (
    BookTop,
    BookView,
    Channel,
    ChannelKey,
    Instrument,
    Interval,
    Series,
    Ticker,
    Trade,
)
from trio_feed.push.mounts import Question, Reply, Work

D = Decimal
ODD = [
    "", " ", "\x00", "btcusdt", "BTCUSDT", "BTCUSDT@", "é", "٣",
    "\uff11\uff12", "-1", "+1", "1e5", "0x1",
    "NaN", "9" * 25, "9" * 6000, "null", "[]", '["BTCUSDT"]', '["BTCUSDT","BTCUSDT"]', "[" * 3000,
    '{"a":1}', "1m", "1M", "1s", "%00", "\ud7ff", "𐀀", "../..", "'; drop", "\u017f", "0", "1",
    "500", "99999999999999", "1760000000000", "1760000000000000",
]  # fmt: skip
NAMES = [
    "symbol", "symbols", "interval", "limit", "startTime", "endTime", "fromId", "timeZone", "type",
    "windowSize", "pair", "contractType", "permissions", "x",
]  # fmt: skip
QUERY = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.sampled_from(ODD), st.text(max_size=20))),
    max_size=5,
)


def desk_of(profile: Profile) -> Desk:
    """A market with one message of each kind."""
    kind = "spot" if profile.spot else "perpetual"
    own = Instrument(
        profile.venue, "BTCUSDT", "BTCUSDT", kind, "BTC", "USDT", D(1), D("0.1"), D("0.1")
    )
    desk = Desk(profile, [own])
    one = D("1.0")
    told = {
        Channel.TRADE: Trade("BTCUSDT", 7, 7, 7, one, one, 1, True),
        Channel.TICKER: Ticker("BTCUSDT", one, None, one, None, one, None),
        Channel.BOOK: BookView("BTCUSDT", ((one, one),), ((one, one),), False, 1, 0),
        Channel.BBO: BookTop("BTCUSDT", None, None, one, one),
    }
    for channel, data in told.items():
        key = ChannelKey(profile.venue, "BTCUSDT", channel)
        desk.open(key)
        desk.publish(ChannelNews(key, data, SOURCE, 1.0))
    desk.open(Series(profile.venue, "BTCUSDT", Interval.M1))
    return desk


DESKS = {profile.venue: desk_of(profile) for profile in (SPOT, USDM)}


@pytest.mark.parametrize("venue", DESKS)
@settings(max_examples=150, deadline=None)
@given(st.data(), QUERY)
def test_questions_of_any_kind(venue: str, data: st.DataObject, query: Any) -> None:
    desk = DESKS[venue]
    path = data.draw(st.sampled_from(sorted(desk.answers)))
    found = desk.answers[path](Question(path, query=query))
    assert isinstance(found, Work | Reply)
    if isinstance(found, Work):
        assert 0 <= found.rows <= 60_000
        return
    answer = json.loads(found.body)
    if found.status != 200:
        assert found.status in (400, 503)
        assert isinstance(answer["code"], int)
        assert answer["code"] < 0
        assert isinstance(answer["msg"], str)
        assert len(answer["msg"]) < 400


STREAMS = st.one_of(
    st.sampled_from(
        [
            "", "@", "btcusdt", "btcusdt@", "@trade", "btcusdt@trade@", "btcusdt@depth999",
            "btcusdt@depth@0ms@", "btcusdt@kline_", "btcusdt@kline_30s", "BTCUSDT@trade",
            "!ticker@arr@", "!", "!bookTicker ", "btcusdt@ticker_9h", "btcusdt@avgPrice_",
            "\x00@trade", "é@trade", "ﬁ@trade", "a" * 70 + "@trade", "btcusdt@kline_1m\n",
            "btcusdt\n@trade", "btcusdt_perpetual@kline_1m", "_perpetual@continuousKline_1m",
        ]
    ),
    st.text(max_size=30),
    st.text("!@_btcusdklinearT0159mh", max_size=30),
)  # fmt: skip


@pytest.mark.parametrize("venue", DESKS)
@settings(max_examples=150, deadline=None)
@given(STREAMS)
def test_streams_of_any_name(venue: str, name: str) -> None:
    found = DESKS[venue].streams.find(name)
    if isinstance(found, str):
        assert found
    else:
        assert found.name == name
        parts = found.parts if isinstance(found, Whole) else [found]
        assert all(part.make() is not None for part in parts)


METRICS = Metrics()


class Client:
    """A session as its control sees it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.replies: list[str] = []
        limits = SimpleNamespace(max_subscriptions=5)
        lines = SimpleNamespace(say=lambda *_, **__: None)
        hub = SimpleNamespace(lines=lines)
        self.context = SimpleNamespace(metrics=METRICS, limits=limits, hub=hub)

    def reply(self, text: str) -> None:
        self.replies.append(text)

    def subscribe(self, name: str, *_: Any) -> None:
        if name not in self.names:
            self.names.append(name)

    def unsubscribe(self, name: str) -> bool:
        there = name in self.names
        self.names = [each for each in self.names if each != name]
        return there

    def reform(self, change: Any) -> None:
        for name in self.names:
            change(name)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "method": st.one_of(
            st.sampled_from(
                ["SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY"]
            ),
            JSON,
        ),
        "params": st.one_of(st.lists(st.one_of(STREAMS, JSON), max_size=8), JSON),
        "id": JSON,
    },
)


@pytest.mark.parametrize("venue", DESKS)
@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        REQUEST.map(json.dumps), JSON.map(json.dumps), st.text(max_size=50), st.binary(max_size=50)
    )
)
@example("[" * 100_000)
@example('{"method":"SUBSCRIBE","params":' + "[" * 50_000)
@example('{"method":"SUBSCRIBE","params":["' + "a" * 60_000 + '"],"id":1}')
@example('{"method":"LIST_SUBSCRIPTIONS","id":99999999999999999999999999}')
@example('{"method":"LIST_SUBSCRIPTIONS","id":"\\ud800"}')
@example(b"\xff\xfe")
def test_requests_of_any_form(venue: str, text: str | bytes) -> None:
    client = Client()
    session = cast(DialectSession, client)
    control = BinanceControl(session, DESKS[venue].streams, ["btcusdt@trade"], False)
    control.opened()
    control.take(text)
    control.too_many(text)
    assert len(client.replies) == 2
    for reply in map(json.loads, client.replies):
        assert "id" in reply
        if "error" in reply:
            assert isinstance(reply["error"]["code"], int)
            assert len(reply["error"]["msg"]) < 500
        else:
            assert "result" in reply
    assert len(client.names) <= 5


UDF_NAMES = [
    "symbol", "symbols", "resolution", "from", "to", "countback", "group", "query", "limit",
    "exchange", "type",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.data(),
    st.lists(
        st.tuples(
            st.sampled_from(UDF_NAMES),
            st.one_of(st.sampled_from([*ODD, "1D", "1"]), st.text(max_size=20)),
        ),
        max_size=6,
    ),
)
def test_charts_of_any_kind(data: st.DataObject, query: Any) -> None:
    mount = udf_mount([desk.market for desk in DESKS.values()])
    path = data.draw(st.sampled_from(sorted(mount.answers)))
    found = mount.answers[path](Question(path, query=query))
    if isinstance(found, Work):
        assert 0 <= found.rows <= 5000
    elif path != "/time":
        answer: Mapping[str, Any] = json.loads(found.body)
        assert (answer["s"], found.status in (400, 404)) == ("error", True)


TARGETS = [
    b"/binance_usdm/fapi/v1/klines?symbol=%FF%FE&interval=1m",
    b"/binance_usdm/fapi/v1/klines?symbol=%00",
    b"/binance_usdm/fapi/v1/klines?" + b"a=1&" * 3000,
    b"/binance_usdm/fapi/v1/depth?limit=%D9%A3&symbol=BTCUSDT",
    b"/binance_usdm/fapi/v1/%2e%2e/%2e%2e/metrics",
    b"/binance_usdm/../metrics",
    b"/binance_usdm//fapi/v1/ping",
    b"/binance_usdm/fapi/v1/ping/",
    b"/binance_usdm/%66api/v1/nothing",
    b"/binance_usdm",
    b"/udf/history?symbol=%F0%9F%92%A9&resolution=1",
    b"/udf/history?symbol=BTCUSDT&resolution=1&from=99999999999&to=0&countback=99999999999",
    b"/udf/symbols?symbol=" + b"a" * 9000,
    b"/udf/quotes?symbols=" + b"BTCUSDT," * 1500,
    b"/udf/%00",
]


@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS", b"DELETE"])
async def test_targets_that_nobody_serves(method: bytes, autojump_clock: MockClock) -> None:
    """Through the whole server: an answer in JSON of a client's error, or of success."""
    async with open_stack(settings_for_tests()) as stack:
        for target in TARGETS:
            host, _, port = stack.ready.address.rpartition(":")
            stream = await stack.network.dial(host, int(port))
            request = get(b"Connection: close\r\n", path=target).replace(b"Host: x", b"Host: push")
            await stream.send_all(request.replace(b"GET", method, 1))
            head, _, body = (await until_closed(stream)).partition(b"\r\n\r\n")
            status = int(head.split(b" ")[1])
            assert status in (200, 400, 404, 405, 414, 431), (target, head)
            if body:
                json.loads(body)


@pytest.mark.parametrize("path", [b"/binance_usdm", b"/binance_usdm/", b"/binance_usdm?a=b"])
async def test_a_prefix_alone_is_a_path_of_the_dialect(
    path: bytes, autojump_clock: MockClock
) -> None:
    async with open_stack(settings_for_tests()) as stack:
        for way in (b"Connection: close\r\n", UPGRADE + KEY):
            host, _, port = stack.ready.address.rpartition(":")
            stream = await stack.network.dial(host, int(port))
            request = get(way, path=path)
            await stream.send_all(request.replace(b"Host: x", b"Host: push"))
            head, _, body = (await until_closed(stream)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 404"), head
            assert json.loads(body)["code"] == -1020
