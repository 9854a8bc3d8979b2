"""A client's own book, kept by the exchange's documented rules out of our diff stream and our
snapshots, is our book at every update: at every speed, across our resyncs, whenever it comes."""

import json
from decimal import Decimal
from typing import Any

import pytest
from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.dialect import SOURCE, Desk

from trio_feed.core.books import BookChannel
from trio_feed.core.effects import ChannelNews
from trio_feed.core.questions import Rules
from trio_feed.core.streams import Kind
from trio_feed.dialects.binance.profile import SPOT, USDM, Profile
from trio_feed.instants import Exchange, Mono, Now, Wall
from trio_feed.model import BookUpdate, BookView, Channel, ChannelKey, Instrument, Level
from trio_feed.push.fanout.encoded import StreamForm
from trio_feed.venues.binance import spot, usdm

BTC = "BTCUSDT"
SPEEDS = ("", "@100ms", "@250ms", "@500ms", "@0ms", "@1000ms")
LEVELS = 4
"""What is shown: few, so that levels are pushed out of the view and come back."""
NOW = Now(Mono(0.0), Wall(1_000.0), Exchange(1_000.0))


@define
class TheirBook:
    """What a client does by "How to manage a local order book correctly": spot (2025-11-12) and
    USD-M (2026-05-28)."""

    spot: bool
    buffered: list[dict[str, Any]] = field(factory=list)
    last: int | None = None
    synced: bool = False
    sides: dict[str, dict[str, str]] = field(factory=dict)

    def event(self, event: dict[str, Any]) -> None:
        if self.last is None:
            self.buffered.append(event)
        else:
            self._take(event)

    def snapshot(self, answer: dict[str, Any]) -> None:
        if self.buffered and answer["lastUpdateId"] < self.buffered[0]["U"]:
            return  # too old: it is asked for again
        self.last, self.synced = answer["lastUpdateId"], False
        self.sides = {side: dict(answer[side]) for side in ("bids", "asks")}
        buffered, self.buffered = self.buffered, []
        for event in buffered:
            self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        assert self.last is not None
        old = event["u"] <= self.last if self.spot else event["u"] < self.last
        if old:
            return
        if not self.synced:
            begins = event["U"] <= (self.last + 1 if self.spot else self.last) <= event["u"]
            assert begins, (event, self.last)
            self.synced = True
        elif self.spot:
            assert event["U"] == self.last + 1
        else:
            assert event["pu"] == self.last
        for side, rows in (("bids", event["b"]), ("asks", event["a"])):
            for price, size in rows:
                if float(size):
                    self.sides[side][price] = size
                else:
                    self.sides[side].pop(price, None)
        self.last = event["u"]

    def levels(self) -> tuple[list[Level], list[Level]]:
        """Best first."""
        bids, asks = (
            [(Decimal(price), Decimal(size)) for price, size in self.sides[side].items()]
            for side in ("bids", "asks")
        )
        return sorted(bids, reverse=True), sorted(asks)


class TheirExchange:
    """The exchange's book and what it says of it, with ids as each market gives them."""

    def __init__(self, profile: Profile) -> None:
        self.spot = profile.spot
        self.last = 100
        self.bids = {Decimal(90 - n): Decimal(1) for n in range(6)}
        self.asks = {Decimal(110 + n): Decimal(1) for n in range(6)}

    def change(self, changes: list[tuple[bool, int, int]]) -> BookUpdate:
        rows: tuple[list[Level], list[Level]] = ([], [])
        for bid, at, size in changes:
            price = Decimal(99 - at if bid else 101 + at)
            side = self.bids if bid else self.asks
            rows[not bid].append((price, Decimal(size)))
            if size:
                side[price] = Decimal(size)
            else:
                side.pop(price, None)
        before, self.last = self.last, self.last + 2
        previous = None if self.spot else before
        first = before + 1
        return BookUpdate(BTC, first, self.last, previous, tuple(rows[0]), tuple(rows[1]))

    def snapshot(self) -> BookUpdate:
        bids = tuple(sorted(self.bids.items(), reverse=True))
        asks = tuple(sorted(self.asks.items()))
        return BookUpdate(BTC, self.last, self.last, None, bids, asks, snapshot=True)


CHANGE = st.lists(
    st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 3)), min_size=0, max_size=5
)
STEP = st.one_of(
    st.tuples(st.just("change"), CHANGE),
    st.tuples(st.just("change"), CHANGE),
    st.tuples(st.just("change"), CHANGE),
    st.tuples(st.sampled_from(["miss", "reset", "join", "leave", "forget", "ask"]), CHANGE),
)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("profile", [SPOT, USDM], ids=lambda p: p.venue)
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEP, max_size=40))
@example(
    steps=[
        ("leave", []), ("change", [(True, 0, 2)]), ("join", []), ("ask", []),
        ("change", [(True, 0, 1)]),
    ]
)  # fmt: skip
def test_it_is_ours(profile: Profile, speed: str, steps: list[tuple[str, Any]]) -> None:
    kind = "spot" if profile.spot else "perpetual"
    desk = Desk(profile, [Instrument(profile.venue, BTC, BTC, kind)])
    key = ChannelKey(profile.venue, BTC, Channel.BOOK)
    topic = desk.open(key)
    venue = spot if profile.spot else usdm
    rules = Rules(
        profile.venue, frozenset(), Kind.AGG_TRADE, book_rule=venue.BOOK_RULE,
        book_snapshot_levels=None,
    )  # fmt: skip
    ours, theirs = BookChannel(rules, key, LEVELS, SOURCE), TheirExchange(profile)
    client: TheirBook | None = None
    form: StreamForm | None = None
    checked = 0

    def published(effects: list[Any]) -> None:
        nonlocal checked
        for effect in effects:
            if not isinstance(effect, ChannelNews):
                continue
            desk.publish(effect)
            if client is None or form is None:
                continue
            text = desk.text(form, topic)
            assert text is not None
            assert desk.text(form, topic) == text  # another client of the same stream
            client.event(json.loads(text))
            if client.synced:
                view = effect.data
                assert isinstance(view, BookView)
                assert client.levels() == (list(view.bids), list(view.asks))
                checked += 1

    published(ours.update([theirs.change([])], NOW))
    published(ours.snapshot(theirs.snapshot(), NOW))
    for what, changes in [("join", []), ("change", [(True, 0, 1)]), ("ask", []), *steps]:
        if what == "change":
            published(ours.update([theirs.change(changes)], NOW))
        elif what == "miss":  # the exchange's stream loses one of its messages
            theirs.change([*changes, (True, 3, 2)])
            published(ours.update([theirs.change(changes)], NOW))
        elif what == "reset":  # the connection, and a new snapshot in the place of what was missed
            published(ours.lost(NOW))
            theirs.change([*changes, (False, 3, 2)])
            published(ours.update([theirs.change(changes)], NOW))
        elif what == "join":
            client, form = TheirBook(profile.spot), desk.form(f"btcusdt@depth{speed}")
        elif what == "leave":  # the stream's form is still somebody's, and misses what follows
            client = None
        elif what == "forget":
            client, form = None, None
        elif client is not None:
            status, answer = desk.ask("depth", symbol=BTC, limit=1000)
            assert status == 200
            client.snapshot(answer)
        if what in ("ask", "join") and ours.book.stale:  # the answer of REST takes its time
            ours.asked(NOW)
            published(ours.snapshot(theirs.snapshot(), NOW))
    if ours.book.stale:
        published(ours.snapshot(theirs.snapshot(), NOW))
    published(ours.update([theirs.change([(True, 1, 7)])], NOW))
    if client is not None and form is not None and client.last is None:
        client.snapshot(desk.ask("depth", symbol=BTC, limit=1000)[1])
    published(ours.update([theirs.change([(True, 1, 9)])], NOW))
    assert checked or client is None


CHANGES = st.lists(CHANGE, max_size=12)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("profile", [SPOT, USDM], ids=lambda p: p.venue)
@settings(max_examples=40, deadline=None)
@given(first=CHANGES, between=CHANGES, others=st.booleans(), cut=st.booleans())
@example(first=[], between=[[(True, 0, 1)], [(True, 0, 0)]], others=False, cut=False)
def test_a_snapshot_before_the_subscription(
    profile: Profile, wrapped: bool, first: Any, between: Any, others: bool, cut: bool
) -> None:
    """As python-binance does it: every event behind the snapshot comes, whoever has the stream
    already (``others``) and whatever happens to our connection (``cut``)."""
    desk = Desk(profile, [Instrument(profile.venue, BTC, BTC, "spot")])
    key = ChannelKey(profile.venue, BTC, Channel.BOOK)
    topic = desk.open(key)
    venue = spot if profile.spot else usdm
    rules = Rules(
        profile.venue, frozenset(), Kind.AGG_TRADE, book_rule=venue.BOOK_RULE,
        book_snapshot_levels=None,
    )  # fmt: skip
    ours, theirs = BookChannel(rules, key, LEVELS, SOURCE), TheirExchange(profile)
    form: StreamForm | None = None
    client = TheirBook(profile.spot)
    shown: BookView | None = None
    live = False

    def published(effects: list[Any]) -> None:
        nonlocal shown
        for effect in effects:
            if isinstance(effect, ChannelNews):
                desk.publish(effect)
                shown = effect.data  # type: ignore[assignment]
                text = None if form is None else desk.text(form, topic)
                if live:
                    taken(text or "")

    def taken(text: str) -> None:
        event = json.loads(text)
        client.event(event["data"] if wrapped else event)

    published(ours.update([theirs.change([])], NOW))
    published(ours.snapshot(theirs.snapshot(), NOW))
    if others:
        form = desk.form("btcusdt@depth", wrapped=wrapped)
    for changes in first:
        published(ours.update([theirs.change(changes)], NOW))
    desk.now_ms += 60_000
    client.snapshot(desk.ask("depth", symbol=BTC, limit=1000)[1])
    for changes in between:
        published(ours.update([theirs.change(changes)], NOW))
    if cut:
        published(ours.lost(NOW))
        published(ours.update([theirs.change([(True, 2, 5)])], NOW))
        ours.asked(NOW)
        published(ours.snapshot(theirs.snapshot(), NOW))
    desk.now_ms += 4_000
    form = desk.form("btcusdt@depth", wrapped=wrapped)
    for text in desk.streams.missed(desk.found("btcusdt@depth"), form):
        taken(text)
    live = True
    for size in (7, 8):
        published(ours.update([theirs.change([(True, 1, size)])], NOW))
        assert shown is not None
        assert client.levels() == (list(shown.bids), list(shown.asks))


def test_nobody_asked_so_nothing_old_is_sent() -> None:
    """Nor where too much came since, or it is long ago."""
    desk = Desk(SPOT, [Instrument("binance", BTC, BTC, "spot")])
    key = ChannelKey("binance", BTC, Channel.BOOK)
    desk.open(key)
    form, found = desk.form("btcusdt@depth"), desk.found("btcusdt@depth")

    def show(count: int) -> None:
        for size in range(1, count + 1):
            level = ((Decimal(1), Decimal(size)),)
            desk.publish(ChannelNews(key, BookView(BTC, level, (), False, size, 0), SOURCE, 0.0))

    show(3)
    assert desk.streams.missed(found, form) == []
    desk.ask("depth", symbol=BTC)
    assert desk.streams.missed(found, form) == []
    show(2)
    assert len(desk.streams.missed(found, form)) == 2
    desk.ask("depth", symbol=BTC)
    show(63)
    assert len(desk.streams.missed(found, form)) == 63  # since the second snapshot
    show(2)
    assert desk.streams.missed(found, form) == []
    desk.ask("depth", symbol=BTC)
    show(1)
    desk.now_ms += 5_000
    assert len(desk.streams.missed(found, form)) == 1
    desk.now_ms += 1
    assert desk.streams.missed(found, form) == []


def test_it_can_fail() -> None:
    """A client that misses an event notices it by the ids."""
    for profile in (SPOT, USDM):
        desk = Desk(profile, [Instrument(profile.venue, BTC, BTC, "spot")])
        key = ChannelKey(profile.venue, BTC, Channel.BOOK)
        topic = desk.open(key)
        form, client = desk.form("btcusdt@depth"), TheirBook(profile.spot)

        def show(size: int, key: ChannelKey = key, desk: Desk = desk) -> None:
            level = ((Decimal(1), Decimal(size)),)
            view = BookView(BTC, level, (), False, size, 0)
            desk.publish(ChannelNews(key, view, SOURCE, 0.0))

        texts = []
        for size in (1, 2, 3, 4):
            show(size)
            texts.append(desk.text(form, topic))
            if size == 1:
                client.snapshot(desk.ask("depth", symbol=BTC)[1])
        client.event(json.loads(texts[1] or ""))
        with pytest.raises(AssertionError):
            client.event(json.loads(texts[3] or ""))
