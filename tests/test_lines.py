"""Trades, tickers, books, prices, roll-ups and reconciliation through one venue's pipeline."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from attrs import evolve
from support.make import MINUTE, T0, kline, tail, trade
from trio_feed.ingest.pipeline import Pipeline

from trio_feed.core.rollup import roll
from trio_feed.metrics import Metrics
from trio_feed.model import (
    BookTop,
    BookUpdate,
    BookView,
    Channel,
    Instrument,
    Interval,
    Kline,
    KlineMessage,
    Line,
    LineMessage,
    Price,
    Series,
    Source,
    Subject,
    Ticker,
    Trade,
    plain,
)
from trio_feed.push import messages
from trio_feed.push.protocol import Target
from trio_feed.settings import ExchangeSettings, SolanaSettings
from trio_feed.simulator import Market
from trio_feed.store import MemoryStore
from trio_feed.venues import Instruments, Kind, KlineUpdate, Venue, binance_usdm, make_venue

BTC = Instrument("binance_usdm", "BTCUSDT", "BTCUSDT", "perpetual", "BTC", "USDT")
NAME = "binance_usdm"


class House:
    """A pipeline on a hand-turned clock; everything that it published and announced."""

    def __init__(
        self, venue: Venue = binance_usdm, *, simulated: bool = False, **more: Any
    ) -> None:
        self.now = float(more.pop("now", T0))
        self.out: list[KlineMessage | LineMessage] = []
        self.subjects: list[Subject] = []
        self.renewed: list[str] = []
        self.store, self.metrics = MemoryStore(7), Metrics()
        chosen: dict[str, Any] = {
            "symbols": ("BTCUSDT",),
            "intervals": (),
            "trade_intervals": (),
            "history_bars": 0,
            "channels": tuple(Channel),
        }
        tails = more.pop("tails", {})
        self.settings = ExchangeSettings(**(chosen | more))
        self.pipe = Pipeline(
            venue,
            self.settings,
            tails=tails,
            store=self.store,
            publish=self.out.append,
            announce=self.subjects.append,
            renew=self.renewed.append,
            now_ms=lambda: self.now,
            simulated=simulated,
            metrics=self.metrics,
        )
        self.pipe.use(Instruments([BTC]))

    def news(self, channel: Channel) -> list[Any]:
        return [
            m.data for m in self.out if isinstance(m, LineMessage) and m.line.channel is channel
        ]

    def candles(self, interval: Interval, *, closed: bool = True) -> list[Kline]:
        found = [m.kline for m in self.out if isinstance(m, KlineMessage)
                 and m.series.interval is interval]  # fmt: skip
        return [k for k in found if k.closed is closed]

    def answer(self, body: Any, wanted: Callable[[Any], bool] = lambda key: True) -> None:
        """Do the most due job with this answer."""
        found = self.pipe.most_due()
        assert found is not None
        assert wanted(found[1]), found
        job = self.pipe.begin(found[1])
        assert job is not None
        job.take(json.dumps(body).encode())
        self.pipe.done(found[1])


def book(
    first: int, last: int, previous: int, *, bid: str = "10.0", size: str = "1.0"
) -> BookUpdate:
    levels = ((Decimal(bid), Decimal(size)),)
    return BookUpdate("BTCUSDT", first, last, previous, levels, (), event_ms=T0)


SNAPSHOT = {"lastUpdateId": 100, "bids": [["9.0", "2"]], "asks": [["11.0", "3"]], "E": T0, "T": T0}


def test_lines_are_announced_numbered_and_labelled() -> None:
    house = House(simulated=True)
    assert house.subjects == [
        Line(NAME, "BTCUSDT", c) for c in (Channel.TICKER, Channel.TRADE, Channel.BOOK)
    ]
    house.pipe.handle([trade(1, T0), trade(2, T0 + 1)], house.now)
    sent = [m for m in house.out if isinstance(m, LineMessage)]
    assert [m.offset for m in sent] == [1, 2]
    assert {m.epoch for m in sent} == {7}
    assert {m.source for m in sent} == {Source.SIMULATED}


def test_a_ticker_is_completed_by_the_best_bid_and_ask() -> None:
    house = House()
    top = BookTop("BTCUSDT", Decimal("9.9"), Decimal(1), Decimal("10.1"), Decimal(2), 5, T0)
    house.pipe.handle([top], house.now)
    assert house.news(Channel.TICKER) == []
    full = Ticker("BTCUSDT", Decimal(10), *[Decimal(n) for n in (9, 12, 8, 100, 1000)])
    house.pipe.handle([full, top, evolve(full, last=Decimal(11))], house.now)
    first, second, third = house.news(Channel.TICKER)
    assert first.bid is None
    assert (second.last, second.bid, second.ask_size) == (10, Decimal("9.9"), 2)
    assert (third.last, third.bid) == (11, Decimal("9.9"))


def test_a_book_waits_for_its_snapshot_and_then_shows_itself() -> None:
    house = House()
    house.pipe.handle([book(101, 105, 99)], house.now)
    assert house.news(Channel.BOOK) == []
    house.answer(SNAPSHOT)
    (view,) = house.news(Channel.BOOK)
    assert isinstance(view, BookView)
    assert [plain(price) for price, _ in view.bids] == ["10.0", "9.0"]
    assert (view.stale, view.update_id) == (False, 105)
    house.pipe.handle([book(106, 110, 105, size="0.0")], house.now)
    assert [plain(price) for price, _ in house.news(Channel.BOOK)[-1].bids] == ["9.0"]


def test_a_gap_in_a_book_is_shown_stale_and_resynced() -> None:
    house = House()
    house.pipe.handle([book(101, 105, 99)], house.now)
    house.answer(SNAPSHOT)
    house.now += 5_000
    house.pipe.handle([book(120, 125, 119)], house.now)
    assert house.news(Channel.BOOK)[-1].stale
    assert house.pipe.stale_books() == 1
    house.answer(SNAPSHOT | {"lastUpdateId": 122})
    assert not house.news(Channel.BOOK)[-1].stale
    assert house.metrics.book_gaps.labels(NAME)._value.get() == 1


def test_a_snapshot_without_a_place_in_the_sequence_renews_the_stream() -> None:
    house = House()
    house.pipe.handle([book(101, 105, 99)], house.now)
    house.answer(SNAPSHOT | {"lastUpdateId": 0})
    assert house.renewed == ["BTCUSDT"]
    assert house.news(Channel.BOOK) == []


def test_a_lost_stream_makes_its_book_stale() -> None:
    house = House()
    house.pipe.handle([book(101, 105, 99)], house.now)
    house.answer(SNAPSHOT)
    house.pipe.lost([binance_usdm.stream(Kind.BOOK, BTC)])
    assert house.news(Channel.BOOK)[-1].stale


def minute(n: int, **more: Any) -> KlineUpdate:
    return KlineUpdate("BTCUSDT", Interval.M1, evolve(kline(T0 + n * MINUTE), **more))


def test_minutes_roll_up_and_equal_the_exchanges_own_candles() -> None:
    """Where both exist: the simulator's market is the exchange here."""
    market = Market(3, ["BTCUSDT"], 10)
    start = T0 - T0 % (4 * 60 * MINUTE)
    targets = (Interval.M3, Interval.M15, Interval.H1, Interval.H4)
    tails = {
        Series(NAME, "BTCUSDT", i): tail(kline(start - MINUTE))
        for i in (Interval.M1,)
    }  # fmt: skip
    house = House(intervals=(Interval.M1,), rollup_intervals=targets, tails=tails, now=start)
    for n in range(4 * 60):
        house.now = float(start + (n + 1) * MINUTE)
        row = market.candle("BTCUSDT", Interval.M1, start + n * MINUTE)
        house.pipe.handle([KlineUpdate("BTCUSDT", Interval.M1, row)], house.now)
    for interval, number in zip(targets, (80, 16, 4, 1), strict=True):
        rolled = house.candles(interval)
        assert len(rolled) == number
        for row in rolled:
            own = market.candle("BTCUSDT", interval, row.open_ms)
            assert row.same_values(own)
            assert row.quote_volume == own.quote_volume
            assert (row.source, row.complete) == (Source.SIMULATED, True)


def test_a_rolled_up_candle_goes_on_after_a_restart() -> None:
    start = T0 - T0 % (15 * MINUTE)
    minutes = [kline(start + n * MINUTE) for n in range(15)]
    tails = {Series(NAME, "BTCUSDT", Interval.M1): tail(minutes[6])}
    tails[Series(NAME, "BTCUSDT", Interval.M15)] = tail(kline(start - 15 * MINUTE))
    house = House(intervals=(Interval.M1,), rollup_intervals=(Interval.M15,), tails=tails)
    (series,) = house.pipe.rolled()
    house.pipe.seed_rollup(series, minutes[:7])
    for row in minutes[7:]:
        house.now = float(row.open_ms + MINUTE)
        house.pipe.handle([KlineUpdate("BTCUSDT", Interval.M1, row)], house.now)
    (rolled,) = house.candles(Interval.M15)
    assert rolled.same_values(roll(Interval.M15, minutes))
    assert rolled.complete


def trades_of(n: int, ids: range, *, skip: int | None = None) -> list[Trade]:
    """Trades of minute n, with these ids; ``skip`` is left out."""
    step = MINUTE // (len(ids) + 1)
    rows = [trade(i, T0 + n * MINUTE + (k + 1) * step) for k, i in enumerate(ids)]
    return [row for row in rows if row.trade_id != skip]


def official(n: int, count: int) -> KlineUpdate:
    money = {"open": Decimal("100.0"), "high": Decimal("100.0"), "low": Decimal("100.0"),
             "close": Decimal("100.0"), "volume": Decimal(count), "trades": count}  # fmt: skip
    return minute(n, **money)


def reconciled(house: House, result: str) -> float:
    return float(house.metrics.reconciled.labels(NAME, result)._value.get())


def reconciling_house() -> House:
    tails = {Series(NAME, "BTCUSDT", Interval.M1): tail(kline(T0 - MINUTE))}
    return House(intervals=(Interval.M1,), trade_intervals=(Interval.S30,), tails=tails)


def test_a_minute_that_agrees_with_its_trades_is_counted() -> None:
    house = reconciling_house()
    house.pipe.handle(trades_of(-1, range(1, 3)), house.now)
    house.pipe.handle(trades_of(0, range(3, 9)), house.now)
    house.pipe.handle(trades_of(1, range(9, 12)), house.now)
    house.now += MINUTE
    house.pipe.handle([official(0, 6)], house.now)
    assert (reconciled(house, "equal"), reconciled(house, "different")) == (1, 0)


def test_a_minute_that_differs_is_asked_for_again_and_corrected() -> None:
    house = reconciling_house()
    house.pipe.handle(trades_of(-1, range(1, 3)), house.now)
    house.now += MINUTE
    house.pipe.handle(trades_of(0, range(3, 9)), house.now)
    house.now += MINUTE
    house.pipe.handle(trades_of(1, range(9, 12)), house.now)
    house.pipe.handle([official(0, 7)], house.now)
    assert reconciled(house, "different") == 1
    row = [T0, "100.0", "100.0", "100.0", "100.0", "6", 0, "600", 6, "0", "0", "0"]
    house.answer([row, [T0 + MINUTE, *row[1:]]], lambda key: "minute" in str(key))
    series = Series(NAME, "BTCUSDT", Interval.M1)
    stored = house.store._series[series].messages[T0].kline
    assert stored.trades == 6
    assert house.metrics.revisions.labels(NAME)._value.get() == 1
    told = [m for m in house.out if isinstance(m, KlineMessage) and m.series == series]
    finals = [m for m in told if m.kline.closed and m.kline.open_ms == T0]
    assert [(m.revision, m.kline.trades) for m in finals] == [(False, 7), (True, 6)]
    assert finals[1].offset > finals[0].offset


MINT = "So11111111111111111111111111111111111111112"


def price(number: int, value: str, mint: str = MINT) -> Price:
    return Price(mint, Decimal(value), f"signature{number}:0")


def spinpet_house(**more: Any) -> House:
    settings = ExchangeSettings(solana=SolanaSettings(program_id=MINT))
    return House(
        make_venue("spinpet", settings),
        symbols=("*",),
        trade_intervals=(Interval.S1, Interval.S30),
        channels=(Channel.KLINE, Channel.TRADE),
        **more,
    )


def test_prices_make_their_symbols_known_and_become_candles() -> None:
    house = spinpet_house()
    assert house.subjects == []
    for number, (after, value) in enumerate(
        [(0, "1.0"), (300, "3.0"), (1200, "2.0"), (5100, "5.0")]
    ):
        house.now = float(T0 + after)
        house.pipe.handle([price(number, value)], house.now)
    assert [str(s) for s in house.subjects] == [
        f"spinpet:{MINT}:1s", f"spinpet:{MINT}:30s", f"spinpet:{MINT}:trade",
    ]  # fmt: skip
    rows = [k for k in house.candles(Interval.S1) if k.complete]
    assert [(plain(k.open), plain(k.close), k.volume) for k in rows][:2] == [
        ("1.0", "3.0", 0), ("3.0", "2.0", 0),
    ]  # fmt: skip
    assert [k.open_ms - T0 for k in rows] == [0, 1000, 2000, 3000, 4000]
    assert rows[2].open == rows[2].close == Decimal("2.0")


def test_the_same_event_twice_counts_once() -> None:
    house = spinpet_house()
    house.pipe.handle([price(1, "1.0"), price(1, "1.0")], house.now)
    assert len(house.news(Channel.TRADE)) == 1


def test_symbols_that_come_by_themselves_are_bounded() -> None:
    house = spinpet_house(max_symbols=2)
    for number in range(5):
        house.pipe.handle([price(number, "1.0", f"mint{number}")], house.now)
    assert {s.symbol for s in house.subjects} == {"mint0", "mint1"}


def test_eighteen_decimals_pass_from_the_wire_to_the_store_and_the_client() -> None:
    digits = "0.123456789012345678"
    house = House(intervals=(Interval.M1,), tails={
        Series(NAME, "BTCUSDT", Interval.M1): tail(kline(T0 - MINUTE))
    })  # fmt: skip
    frame = {
        "e": "continuous_kline", "E": T0 + MINUTE, "ps": "BTCUSDT", "ct": "PERPETUAL",
        "k": {"t": T0, "T": T0 + MINUTE - 1, "i": "1m", "f": 1, "L": 2, "o": digits, "c": digits,
              "h": digits, "l": digits, "v": "1000000000." + "1" * 18, "n": 2, "x": True,
              "q": digits, "V": "0", "Q": "0", "B": "0"},
    }  # fmt: skip
    house.now = float(T0 + MINUTE)
    house.pipe.handle(binance_usdm.parse(json.dumps(frame), Instruments([BTC])), house.now)  # type: ignore[arg-type]
    (sent,) = [m for m in house.out if isinstance(m, KlineMessage)]
    text = messages.data_tail(sent, house.now)
    assert f'"open":{digits},' in text
    assert f'"volume":1000000000.{"1" * 18},' in text
    stored = house.store._series[sent.series].messages[T0].kline
    assert plain(stored.close) == digits


def test_line_messages_have_their_own_words() -> None:
    house = House()
    house.pipe.handle([trade(1, T0), book(101, 105, 99)], house.now)
    house.answer(SNAPSHOT)
    target = Target("BTCUSDT", Channel.BOOK, None, "", None)
    for sent in house.out:
        assert isinstance(sent, LineMessage)
        own = target.splice("mine")
        text = json.loads(
            messages.data_head(sent.line.channel) + own + messages.data_tail(sent, T0 + 0.5)
        )
        assert text["type"] == f"{sent.line.channel}_data"
        assert text["data"]["subscription_id"] == "mine"
        assert text["data"]["offset"] == 1
    assert text["data"]["data"]["bids"] == [[10.0, 1.0], [9.0, 2]]
