"""The driver: effects performed in order, engines woken in time, questions by urgency."""

import json
from decimal import Decimal

import pytest
import trio
from attrs import evolve
from support.bench import Bench, wall_ms
from support.engine import CANDLES, TRADES, end_at, minute
from support.make import MINUTE, T0, trade

from trio_feed.core.effects import Fetch, Load, Report, Resubscribe, StoreHole, StoreRows
from trio_feed.core.questions import BookQuestion, Need, Rules
from trio_feed.core.streams import Kind, KlineUpdate, Stream
from trio_feed.core.symbol import SymbolEngine
from trio_feed.environment import mono
from trio_feed.instants import NEVER
from trio_feed.model import (
    BookUpdate,
    Channel,
    ChannelKey,
    Hole,
    Instrument,
    Interval,
    Price,
    Series,
    StatusMessage,
    plain,
)
from trio_feed.net.rest import Answer
from trio_feed.venues import Instruments
from trio_feed.venues.binance import usdm as binance_usdm

M1 = Interval.M1
SERIES = Series("binance_usdm", "BTCUSDT", M1)
OTHER = Series("binance_usdm", "ETHUSDT", M1)


def opened(bench: Bench, symbol: str = "BTCUSDT", *, trading: bool = True) -> SymbolEngine:
    engine = bench.driver.open(symbol, {M1: end_at(minute(-1))})
    streams = [evolve(s, symbol=symbol, name=f"{symbol}{s.name}") for s in (CANDLES, TRADES)]
    bench.driver.use(symbol, streams, problem="" if trading else "not trading")
    return engine


def candle(n: int, symbol: str = "BTCUSDT", *, closed: bool = True) -> KlineUpdate:
    return KlineUpdate(symbol, M1, minute(n, closed=closed))


async def test_what_is_closed_is_published_and_stored_with_its_number(
    autojump_clock: trio.abc.Clock,
) -> None:
    bench = Bench()
    opened(bench)
    bench.take(candle(0, closed=False))
    await trio.sleep(60)
    bench.take(candle(0))
    assert [news.kline.closed for news in bench.bus.candles] == [False, True]
    assert bench.bus.candles[1].received_ms == T0 + 60_000
    assert [k.open_ms for k in await bench.store.history(SERIES, limit=9)] == [T0]
    assert bench.count("candles_closed", "exchange") == 1
    assert bench.driver.series() == 1


async def test_a_provisional_candle_has_no_number_and_is_not_stored(
    autojump_clock: trio.abc.Clock,
) -> None:
    bench = Bench()
    opened(bench)
    bench.take(candle(2, closed=False))
    assert bench.bus.published == []
    assert [news.kline.open_ms for news in bench.bus.provisional] == [T0 + 2 * MINUTE]
    assert bench.store.pending() == 0
    assert bench.driver.holding() == 1


async def test_one_message_may_be_about_several_symbols(autojump_clock: trio.abc.Clock) -> None:
    bench = Bench(symbols=("BTCUSDT", "ETHUSDT"))
    for symbol in ("BTCUSDT", "ETHUSDT"):
        opened(bench, symbol)
    bench.take(
        candle(0, closed=False), candle(0, "ETHUSDT", closed=False), trade(1, T0),
        candle(0, "XRPUSDT"),
    )  # fmt: skip
    assert [news.series for news in bench.bus.candles] == [SERIES, OTHER]
    assert len(bench.bus.published) == 3
    assert bench.count("ignored_messages", "other symbol") == 1


async def test_an_engine_is_woken_when_it_wants_to_be(autojump_clock: trio.abc.Clock) -> None:
    bench = Bench()
    opened(bench)
    assert bench.driver.wake_due() == 63
    assert bench.driver.queues.next_fetch() is None
    waits = bench.driver.queues.more_fetches
    await trio.sleep(62.9)
    bench.driver.wake_due()
    assert not waits.is_set()
    await trio.sleep(0.1)
    assert bench.driver.wake_due() == NEVER  # the question is asked; nothing else is due
    assert waits.is_set()
    fetch, engine = bench.driver.queues.next_fetch() or (None, None)
    assert fetch == Fetch(Need.CANDLES, "BTCUSDT", M1)
    assert engine is bench.driver.engines["BTCUSDT"]
    assert bench.driver.behind() == 0
    await trio.sleep(4)
    assert bench.driver.behind() == 1
    bench.driver.use("BTCUSDT", [CANDLES], problem="not trading")
    assert bench.driver.behind() == 0


async def test_who_sleeps_is_told_of_an_earlier_time(autojump_clock: trio.abc.Clock) -> None:
    bench = Bench(channels=(Channel.KLINE,))
    opened(bench)
    bench.driver.wake_due()
    earlier = bench.driver.queues.earlier
    bench.take(candle(0, closed=False))
    assert not earlier.is_set()
    bench.take(candle(2, closed=False))
    assert earlier.is_set()
    assert bench.driver.wake_due() == 3  # the grace


async def test_questions_are_taken_by_urgency_then_in_order(
    autojump_clock: trio.abc.Clock,
) -> None:
    bench = Bench()
    engine = opened(bench)
    bench.driver.wake_due()
    wanted = [
        Fetch(need, "BTCUSDT", M1)
        for need in (Need.HISTORY, Need.CANDLES, Need.AUDIT, Need.TRADES, Need.PROBE)
    ]
    bench.driver.perform(engine, wanted)
    found = [bench.driver.queues.next_fetch() for _ in wanted]
    assert [each[0].need for each in found if each] == [
        Need.TRADES, Need.CANDLES, Need.PROBE, Need.AUDIT, Need.HISTORY,
    ]  # fmt: skip
    assert bench.driver.queues.next_fetch() is None
    alike = [
        Fetch(Need.PROBE, "BTCUSDT"), Fetch(Need.PROBE, "BTCUSDT", M1),
        Fetch(Need.PROBE, "ADAUSDT", M1), Fetch(Need.PROBE, "BTCUSDT", Interval.S1),
    ]  # fmt: skip
    bench.driver.perform(engine, alike)  # of a stream of trades, and of streams of candles
    assert [bench.driver.queues.next_fetch() for _ in alike] == [(each, engine) for each in alike]
    assert bench.driver.queues.next_fetch() is None
    waits = bench.driver.queues.more_fetches
    bench.driver.queues.put_fetch(wanted[0], engine)
    assert waits.is_set()
    assert bench.driver.queues.next_fetch() == (wanted[0], engine)


async def test_everything_an_engine_wants_is_done(autojump_clock: trio.abc.Clock) -> None:
    bench = Bench()
    engine = opened(bench)
    queues = bench.driver.queues
    load = Load("BTCUSDT", Interval.M5, T0, T0 + 1)
    renew = Resubscribe(CANDLES, "stale")
    status = StatusMessage(SERIES, "live")  # type: ignore[arg-type]
    rows = (minute(-3), minute(-2))
    hole = Hole(T0, T0)
    bench.driver.perform(
        engine,
        [
            status, load, renew, StoreHole(SERIES, hole), StoreRows(SERIES, rows),
            Report("", "", {}, "candle_holes", (), 3.0), Report("only.words", "info", {}),
        ],
    )  # fmt: skip
    assert bench.bus.published == [status]
    assert (list(queues.loads), queues.more_loads.is_set()) == ([(load, engine)], True)
    assert (list(queues.rotations), queues.more_rotations.is_set()) == ([renew], True)
    assert bench.store.holes[SERIES] == [hole]
    assert [k.open_ms for k in await bench.store.history(SERIES, limit=9)] == [
        T0 - 3 * MINUTE, T0 - 2 * MINUTE,
    ]  # fmt: skip
    assert bench.bus.first_ms == {SERIES: T0 - 3 * MINUTE}
    assert bench.count("candle_holes") == 3


async def test_a_symbol_that_is_closed_goes_quietly_and_may_come_back(
    autojump_clock: trio.abc.Clock,
) -> None:
    bench = Bench()
    engine = opened(bench)
    bench.take(candle(0))
    assert bench.driver.close("BTCUSDT") == [
        SERIES,
        ChannelKey("binance_usdm", "BTCUSDT", Channel.TRADE),
    ]
    assert bench.driver.close("BTCUSDT") == []
    told = len(bench.bus.published)
    bench.take(candle(1))
    bench.driver.perform(engine, [])  # an answer that was under way
    assert bench.driver.wake_due() == NEVER
    assert (len(bench.bus.published), bench.driver.stream_keys()) == (told, [])
    again = bench.driver.open("BTCUSDT", {M1: end_at(minute(0))})
    bench.driver.use("BTCUSDT", [CANDLES])
    assert again is not engine
    bench.take(candle(1))
    assert [n.kline.open_ms for n in bench.bus.candles] == [T0, T0 + MINUTE]


async def test_streams_come_up_and_go_down(autojump_clock: trio.abc.Clock) -> None:
    bench = Bench()
    engine = opened(bench)
    streams = [stream for stream in engine.upstream.streams if stream.kind is Kind.KLINE]
    bench.driver.up(streams)
    assert engine.upstream.liveness.is_up(Kind.KLINE, M1)
    assert bench.driver.streams() == {
        streams[0].name: {"state": "new", "expected_gap_s": 0.0, "silent_s": 0.0}
    }
    assert not bench.driver.is_quiet(streams)
    assert bench.driver.is_quiet([evolve(CANDLES, symbol="NOBODY")])
    bench.take(candle(0, closed=False))
    bench.driver.down(streams, "gone")
    assert not engine.upstream.liveness.is_up(Kind.KLINE, M1)
    status = bench.bus.published[-1]
    assert isinstance(status, StatusMessage)
    assert (status.stream_key, status.reason) == (SERIES, "gone")
    bench.driver.down([evolve(CANDLES, symbol="NOBODY")])


async def test_a_step_of_the_exchanges_time_makes_every_plan_anew(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Our calendar was an hour slow at the start."""
    bench = Bench()
    opened(bench)
    bench.driver.wake_due()
    assert bench.driver.queues.next_fetch() is None
    for n in range(3):
        assert bench.driver.now().exchange == T0 + 1_000 * n
        bench.take(trade(n, T0 + 3_600_000 + 1_000 * n))
        await trio.sleep(1)
    ahead_ms = float(bench.driver.now().exchange) - (T0 + 3_603_000)
    assert 0 <= ahead_ms < 20  # the trades' event times
    bench.driver.wake_due()
    fetch, _ = bench.driver.queues.next_fetch() or (None, None)
    assert fetch == Fetch(Need.CANDLES, "BTCUSDT", M1)


async def test_the_date_of_an_answer_is_evidence_as_well(autojump_clock: trio.abc.Clock) -> None:
    bench = Bench()
    opened(bench)
    bench.driver.wake_due()
    for date_ms in (None, T0 + 3_600_000.0, T0 + 3_600_000.0, T0 + 3_600_000.0):
        bench.driver.note_answer(Answer(b"", date_ms, mono(), mono()))
    bench.driver.wake_due()
    assert bench.driver.queues.next_fetch() is not None
    assert float(bench.driver.now().exchange) >= T0 + 3_600_000
    assert float(bench.driver.now().wall) == wall_ms()


SPINPET = Rules("spinpet", frozenset(), Kind.PRICE, refill=False)
PRICES = Stream("", "logs", "*", Kind.PRICE)


def price(number: int, symbol: str) -> Price:
    return Price(symbol, Decimal(1), f"{symbol} {number}")


async def test_prices_make_their_symbols_known_while_there_is_room(
    autojump_clock: trio.abc.Clock,
) -> None:
    bench = Bench(
        SPINPET, symbols=("*",), intervals=(), trade_intervals=(Interval.S1,), max_symbols=2
    )
    bench.driver.up([PRICES])
    for number in range(5):
        bench.take(price(1, f"mint{number % 3}"))
    assert {stream_key.symbol for stream_key in bench.bus.opened} == {"mint0", "mint1"}
    assert bench.driver.stream_keys() == bench.bus.opened
    assert bench.count("ignored_messages", "other symbol") == 1
    engine = bench.driver.engines["mint0"]
    assert engine.upstream.liveness.is_up(Kind.PRICE)
    bench.driver.down([PRICES])
    assert not engine.upstream.liveness.is_up(Kind.PRICE)
    bench.driver.up([PRICES])
    assert engine.upstream.liveness.is_up(Kind.PRICE)


async def test_only_prices_make_a_symbol_known(autojump_clock: trio.abc.Clock) -> None:
    bench = Bench(SPINPET, symbols=("*",), intervals=(), trade_intervals=(Interval.S1,))
    bench.take(trade(1, T0))
    named = Bench(SPINPET, symbols=("mint",), intervals=(), trade_intervals=(Interval.S1,))
    named.take(price(1, "mint0"))
    assert bench.driver.engines == named.driver.engines == {}


async def test_books_that_stand_still_are_counted(autojump_clock: trio.abc.Clock) -> None:
    bench = Bench(channels=(Channel.BOOK,))
    engine = opened(bench)
    levels = ((Decimal(1), Decimal(1)),)
    update = BookUpdate("BTCUSDT", 101, 105, 99, levels, levels)
    bench.take(update)
    snapshot = evolve(update, last_id=100, snapshot=True)
    now = bench.driver.now()
    fetch = Fetch(Need.BOOK, "BTCUSDT")
    bench.driver.perform(engine, engine.answer(fetch, BookQuestion(), [snapshot], now))
    assert bench.driver.stale_books() == 0
    bench.take(evolve(update, first_id=121, last_id=125, previous_id=120))
    assert bench.driver.stale_books() == 1
    assert bench.count("book_gaps") == 1
    assert Bench().driver.stale_books() == 0


async def test_eighteen_decimals_pass_from_the_wire_to_the_store(
    autojump_clock: trio.abc.Clock,
) -> None:
    digits = "0.123456789012345678"
    bench = Bench()
    opened(bench)
    frame = {
        "e": "continuous_kline", "E": T0 + MINUTE, "ps": "BTCUSDT", "ct": "PERPETUAL",
        "k": {"t": T0, "T": T0 + MINUTE - 1, "i": "1m", "f": 1, "L": 2, "o": digits, "c": digits,
              "h": digits, "l": digits, "v": "1000000000." + "1" * 18, "n": 2, "x": True,
              "q": digits, "V": "0", "Q": "0", "B": "0"},
    }  # fmt: skip
    btc = Instrument("binance_usdm", "BTCUSDT", "BTCUSDT", "perpetual", "BTC", "USDT")
    await trio.sleep(60)
    bench.take(*binance_usdm.parse(json.dumps(frame), Instruments([btc])))
    (stored,) = await bench.store.history(SERIES, limit=9)
    assert (plain(stored.close), plain(stored.volume)) == (digits, "1000000000." + "1" * 18)
    assert plain(bench.bus.candles[0].kline.high) == digits


@pytest.mark.parametrize("quiet", [True, False])
async def test_whether_prices_are_quiet_is_the_chains_to_say(
    quiet: bool, autojump_clock: trio.abc.Clock
) -> None:
    bench = Bench()
    prices = Stream("", "logs", "*", Kind.PRICE)
    bench.driver.prices_quiet = lambda: quiet
    assert bench.driver.is_quiet([prices]) is quiet
