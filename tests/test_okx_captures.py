"""Every frame of two real recordings through the OKX parser (2022 and 2023, cryptofeed's)."""

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from attrs import evolve
from support.recordings import Recording, parse_recording

from trio_feed.model import BookUpdate, Instrument, Ticker, Trade, plain
from trio_feed.venues import Ack, Event, KlineUpdate
from trio_feed.venues.instruments import Instruments
from trio_feed.venues.okx import venue as okx

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures" / "cryptofeed"


def text_of(name: str) -> str:
    path = CAPTURES / name
    if not path.exists():
        pytest.skip(f"no recording at {path}")
    return path.read_text()


def recording(name: str) -> Recording:
    return parse_recording(text_of(f"{name}.ws.1.0"))


def answers(name: str) -> dict[str, bytes]:
    """The listings of a recording by their query, ``instType=SWAP``."""
    found = {}
    for line in text_of(f"{name}.0").splitlines():
        url, arrow, rest = line.partition(" -> ")
        if arrow:
            body = rest.partition(": ")[2].partition(" | header: ")[0]
            found[url.partition("?")[2]] = body.encode()
    return found


def instruments(name: str) -> list[Instrument]:
    return [each for body in answers(name).values() for each in okx.parse_instruments(body).good]


def events_of(name: str, table: Instruments) -> list[Event]:
    return [event for _, raw in recording(name).received for event in okx.parse(raw, table)]


def counts(events: list[Event]) -> dict[str, int]:
    return dict(Counter(type(event).__name__ for event in events))


def test_okx_instruments() -> None:
    for query, body in answers("OKX").items():
        assert len(okx.parse_instruments(body).good) == len(json.loads(body)["data"]), query
    table = Instruments(instruments("OKX"))
    assert len(table) == 513 + 166 + 104 + 346 + 350
    kinds = Counter(each.kind for each in table)
    assert kinds == {
        "spot": 513, "perpetual": 126, "inverse_perpetual": 40, "future": 52,
        "inverse_future": 52, "option": 696,
    }  # fmt: skip
    swap = table.of_symbol("BTCUSDTSWAP")
    assert swap is not None
    assert (swap.native, plain(swap.contract_size)) == ("BTC-USDT-SWAP", "0.01")


def test_okx_every_frame() -> None:
    table = Instruments(instruments("OKX"))
    received = recording("OKX").received
    assert len(received) == 410
    for _, raw in received:
        assert len(okx.parse(raw, table)) == len(json.loads(raw).get("data", [0]))
    events = events_of("OKX", table)
    assert counts(events) == {"BookUpdate": 290, "Ticker": 28, "Trade": 74, "Ack": 18}
    sent = {f"{arg['channel']}:{arg['instId']}" for _, text in recording("OKX").sent
            for arg in json.loads(text)["args"]}  # fmt: skip
    assert {event.name for event in events if isinstance(event, Ack)} == sent
    assert sum(event.snapshot for event in events if isinstance(event, BookUpdate)) == 3


def test_okx_trade_ids_are_consecutive() -> None:
    last: dict[str, int] = {}
    for event in events_of("OKX", Instruments(instruments("OKX"))):
        if isinstance(event, Trade):
            assert event.trade_id == last.get(event.symbol, event.trade_id - 1) + 1
            last[event.symbol] = event.trade_id
    assert last["BTCUSDT"] - 338476307 == 68


def test_okx_volumes_of_an_inverse_future_are_in_base() -> None:
    events = events_of("OKX", Instruments(instruments("OKX")))
    ticker = next(e for e in events if isinstance(e, Ticker) and e.symbol == "BTCUSD220527")
    assert (ticker.volume, ticker.quote_volume) == (Decimal("2620.289"), Decimal(77957300))
    assert ticker.volume is not None
    assert abs(779_573 * 100 / ticker.volume - ticker.last) < 1_000  # contracts of 100 USD each
    assert ticker.bid_size == 400


def test_okcoin_every_frame() -> None:
    events = events_of("OKCOIN", Instruments(instruments("OKCOIN")))
    assert len(recording("OKCOIN").received) == len(events) == 70
    assert counts(events) == {
        "Ack": 40,
        "KlineUpdate": 12,
        "Ticker": 8,
        "Trade": 4,
        "BookUpdate": 6,
    }
    closed = [e for e in events if isinstance(e, KlineUpdate) and e.kline.closed]
    assert len(closed) == 4
    keep_alive = [e for e in events if isinstance(e, BookUpdate) and not e.bids and not e.asks]
    assert len(keep_alive) == 2


class NaiveBook:
    """Price -> size, and OKX's old checksum over their digits."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}

    def apply(self, update: BookUpdate) -> None:
        if update.snapshot:
            self.__init__()  # type: ignore[misc]
        for side, levels in ((self.bids, update.bids), (self.asks, update.asks)):
            for price, size in levels:
                side.pop(price, None)
                if size:
                    side[price] = size

    def checksum(self) -> int:
        """crc32 over the best 25 levels, alternately ``bid:size:ask:size``, as signed int32."""
        bids = [(price, self.bids[price]) for price in sorted(self.bids, reverse=True)]
        asks = [(price, self.asks[price]) for price in sorted(self.asks)]
        parts: list[str] = []
        for rank in range(25):
            for side in (bids, asks):
                parts += [plain(number) for level in side[rank : rank + 1] for number in level]
        value = crc32(":".join(parts).encode())
        return value - 2**32 if value >= 2**31 else value


@pytest.mark.parametrize(("name", "books"), [("OKX", 290), ("OKCOIN", 6)])
def test_books_keep_the_digits_of_their_checksums(name: str, books: int) -> None:
    """Contracts are left as they are here (size 1), as the checksum is over the wire's digits."""
    as_sent = [evolve(each, contract_size=Decimal(1)) for each in instruments(name)]
    held: dict[str, NaiveBook] = {}
    verified = 0
    for event in events_of(name, Instruments(as_sent)):
        if isinstance(event, BookUpdate):
            book = held.setdefault(event.symbol, NaiveBook())
            book.apply(event)
            assert book.checksum() == event.checksum, f"{event.symbol} at {event.event_ms}"
            verified += 1
    assert verified == books


def test_books_of_contracts_are_converted() -> None:
    table = Instruments(instruments("OKX"))
    sizes: dict[str, Any] = {}
    for event in events_of("OKX", table):
        if isinstance(event, BookUpdate) and event.snapshot:
            sizes[event.symbol] = (plain(event.asks[0][1]), event.checksum is not None)
    assert sizes["BTCUSD220527"] == ("200", False)  # 2 contracts of 100 USD
    assert sizes["BTCUSDT"][1]
