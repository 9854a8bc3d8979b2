"""USD-M's funding history: what was seen happening, and nothing else."""

from decimal import Decimal
from typing import Any

import pytest
import trio
from attrs import evolve
from support.dialect import SOURCE, Desk
from support.stack import open_stack, settings_for_tests
from test_dialect_binance import ask
from trio.testing import MockClock

from trio_feed.core.effects import ChannelNews
from trio_feed.dialects.binance.profile import USDM
from trio_feed.model import Channel, ChannelKey, Instrument, MarkPrice, Source

D = Decimal
HOUR = 3_600_000
NAMES = ("BTCUSDT", "ETHUSDT")


def desk(*, simulated: bool = False) -> Desk:
    listed = [Instrument("binance_usdm", f"{n}", f"{n}", "perpetual") for n in NAMES]
    made = Desk(USDM, listed, simulated=simulated)
    for name in NAMES:
        made.open(ChannelKey("binance_usdm", name, Channel.MARK_PRICE))
    return made


def mark(at_ms: int, due_ms: int, rate: str = "0.0001", price: str = "100.5") -> MarkPrice:
    return MarkPrice("BTCUSDT", D(price), None, D(rate), due_ms, at_ms)


def tell(to: Desk, said: MarkPrice, name: str = "BTCUSDT", source: Source = SOURCE) -> None:
    key = ChannelKey("binance_usdm", name, Channel.MARK_PRICE)
    to.publish(ChannelNews(key, evolve(said, symbol=name), source, 1.0))


def fund(to: Desk, due_ms: int, rate: str, name: str = "BTCUSDT") -> None:
    """A funding as the stream tells it: the rate moves until the end."""
    tell(to, mark(due_ms - 2000, due_ms, "0.5", "1"), name)
    tell(to, mark(due_ms - 1000, due_ms, rate, "200.50"), name)
    tell(to, mark(due_ms + 20, due_ms + 8 * HOUR, "0.7", "2"), name)


def asked(of: Desk, **query: object) -> Any:
    status, answer = of.ask("fundingRate", **query)
    assert status == 200, answer
    return answer


def test_the_last_rate_before_its_time_is_the_one_that_was_paid() -> None:
    own = desk()
    assert asked(own) == asked(own, symbol="BTCUSDT") == []
    fund(own, 8 * HOUR, "-0.00012500")
    assert asked(own, symbol="BTCUSDT") == [
        {
            "symbol": "BTCUSDT", "fundingTime": 8 * HOUR, "fundingRate": "-0.00012500",
            "markPrice": "200.50",
        }
    ]  # fmt: skip
    assert asked(own, symbol="ETHUSDT") == []


@pytest.mark.parametrize(
    "told",
    [
        (mark(HOUR - 60_000, HOUR), mark(HOUR + 1000, 9 * HOUR)),  # silent before it
        (mark(HOUR - 60_000, HOUR), mark(9 * HOUR, 17 * HOUR)),  # a whole one was missed
        (mark(HOUR - 1000, HOUR), mark(HOUR - 500, 4 * HOUR)),  # its time was moved
        (mark(HOUR - 1000, HOUR), mark(HOUR + 500, HOUR)),  # the next is not said yet
        (evolve(mark(HOUR - 1000, HOUR), funding_rate=None), mark(HOUR, 9 * HOUR)),
        (mark(HOUR - 1000, 0), mark(HOUR, 9 * HOUR)),
    ],
)
def test_what_was_not_seen_is_left_out(told: tuple[MarkPrice, MarkPrice]) -> None:
    own = desk()
    for said in told:
        tell(own, said)
    assert asked(own, symbol="BTCUSDT") == []


def test_bounds_are_inclusive_and_lists_ascend() -> None:
    own = desk()
    for number in range(1, 6):
        fund(own, number * 8 * HOUR, f"0.000{number}")
        fund(own, number * 8 * HOUR, f"0.000{number}", "ETHUSDT")

    def times(**query: object) -> list[int]:
        return [row["fundingTime"] // (8 * HOUR) for row in asked(own, **query)]

    own_only: dict[str, object] = {"symbol": "BTCUSDT"}
    assert times(**own_only) == [1, 2, 3, 4, 5]
    assert times(**own_only, limit=2) == [4, 5]
    assert times(**own_only, startTime=16 * HOUR, limit=2) == [2, 3]
    assert times(**own_only, startTime=16 * HOUR, endTime=24 * HOUR) == [2, 3]
    assert times(**own_only, endTime=24 * HOUR, limit=2) == [2, 3]
    assert times(**own_only, startTime=16 * HOUR + 1, endTime=24 * HOUR - 1) == []
    both = asked(own)
    assert [row["symbol"] for row in both[:4]] == [*NAMES, *NAMES]
    assert times() == sorted(times())
    assert own.ask("fundingRate", limit=1001)[1]["code"] == -1130
    assert own.ask("fundingRate", symbol="XYZ")[1]["code"] == -1121


def test_made_up_fundings_are_none() -> None:
    own = desk()
    tell(own, mark(HOUR - 1000, HOUR), source=Source.SIMULATED)
    tell(own, mark(HOUR + 1000, 9 * HOUR), source=Source.SIMULATED)
    assert asked(own) == []


def test_a_symbol_that_is_fed_again_goes_on() -> None:
    own = desk()
    fund(own, 8 * HOUR, "0.1")
    key = ChannelKey("binance_usdm", "BTCUSDT", Channel.MARK_PRICE)
    own.close(key)
    own.open(key)
    fund(own, 16 * HOUR, "0.2")
    assert [row["fundingRate"] for row in asked(own)] == ["0.1", "0.2"]


async def test_over_the_whole_service(autojump_clock: MockClock) -> None:
    base = "/binance_usdm/fapi/v1/fundingRate"
    async with open_stack(settings_for_tests(".channels=['kline','mark_price']")) as stack:
        await trio.sleep(5)
        assert (await ask(stack, f"{base}?symbol=BTCUSDT"))[:2] == (200, [])
    async with open_stack(settings_for_tests()) as stack:
        await trio.sleep(5)
        status, error, _ = await ask(stack, f"{base}?symbol=BTCUSDT")
        assert (status, error["code"]) == (400, -1020)
        assert "mark_price of BTCUSDT is not fed" in error["msg"]
