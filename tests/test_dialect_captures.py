"""Frames that Binance sent, through our parsers and out of our dialect: equal in every field.

The recordings are of 2021 (BINANCE, BINANCE_FUTURES) and 2023 (BINANCE_TR), so the dialect of today
has fields that they lack.  What else differs is in :data:`ALLOWED`, each with its reason.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from support.dialect import SOURCE, Desk, names
from support.recordings import parse_recording
from test_binance_captures import read, table

from trio_feed.core.books import BookChannel
from trio_feed.core.effects import CandleNews, ChannelNews
from trio_feed.core.questions import Rules
from trio_feed.core.streams import Kind
from trio_feed.dialects.binance.profile import SPOT, USDM, Profile
from trio_feed.instants import Exchange, Mono, Now, Wall
from trio_feed.model import BookTop, BookUpdate, Channel, ChannelKey, Series, Trade
from trio_feed.venues import KlineUpdate, Venue
from trio_feed.venues.binance import spot, usdm

RECORDINGS: list[tuple[str, Profile, Venue]] = [
    ("BINANCE", SPOT, spot),
    ("BINANCE_FUTURES", USDM, usdm),
    ("BINANCE_TR", SPOT, spot),
]
NOW = Now(Mono(0.0), Wall(1_000.0), Exchange(1_000.0))
ADDED = "USD-M has it since 2026 (change notices of 2026-04 and 2026-06)"
IDS = "ids are our own, and fit to our /depth"
ALLOWED: dict[tuple[str, str], str] = {
    ("aggTrade", "st"): ADDED,
    ("bookTicker", "st"): ADDED,
    ("bookTicker", "ps"): ADDED,
    ("depthUpdate", "st"): ADDED,
    ("depthUpdate", "ps"): ADDED,
    ("bookTicker", "T"): "one time is kept: that of the event",
    ("depthUpdate", "T"): "one time is kept: that of the event",
    ("depthUpdate", "U"): IDS,
    ("depthUpdate", "u"): IDS,
    ("depthUpdate", "pu"): IDS,
    ("depthUpdate", "b"): "changes of what our book shows: rows without effect are left out",
    ("depthUpdate", "a"): "changes of what our book shows: rows without effect are left out",
}
"""By event and field, why it may differ."""
Row = tuple[dict[str, Any], dict[str, Any], bool]


def desk_of(name: str, profile: Profile, venue: Venue) -> Desk:
    return Desk(profile, table(name, venue))


def written(name: str, profile: Profile, venue: Venue) -> Iterator[tuple[str, str | None, str]]:
    """(event, what we write, what was recorded), frame by frame, books left out."""
    desk = desk_of(name, profile, venue)
    instruments = table(name, venue)
    opened: dict[str, Any] = {}
    for _, text in parse_recording(read(name, "ws.1.0")).received:
        stream = json.loads(text)["stream"]
        for event in venue.parse(text, instruments):
            news: ChannelNews | CandleNews
            if isinstance(event, Trade | BookTop):
                channel = Channel.TRADE if isinstance(event, Trade) else Channel.BBO
                key = ChannelKey(profile.venue, event.symbol, channel)
                news = ChannelNews(key, event, SOURCE, 1.0)
            elif isinstance(event, KlineUpdate):
                key = Series(profile.venue, event.symbol, event.interval)  # type: ignore[assignment]
                news = CandleNews(key, event.kline, 1, 1.0)  # type: ignore[arg-type]
            else:
                continue
            if stream not in opened:
                topic = desk.open(key)
                opened[stream] = desk.form(stream, wrapped=True), topic
            desk.publish(news)
            form, topic = opened[stream]
            yield stream.partition("@")[2], desk.text(form, topic), text


@pytest.mark.parametrize(("name", "profile", "venue"), RECORDINGS, ids=lambda v: str(v)[:16])
def test_what_was_recorded_comes_out_again(name: str, profile: Profile, venue: Venue) -> None:
    seen: Counter[str] = Counter()
    for kind, text, recorded in written(name, profile, venue):
        assert text is not None
        ours, theirs = json.loads(text), json.loads(recorded)
        assert ours["stream"] == theirs["stream"]
        mine, own = ours["data"], theirs["data"]
        event = mine.get("e", "bookTicker")
        different = {
            field.partition(".")[0]
            for field in names(mine) | names(own)
            if _at(mine, field) != _at(own, field)
        }
        unexpected = {field for field in different if (event, field) not in ALLOWED}
        assert not unexpected, (kind, text, recorded)
        seen[event] += 1
    if name == "BINANCE_FUTURES":
        assert seen == {"bookTicker": 613, "aggTrade": 91, "kline": 67}


def _at(found: dict[str, Any], path: str) -> Any:
    outer, _, inner = path.partition(".")
    value = found.get(outer)
    return value.get(inner) if inner and isinstance(value, dict) else value


@pytest.mark.parametrize("name", ["BINANCE", "BINANCE_TR"])
def test_spot_is_the_same_to_the_byte(name: str) -> None:
    """Trades, best prices and candles: no field, no order, no digit is another one."""
    for _, text, recorded in written(name, SPOT, spot):
        assert text == recorded


@pytest.mark.parametrize(("name", "profile", "venue"), RECORDINGS, ids=lambda v: str(v)[:16])
def test_the_changes_of_a_book(name: str, profile: Profile, venue: Venue) -> None:
    """Each row that has an effect comes out, in the digits in which it came in."""
    desk = desk_of(name, profile, venue)
    instruments = table(name, venue)
    arrivals: list[tuple[float, str, BookUpdate, str]] = []
    for symbol, at, body in re.findall(
        r"/depth\?symbol=(\w+)\S* -> ([\d.]+): (.*?)(?: header: .*)?$", read(name, "http.0.0"), re.M
    ):
        found = instruments.of_symbol(symbol)
        assert found is not None
        arrivals.append((float(at), symbol, venue.parse_book(body.encode(), found), ""))
    for at, text in parse_recording(read(name, "ws.1.0")).received:
        for event in venue.parse(text, instruments):
            if isinstance(event, BookUpdate):
                arrivals.append((at, event.symbol, event, text))
    books: dict[str, tuple[BookChannel, Any, Any]] = {}
    compared = 0
    for _, symbol, update, recorded in sorted(arrivals, key=lambda each: each[0]):
        if symbol not in books:
            key = ChannelKey(profile.venue, symbol, Channel.BOOK)
            rules = Rules(profile.venue, frozenset(), Kind.AGG_TRADE, book_rule=venue.BOOK_RULE)
            topic = desk.open(key)
            form = desk.form(f"{symbol.lower()}@depth@100ms", wrapped=True)
            books[symbol] = BookChannel(rules, key, 10_000, SOURCE), form, topic
        book, form, topic = books[symbol]
        before = _sides(book)
        effects = book.update([update], NOW) if recorded else book.snapshot(update, NOW)
        for effect in effects:
            if isinstance(effect, ChannelNews):
                desk.publish(effect)
                text_now = desk.text(form, topic)
                if recorded and not book.book.stale and before != ({}, {}):
                    assert text_now is not None
                    compared += _compare(text_now, recorded, before)
    assert compared > 50


def _sides(book: BookChannel) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
    bids, asks = book.book.levels(100_000)
    return dict(bids), dict(asks)


def _compare(
    text: str, recorded: str, before: tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]
) -> int:
    ours, theirs = json.loads(text), json.loads(recorded)
    assert ours["stream"] == theirs["stream"]
    mine, own = ours["data"], theirs["data"]
    assert (mine["e"], mine["E"], mine["s"]) == (own["e"], own["E"], own["s"])
    different = {name for name in mine.keys() | own.keys() if mine.get(name) != own.get(name)}
    assert all(("depthUpdate", name) in ALLOWED for name in different)
    effective = {
        side: [
            (price, size)
            for price, size in own[side]
            if held.get(Decimal(price), Decimal(0)) != Decimal(size)
        ]
        for side, held in zip("ba", before, strict=True)
    }
    for side, held in zip("ba", before, strict=True):
        if any(effective.values()):
            assert sorted(_rows(mine[side])) == sorted(_rows(effective[side]))
        else:  # nothing has changed: no event of ours is empty, it repeats what is there
            assert all(held[Decimal(price)] == Decimal(size) for price, size in mine[side])
    return len(mine["b"]) + len(mine["a"])


def _rows(rows: Any) -> list[tuple[str, str]]:
    """Of removed levels only that they are gone: the digits of their 0 are those of the size that
    was there."""
    return [(price, size if float(size) else "0") for price, size in rows]


def test_each_allowed_difference_has_a_reason() -> None:
    assert all(reason for reason in ALLOWED.values())
