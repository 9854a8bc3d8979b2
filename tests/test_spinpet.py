"""Spin Pet's events and the venue around them."""

import json
import struct
from base64 import b64encode
from decimal import Decimal
from typing import Any

import pytest
from attrs import asdict
from base58 import b58decode, b58encode
from hypothesis import example, given
from hypothesis import strategies as st

from trio_feed.errors import BadMessage
from trio_feed.model import Instrument, Interval, Price, plain
from trio_feed.simulator.solana.spinpet import (
    OTHER_EVENTS,
    PRICE_EVENTS,
    LogWriter,
    SpinPetMarket,
    encode_event,
    fields_of,
)
from trio_feed.venues import Ack, AnyInstrument, Event, Ignored, Instruments, Kind, Venue
from trio_feed.venues.spinpet.events import BuySellEvent, name_of, price_of, read_event
from trio_feed.venues.spinpet.venue import SpinPet

PROGRAM = b58encode(bytes(range(32))).decode()
ROUTER = b58encode(bytes(range(1, 33))).decode()
MINT = b58encode(b"\x07" * 32).decode()
SIGNATURE = b58encode(b"\x01" * 64).decode()
VENUE = SpinPet(PROGRAM)
EVERYTHING = AnyInstrument("spinpet", "token")
SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "u128": 16}


def buy(price: int, mint: bytes = b"\x07" * 32) -> bytes:
    return encode_event("BuySellEvent", {**keys("BuySellEvent"), "mint_account": mint,
                                         "latest_price": price})  # fmt: skip


def keys(event: str) -> dict[str, int | bytes]:
    return {name: b"\x09" * 32 for name, kind in fields_of(event).items() if kind == "key"}


def transaction(*data: bytes, err: Any = None, program: str = PROGRAM) -> str:
    writer = LogWriter()
    writer.invoke(program)
    for item in data:
        writer.data(item)
    writer.success(5)
    return notification(writer.lines, err)


def notification(logs: list[str], err: Any = None) -> str:
    value = {"signature": SIGNATURE, "err": err, "logs": logs}
    result = {"context": {"slot": 1}, "value": value}
    params = {"result": result, "subscription": 2}
    return json.dumps({"jsonrpc": "2.0", "method": "logsNotification", "params": params})


def parsed(raw: str, venue: SpinPet = VENUE) -> list[Event]:
    return [*venue.parse(raw, EVERYTHING)]


def test_an_event_by_hand() -> None:
    """Bytes that no encoder of ours has touched."""
    data = (
        bytes([98, 208, 120, 60, 93, 32, 19, 180])
        + b"\x00" * 32
        + b"\x07" * 32
        + b"\x01"
        + struct.pack("<QQ", 5_000_000, 2**64 - 1)
        + struct.pack("<QQ", 0x1122334455667788, 1)
    )
    event = read_event(data)
    assert event == BuySellEvent(
        payer="1" * 32,
        mint_account=MINT,
        is_buy=True,
        token_amount=5_000_000,
        sol_amount=2**64 - 1,
        latest_price=2**64 + 0x1122334455667788,
    )
    assert read_event(data + b"a field of the future") == event


@pytest.mark.parametrize("event", PRICE_EVENTS)
@given(data=st.data())
def test_every_field_of_every_price_event(event: str, data: st.DataObject) -> None:
    values: dict[str, Any] = {}
    for name, kind in fields_of(event).items():
        if kind == "key":
            values[name] = data.draw(st.binary(min_size=32, max_size=32))
        else:
            most = 1 if kind == "bool" else 2 ** (8 * SIZES[kind]) - 1
            values[name] = data.draw(st.integers(0, most))
    read = read_event(encode_event(event, values))
    assert read is not None
    fields = asdict(read)
    flat = fields.pop("close", {}) | fields.pop("order", {}) | fields
    assert flat.keys() == fields_of(event).keys()
    for name, value in values.items():
        expected = b58encode(value).decode() if isinstance(value, bytes) else value
        assert flat[name] == expected
    assert type(read).__name__ == name_of(encode_event(event, values)) == event


@pytest.mark.parametrize("event", OTHER_EVENTS)
def test_events_without_a_price(event: str) -> None:
    assert parsed(transaction(encode_event(event, keys(event)))) == [Ignored(event)]
    assert parsed(transaction(encode_event(event, keys(event))[:8])) == [Ignored(event)]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (0, "0"),
        (1, "0.0000000000000000000000000001"),
        (10**28, "1"),
        (100 * 10**28, "100"),
        (28 * 10**18, "0.0000000028"),
        (10**28 + 10**10, "1.000000000000000001"),
        (2**64, "0.0000000018446744073709551616"),
        (2**128 - 1, "34028236692.0938463463374607431768211455"),
        (2**127, "17014118346.0469231731687303715884105728"),
    ],
)
def test_prices_have_28_decimals(raw: int, text: str) -> None:
    """Exact beyond the 28 digits of Python's default decimal context."""
    (price,) = parsed(transaction(buy(raw)))
    assert isinstance(price, Price)
    assert plain(price.price) == text


@given(st.integers(0, 2**128 - 1))
@example(2**128 - 1)
def test_no_digit_of_a_price_is_lost(raw: int) -> None:
    event = read_event(buy(raw))
    assert event is not None
    sign, digits, exponent = price_of(event).as_tuple()
    assert isinstance(exponent, int)
    assert -28 <= exponent <= 0
    assert sign == 0
    assert int("".join(map(str, digits))) * 10 ** (28 + exponent) == raw


def test_symbol_and_key() -> None:
    events = parsed(transaction(buy(10**28), buy(3 * 10**28)))
    assert events == [
        Price(MINT, Decimal(1), f"{SIGNATURE}:1", 0),
        Price(MINT, Decimal(3), f"{SIGNATURE}:2", 0),
    ]
    assert parsed(transaction(buy(10**28), buy(3 * 10**28))) == events


def test_symbols_come_from_the_table() -> None:
    known = Instruments([Instrument("spinpet", "CAT", MINT, "token")])
    (price,) = VENUE.parse(transaction(buy(10**28)), known)
    assert isinstance(price, Price)
    assert price.symbol == "CAT"
    assert VENUE.parse(transaction(buy(10**28)), Instruments()) == [
        Ignored("price of an unknown instrument")
    ]


def test_only_our_program_is_read() -> None:
    assert parsed(transaction(buy(1), program=ROUTER)) == [Ignored("transaction without events")]
    writer = LogWriter()
    writer.invoke(ROUTER)
    writer.data(buy(10**28))
    writer.invoke(PROGRAM)
    writer.invoke(ROUTER)
    writer.data(buy(2 * 10**28))
    writer.success(5)
    writer.data(buy(3 * 10**28))
    writer.success(5)
    writer.success(5)
    (price,) = parsed(notification(writer.lines))
    assert isinstance(price, Price)
    assert (price.price, price.key) == (3, f"{SIGNATURE}:7")


def test_failed_transactions() -> None:
    writer = LogWriter()
    writer.invoke(PROGRAM)
    writer.data(buy(10**28))
    writer.fail("custom program error: 0x1771")
    raw = notification(writer.lines, {"InstructionError": [0, {"Custom": 6001}]})
    assert parsed(raw) == [Ignored("failed transaction")]
    (price,) = parsed(raw, SpinPet(PROGRAM, process_failed_transactions=True))
    assert isinstance(price, Price)


def test_truncated_logs_are_said() -> None:
    writer = LogWriter()
    writer.invoke(PROGRAM)
    writer.data(buy(10**28))
    for _ in range(120):
        writer.log("x" * 90)
    writer.data(buy(2 * 10**28))
    writer.success(5)
    assert writer.cut
    first, last = parsed(notification(writer.lines))
    assert isinstance(first, Price)
    assert last == Ignored("truncated logs")


@pytest.mark.parametrize("bad", [buy(7)[:-1], buy(7)[:8], buy(7)[:72] + b"\x02" + buy(7)[73:]])
def test_a_bad_event_hides_no_other(bad: bytes) -> None:
    before, broken, after = parsed(transaction(buy(10**28), bad, buy(2 * 10**28)))
    assert isinstance(before, Price)
    assert isinstance(after, Price)
    assert broken == Ignored("bad BuySellEvent")
    with pytest.raises(BadMessage, match=f"transaction {SIGNATURE}: BuySellEvent") as caught:
        parsed(transaction(encode_event("TokenCreated", keys("TokenCreated")), bad))
    assert caught.value.sample.startswith("62d0783c5d2013b4")


@pytest.mark.parametrize(
    ("event", "at"), [("BuySellEvent", 72), ("FullCloseEvent", 104), ("PartialCloseEvent", 104)]
)
def test_a_bool_is_0_or_1(event: str, at: int) -> None:
    data = bytearray(encode_event(event, keys(event)))
    for value, fits in ((0, True), (1, True), (2, False), (255, False)):
        data[at] = value
        if fits:
            assert read_event(bytes(data)) is not None
        else:
            with pytest.raises(BadMessage, match=f"{event}: {value} is not a bool"):
                read_event(bytes(data))


def test_data_that_is_not_base64() -> None:
    good = json.loads(transaction(buy(10**28)))
    lines = good["params"]["result"]["value"]["logs"]
    lines.insert(1, "Program data: ***")
    assert parsed(json.dumps(good))[0] == Ignored("bad data")
    del lines[2]
    with pytest.raises(BadMessage, match="not base64"):
        parsed(json.dumps(good))


def test_unknown_events_are_counted() -> None:
    unknown = Ignored("unknown spinpet event")
    assert parsed(transaction(b"\x01" * 40, b"", b"\x62")) == [unknown] * 3


def test_lines_that_do_not_nest() -> None:
    with pytest.raises(BadMessage, match=SIGNATURE):
        parsed(notification([f"Program data: {b64encode(buy(1)).decode()}"]))


def test_replies() -> None:
    assert parsed('{"jsonrpc":"2.0","result":24040,"id":1}') == [Ack("1")]
    refused = '{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params"},"id":1}'
    assert parsed(refused) == [Ack("1", "-32602 Invalid params")]


def test_one_connection_and_one_request() -> None:
    venue: Venue = SpinPet(PROGRAM, "finalized")
    streams = [
        venue.stream(Kind.PRICE, Instrument("spinpet", f"M{n}", f"M{n}", "token")) for n in range(3)
    ]
    (plan,) = venue.plan(venue.WEBSOCKET_URL, streams, 1)
    assert plan.url == "wss://api.mainnet-beta.solana.com"
    assert plan.streams == tuple(streams)
    (frame,) = plan.subscribe
    assert frame.acks == {"1"}
    assert json.loads(frame.text) == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "logsSubscribe",
        "params": [{"mentions": [PROGRAM]}, {"commitment": "finalized"}],
    }
    assert venue.plan(venue.WEBSOCKET_URL, [], 1) == []


def test_what_it_does_not_have() -> None:
    mint = EVERYTHING.of_symbol(MINT)
    for kind in set(Kind) - {Kind.PRICE}:
        with pytest.raises(ValueError, match=kind):
            VENUE.stream(kind, mint)
    with pytest.raises(ValueError, match="streams"):
        VENUE.stream(Kind.PRICE, mint, Interval.M1)
    with pytest.raises(ValueError, match="candles"):
        VENUE.klines_question(mint, Interval.M1, 0, 1, 0)
    assert not VENUE.LISTED
    assert not VENUE.INTERVALS
    assert VENUE.BOOK_RULE is None
    assert VENUE.instruments_questions() == []
    assert VENUE.trades_question(mint, 1) is None
    assert VENUE.book_question(mint) is None
    for parse in (VENUE.parse_klines, VENUE.parse_trades, VENUE.parse_book):
        with pytest.raises(BadMessage):
            parse(b"[]", mint)
    with pytest.raises(BadMessage):
        VENUE.parse_instruments(b"[]")


def test_settings_are_checked() -> None:
    for program in ("", "spinpet", PROGRAM[:-3], PROGRAM + "111", "0" * 44):
        with pytest.raises(ValueError, match="program_id"):
            SpinPet(program)
    with pytest.raises(ValueError, match="commitment"):
        SpinPet(PROGRAM, "recent")
    assert b58decode(VENUE.program_id) == bytes(range(32))


@given(st.data())
def test_mutations_raise_nothing_else(data: st.DataObject) -> None:
    """Of the message, and of the bytes of an event inside an intact message."""
    event = data.draw(st.sampled_from((*PRICE_EVENTS, *OTHER_EVENTS)))
    inner = mutated(encode_event(event, keys(event)), data)
    for raw in (transaction(inner), mutated(transaction(buy(7), inner).encode(), data)):
        try:
            events = VENUE.parse(raw, EVERYTHING)
        except BadMessage:
            continue
        assert events


def mutated(raw: bytes, data: st.DataObject) -> bytes:
    text = bytearray(raw)
    for _ in range(data.draw(st.integers(0, 6))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    return bytes(
        text[: data.draw(st.sampled_from((len(text), data.draw(st.integers(0, len(text))))))]
    )


def test_every_price_of_the_simulated_market_is_found() -> None:
    """Shapes of all kinds: routed, several in one, failed, cut off, strangers' look-alikes."""
    market = SpinPetMarket(3)
    venue = SpinPet(market.program_id)
    seen: set[str] = set()
    for _ in range(3000):
        tx = market.next_transaction()
        value = {"signature": tx.signature, "err": tx.err, "logs": tx.logs}
        params = {"result": {"context": {"slot": 1}, "value": value}, "subscription": 2}
        raw = json.dumps({"method": "logsNotification", "params": params})
        events = venue.parse(raw, EVERYTHING)
        prices = [event for event in events if isinstance(event, Price)]
        assert [(p.symbol, p.price, p.key) for p in prices] == [
            (q.mint, Decimal(q.price).scaleb(-28), f"{tx.signature}:{q.index}") for q in tx.quotes
        ]
        seen |= {event.kind for event in events if isinstance(event, Ignored)}
    assert seen == {"failed transaction", "truncated logs", "transaction without events",
                    *OTHER_EVENTS}  # fmt: skip
