"""``chart``: candles as text, and where they come from."""

import re
from decimal import Decimal

import pytest
import trio
from attrs import evolve
from support.make import MINUTE, T0, kline
from support.stack import open_stack, settings_for_tests

from trio_feed.client import Stream
from trio_feed.commands import chart
from trio_feed.commands.drawing import draw, room
from trio_feed.commands.options import Refused
from trio_feed.model import Channel, Interval, Kline, Source

STREAM = Stream("BTCUSDT", Channel.KLINE, Interval.M1)
URL = "push:80"


def candle(n: int, low: str, open_: str, close: str, high: str, volume: str = "1") -> Kline:
    return evolve(
        kline(T0 + n * MINUTE), open=Decimal(open_), high=Decimal(high), low=Decimal(low),
        close=Decimal(close), volume=Decimal(volume),
    )  # fmt: skip


def columns(picture: str, count: int) -> list[str]:
    """Each candle from above."""
    rows = picture.splitlines()[1:-3]
    return ["".join(row[at] for row in rows) for at in range(count)]


def test_bodies_and_wicks_stand_where_the_prices_are() -> None:
    klines = [
        candle(0, "1", "1", "8", "8"),  # all body
        candle(1, "1", "4", "5", "8"),  # a small body, wicks to both ends
        candle(2, "3", "3", "3", "3"),  # one price
        candle(3, "7", "8", "7", "8"),
    ]
    picture = draw(STREAM, klines, width=60, height=9)
    assert columns(picture, 4) == ["┃┃┃┃", "│╽╿│", "  ╻ ", "┃   "]
    assert [row.split()[-1] for row in picture.splitlines()[1:5] if "┤" in row] == ["8", "1"]


def test_volumes_times_and_the_title() -> None:
    klines = [candle(n, "1", "1", "2", "2", volume=str(n + 1)) for n in range(30)]
    picture = draw(STREAM, klines, width=80, height=9)
    title, *_, volumes, axis, times = picture.splitlines()
    assert title.startswith("BTCUSDT 1m  last 2  +100.00 %  high 2  low 1  from 2023-11-14")
    assert volumes[0] == " "
    assert volumes[29] == "█"
    assert axis.count("┴") == 3
    assert re.findall(r"\d\d:\d\d", times) == ["22:14", "22:26", "22:38"]
    assert "SIMULATED" not in title
    simulated = [evolve(each, source=Source.SIMULATED) for each in klines]
    assert "SIMULATED" in draw(STREAM, simulated, width=100, height=9)


@pytest.mark.parametrize(("width", "height"), [(20, 8), (60, 12), (200, 60)])
def test_it_stays_within_the_terminal(width: int, height: int) -> None:
    klines = [candle(n, "0.00001", "0.2", "1234567.8", "1234567.8") for n in range(300)]
    lines = draw(STREAM, klines, width=width, height=height).splitlines()
    assert len(lines) <= max(height, 9)
    assert all(len(line) <= width + 2 for line in lines)
    assert columns("\n".join(lines), room(width))


def test_colours_say_up_and_down_and_no_candle_is_a_sentence() -> None:
    klines = [candle(0, "1", "1", "2", "2"), candle(1, "1", "2", "1", "2")]
    picture = draw(STREAM, klines, width=60, height=9, colours=True)
    assert "\x1b[32m┃\x1b[31m┃\x1b[0m" in picture
    assert draw(STREAM, [], width=60, height=9) == "BTCUSDT 1m: no candles yet"


async def test_what_a_running_service_has_is_drawn_and_moves(
    autojump_clock: trio.abc.Clock,
) -> None:
    shown: list[list[Kline]] = []
    with trio.fail_after(900):
        async with open_stack(settings_for_tests()) as stack:
            await trio.sleep(30)
            outside = stack.environment
            stream, klines = await chart.fetch("BTCUSDT", "m1", URL, None, 12, outside)
            assert stream.interval is Interval.M1
            assert len(klines) == 12
            assert not klines[-1].closed
            with pytest.raises(Refused, match="'NOPE' is not one of BTCUSDT"):
                await chart.fetch("NOPE", "1m", URL, None, 12, outside)
            with pytest.raises(Refused, match="'1x' is not one of"):
                await chart.fetch("BTCUSDT", "1x", URL, None, 12, outside)
            with pytest.raises(Refused, match="is the service running"):
                await chart.fetch("BTCUSDT", "1m", "elsewhere:80", None, 12, outside)

            with trio.move_on_after(200):
                await chart.follow(
                    "BTCUSDT", "1m", URL, None, 5, lambda _, k: shown.append(k), outside
                )
    assert {len(klines) for klines in shown} == {5}
    assert shown[-1][-1].open_ms - shown[0][-1].open_ms >= 2 * MINUTE
