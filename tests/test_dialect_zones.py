"""Binance's candles of other time zones: served where they are the same bars."""

import pytest
import trio
from support.stack import open_stack, settings_for_tests
from test_dialect_binance import ask, socket
from trio.testing import MockClock

from trio_feed.core.calendar import length_ms
from trio_feed.dialects.binance.zones import has_same_bars, offset_of
from trio_feed.model import Interval

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("0", 0), ("00:00", 0), ("-0", 0), ("8", 480), ("+08:00", 480), (" 08:00", 480),
        ("-1:00", -60), ("05:45", 345), ("14", 840), ("-12:00", -720),
        ("14:01", None), ("-13", None), ("", None), ("x", None), ("8:60", None), ("08:0", None),
        ("٣", None), ("8h", None), ("+-8", None),
    ],
)  # fmt: skip
def test_names_of_zones(text: str, minutes: int | None) -> None:
    assert offset_of(text) == (None if minutes is None else minutes * 60_000)


def local_opens(interval: Interval, offset_ms: int) -> set[int]:
    """Within two days of UTC: a day there begins with a bar."""
    length, day = length_ms(interval), 24 * HOUR
    first = -offset_ms - day
    return {
        at for midnight in range(first, 4 * day, day)
        for at in range(midnight, midnight + day, length) if 0 <= at < 2 * day
    }  # fmt: skip


@pytest.mark.parametrize("offset_ms", [0, 8 * HOUR, -5 * HOUR, HOUR * 11 // 2, 345 * 60_000, HOUR])
@pytest.mark.parametrize("interval", [i for i in Interval if 60_000 <= length_ms(i) <= 24 * HOUR])
def test_bars_are_the_same_where_they_open_at_the_same_moments(
    interval: Interval, offset_ms: int
) -> None:
    same = local_opens(interval, offset_ms) == local_opens(interval, 0)
    assert has_same_bars(interval, offset_ms) is same


@pytest.mark.parametrize("interval", [Interval.D3, Interval.W1, Interval.MO1])
def test_longer_ones_are_those_of_utc_only(interval: Interval) -> None:
    assert has_same_bars(interval, 0)
    assert not has_same_bars(interval, 8 * HOUR)


async def test_by_rest_and_streamed(autojump_clock: MockClock) -> None:
    settings = settings_for_tests(".intervals=['1m','1h','6h','1d']", venue="binance")
    async with open_stack(settings, trades_per_minute=60) as stack:
        await trio.sleep(30)
        base = "/binance/api/v3/klines?symbol=BTCUSDT"
        for interval in ("1m", "1h"):
            _, plain, _ = await ask(stack, f"{base}&interval={interval}&limit=5")
            for zone in ("8", "%2B08:00", "+08:00", "-3"):
                zoned = f"{base}&interval={interval}&limit=5&timeZone={zone}"
                assert (await ask(stack, zoned))[:2] == (200, plain)
        assert (await ask(stack, f"{base}&interval=1d&timeZone=0"))[0] == 200
        for zoned, code in (("1d&timeZone=8", -1020), ("6h&timeZone=8", -1020),
                            ("1m&timeZone=15", -1130), ("1m&timeZone=", -1105)):  # fmt: skip
            status, error, _ = await ask(stack, f"{base}&interval={zoned}")
            assert (status, error["code"]) == (400, code), error
        async with socket(stack, "/binance/stream?streams=btcusdt@kline_1m@+08:00") as client:
            message = await client.next()
            assert message["stream"] == "btcusdt@kline_1m@+08:00"
            assert message["data"]["k"]["i"] == "1m"
            for name, why in (
                ("btcusdt@kline_1d@+08:00", "1d candles of days of +08:00 are not kept here"),
                ("btcusdt@kline_1m@+09:00", "no stream of this market"),
                ("btcusdt@trade@+08:00", "no stream of this market"),
            ):
                await client.ask("SUBSCRIBE", name)
                assert why in (await client.answer())["error"]["msg"]


async def test_contracts_have_no_such_streams(autojump_clock: MockClock) -> None:
    async with open_stack(settings_for_tests()) as stack:
        await trio.sleep(5)
        async with socket(stack, "/binance_usdm/ws") as client:
            await client.ask("SUBSCRIBE", "btcusdt@kline_1m@+08:00")
            assert "no stream of this market" in (await client.answer())["error"]["msg"]
