"""The wire format: what is written is read again, to the last digit, and nothing else is taken."""

from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.make import SERIES, T0, kline

from trio_feed.bus import wire
from trio_feed.model import (
    Channel,
    ChannelKey,
    ChannelMessage,
    Interval,
    Kline,
    KlineMessage,
    Source,
    StatusMessage,
    StreamState,
)

DATA = get_args(get_type_hints(ChannelMessage)["data"])
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)


def values(wanted: Any) -> st.SearchStrategy[Any]:
    """Anything that a field of this type may hold."""
    if get_origin(wanted) is UnionType:
        return st.one_of(*map(values, get_args(wanted)))
    if get_origin(wanted) is tuple:
        inner = get_args(wanted)
        if inner[-1] is Ellipsis:
            return st.lists(values(inner[0]), max_size=3).map(tuple)
        return st.tuples(*map(values, inner))
    plain = {
        Decimal: DECIMALS,
        int: st.integers(-(10**30), 10**30),
        bool: st.booleans(),
        str: st.text(),
        NoneType: st.none(),
        Source: st.sampled_from(Source),
    }
    return plain[wanted] if wanted in plain else made(wanted)


def made(wanted: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(wanted)
    return st.builds(wanted, **{f.name: values(hints[f.name]) for f in attrs.fields(wanted)})


def there_and_back(items: list[wire.Item]) -> list[wire.Item]:
    return wire.read(wire.written(items))


@given(made(Kline))
def test_a_candle(kline: Kline) -> None:
    again = wire.candle_of(wire.candle_bytes(kline))
    assert again == kline
    assert str(again) == str(kline)  # 1.50 is not 1.5 for who reads it as text


@pytest.mark.parametrize("form", DATA)
def test_every_kind_of_news(form: Any) -> None:
    key = ChannelKey("v", "S", Channel.TRADE)

    @given(made(form))
    def check(data: Any) -> None:
        message = ChannelMessage(key, data, Source.TRADES, 3, 4, 5.5)
        (item,) = there_and_back([wire.sent(9, message, 6.25, ephemeral=True)])
        assert isinstance(item, wire.Line)
        assert (item.stream, item.sent_ms, item.flags) == (9, 6.25, wire.Flags.EPHEMERAL)
        assert wire.message_of(key, item) == message

    check()


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("revision", [True, False])
@pytest.mark.parametrize("provisional", [True, False])
def test_how_a_candle_stands_is_in_its_head(
    closed: bool, revision: bool, provisional: bool
) -> None:
    row = kline(T0, closed=closed, source=Source.BACKFILL)
    message = KlineMessage(SERIES, row, 3, 4, 7, 8.5, revision, T0 - 60_000, provisional)
    (item,) = there_and_back(
        [wire.sent(1, message, 9.5, ephemeral=provisional, provisional=provisional)]
    )
    assert isinstance(item, wire.Candle)
    assert (item.epoch, item.offset, item.open_ms, item.after_ms) == (3, 4, T0, T0 - 60_000)
    flags = item.flags
    assert bool(flags & wire.Flags.CLOSED) is closed
    assert bool(flags & wire.Flags.REVISION) is revision
    assert bool(flags & wire.Flags.PROVISIONAL) is provisional
    assert flags & wire.Flags.BACKFILL
    assert wire.message_of(SERIES, item) == message


def test_a_stream_and_its_status() -> None:
    status = StatusMessage(SERIES, StreamState.STALE, "the proxy refuses", 1, None)
    item = wire.opened(
        5, SERIES, epoch=1, offset=2, first_ms=None, sparse=True, revisions=3, connected=True,
        waiting="for it", recent=[(kline(T0), 4)], latest=None, provisional=None,
        status=wire.status_item(5, status), ring=None,
    )  # fmt: skip
    (again,) = there_and_back([item])
    assert again == item
    assert isinstance(again, wire.Opened)
    assert again.stream_key == SERIES
    assert again.status is not None
    assert wire.status_of(SERIES, again.status) == status
    assert wire.candle_of(again.recent[0][0]) == kline(T0)


def test_a_key_of_a_channel_is_none_of_a_series() -> None:
    for key in (ChannelKey("v", "S", Channel.BBO), SERIES):
        item = wire.opened(
            1, key, epoch=1, offset=0, first_ms=None, sparse=False, revisions=0, connected=False,
            waiting="", recent=[], latest=None, provisional=None, status=None, ring=[],
        )  # fmt: skip
        assert item.stream_key == key
    assert SERIES.interval is Interval.M1


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", msgspec.msgpack.encode([[99, 1]]), msgspec.msgpack.encode([[5, "x"]]), b"[]"],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(wire.BadItem):
        wire.read(data)


def test_values_that_are_not_what_they_should_be_are_found_when_they_are_read() -> None:
    key = ChannelKey("v", "S", Channel.TRADE)
    head = (1, 1, 1, 0, Source.TRADES, 0.0, 0.0)
    for line in (wire.Line(*head, 99, b""), wire.Line(*head, 0, b"\x90"), wire.Line(*head, 0, b"")):
        with pytest.raises(wire.BadItem):
            wire.message_of(key, line)
    for body in (b"", b"\x90", b"\xc1[]", b"\xc1"):
        with pytest.raises(wire.BadItem):
            wire.candle_of(body)
