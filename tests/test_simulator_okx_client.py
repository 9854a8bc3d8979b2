"""Our own OKX client reads everything that the OKX box says."""

from collections import defaultdict
from functools import partial
from itertools import pairwise
from typing import Any

import trio
import trio.testing
from support.books import OKX
from support.okx_box import (
    BUSINESS,
    PUBLIC,
    START,
    now_ms,
    open_okx,
    request,
)
from trio.testing import MockClock

from trio_feed.core.book import Book, Outcome
from trio_feed.model import BookTop, BookUpdate, Interval, Ticker, Trade, plain
from trio_feed.simulator.okx.bars import BARS
from trio_feed.venues import Ack, KlineUpdate, Pong
from trio_feed.venues.instruments import Instruments
from trio_feed.venues.okx import venue as okx

HOUR = 3_600_000
DAY = 24 * HOUR


# --- our own client -------------------------------------------------------------------------------


async def known(box: Any) -> Instruments:
    """The instruments, asked for and read by our own client."""
    found = []
    for question in okx.instruments_questions():
        query = "&".join(f"{name}={value}" for name, value in question.params.items())
        found += okx.parse_instruments((await box.get(f"{question.path}?{query}")).body).good
    return Instruments(found)


async def test_our_client_understands_everything(autojump_clock: MockClock) -> None:
    """Every frame of every channel of every instrument: no BadMessage, nothing ignored."""
    kinds: dict[str, int] = defaultdict(int)

    async def read(box: Any, path: str, names: list[str]) -> None:
        async with box.websocket(path, *names) as websocket:
            with trio.move_on_after(65):
                while True:
                    await websocket.send_message("ping")
                    for _ in range(10):
                        for event in okx.parse(await websocket.get_message(), table):
                            kinds[type(event).__name__] += 1
                            assert not isinstance(event, Ack) or not event.error

    async with open_okx(trades=60) as box:
        table = await known(box)
        assert [(i.symbol, i.kind, plain(i.contract_size)) for i in table][::3] == [
            ("BTCUSDT", "spot", "1"), ("BTCUSDTSWAP", "perpetual", "0.01")
        ]  # fmt: skip
        natives = [instrument.native for instrument in table]
        bars = {okx.messages.BARS[interval] for interval in okx.INTERVALS}
        business = [f"candle{bar}" for bar in bars] + ["trades-all"]
        public = ["tickers", "trades", "books", "books5", "bbo-tbt"]
        async with trio.open_nursery() as nursery:
            for path, channels in ((BUSINESS, business), (PUBLIC, public)):
                names = [f"{channel}:{native}" for channel in channels for native in natives]
                nursery.start_soon(partial(read, box, path, names))
    assert set(kinds) == {
        kind.__name__ for kind in (Ack, Pong, KlineUpdate, Trade, Ticker, BookUpdate, BookTop)
    }
    assert kinds["Ack"] == len(natives) * (len(business) + len(public))


async def test_our_book_follows(autojump_clock: MockClock) -> None:
    """In sequence and uncrossed; a lost update is a gap; a reset is none; resubscribing heals."""
    async with open_okx() as box, box.websocket(PUBLIC, "books:ETH-USDT-SWAP") as websocket:
        table = await known(box)
        book = Book("ETHUSDTSWAP", OKX)
        outcomes: list[str] = []

        async def feed(seconds: float) -> None:
            outcomes.clear()
            with trio.move_on_after(seconds):
                while True:
                    for event in okx.parse(await websocket.get_message(), table):
                        if isinstance(event, BookUpdate):
                            outcomes.append(book.update(event).outcome)
                            assert not book.crossed

        await feed(15)
        assert set(outcomes) == {Outcome.APPLIED}
        assert len(outcomes) > 100
        best = box.exchange.data.books["ETHUSDT"].levels(book.event_ms // 100, 400)
        assert book.levels(400) == best
        box.exchange.reset_books("ETH-USDT-SWAP")
        await feed(5)
        assert set(outcomes) == {Outcome.APPLIED}
        assert book.counts.resets == 1
        (rest,) = await box.data("market/books?instId=ETH-USDT-SWAP")
        assert abs(rest["seqId"] - book.last_id) <= 10
        box.exchange.gap_books("ETH-USDT-SWAP")
        await feed(5)
        assert outcomes[0] == Outcome.RESYNC
        assert book.stale
        for op in ("unsubscribe", "subscribe"):
            await websocket.send_message(request(op, "books:ETH-USDT-SWAP"))
        await feed(5)
        assert outcomes[-1] == Outcome.APPLIED
        assert (book.stale, book.counts.resyncs, book.counts.gaps) == (False, 1, 1)


async def test_our_client_pages_candles_and_trades(autojump_clock: MockClock) -> None:
    """Its questions walk forward without a hole."""
    async with open_okx(trades=60) as box:
        table = await known(box)
        instrument = table.find("BTC-USDT-SWAP")
        assert instrument is not None

        async def ask(question: Any) -> bytes:
            query = "&".join(f"{name}={value}" for name, value in question.params.items())
            await trio.sleep(0.1)
            return (await box.get(f"{question.path}?{query}")).body

        for interval in sorted(okx.INTERVALS - {Interval.S1}):
            start = BARS[okx.messages.BARS[interval]].open_of(START - 700 * HOUR)
            question = okx.klines_question(instrument, interval, start, 300, now_ms())
            klines = okx.parse_klines(await ask(question), instrument).good
            assert klines[0].open_ms == start
            bar = BARS[okx.messages.BARS[interval]]
            assert all(bar.next_open(a.open_ms) == b.open_ms for a, b in pairwise(klines))
        first = box.market.first_id("BTCUSDT", START - DAY)
        question = okx.trades_question(instrument, first)
        assert question is not None
        trades = okx.parse_trades(await ask(question), instrument).good
        assert [t.trade_id for t in trades] == list(range(first, first + 100))
        wanted = [*box.market.trades_from("BTCUSDT", first, 100)]
        assert [(t.price, t.quantity, t.buyer_is_maker) for t in trades] == [
            (t.price, t.quantity, t.buyer_is_maker) for t in wanted
        ]
