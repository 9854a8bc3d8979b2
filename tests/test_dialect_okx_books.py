"""OKX's ``books`` out of our book: a client that keeps one by OKX's rules has ours.  Pure."""

import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

from attrs import define, field
from hypothesis import example, given
from hypothesis import strategies as st
from support.wire import payload_of

from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import ChannelNews
from trio_feed.dialects.market import Listing, MarketData
from trio_feed.dialects.okx.books import number_of
from trio_feed.dialects.okx.channels import Channels, Found
from trio_feed.metrics import Metrics
from trio_feed.model import BookView, Channel, ChannelKey, Instrument, Source
from trio_feed.push.context import SessionContext
from trio_feed.push.demand import Desk
from trio_feed.push.fanout.coalescing import WriteCoalescer
from trio_feed.push.fanout.hub import Hub
from trio_feed.push.fanout.send_queue import QueuedFrame
from trio_feed.push.fanout.topics import Subscription
from trio_feed.push.protocol import Subscribe
from trio_feed.venues.instruments import Instruments

KEY = ChannelKey("okx", "BTCUSDTSWAP", Channel.BOOK)
SWAP = Instrument(
    "okx", "BTCUSDTSWAP", "BTC-USDT-SWAP", "perpetual", "BTC", "USDT",
    contract_size=Decimal("0.01"),
)  # fmt: skip
Sides = tuple[dict[str, str], dict[str, str]]


@define(eq=False)
class Client:
    """Keeps a book as ccxt does, and raises where it does not follow."""

    sides: Sides = field(factory=lambda: ({}, {}))
    number: int | None = None

    def take(self, text: str | bytes) -> None:
        message = json.loads(text)
        (row,) = message["data"]
        if message["action"] == "snapshot":
            assert row["prevSeqId"] == -1
            self.sides = {}, {}
        else:
            assert row["prevSeqId"] == self.number, "a gap"
        self.number = row["seqId"]
        for held, side in zip(self.sides, ("bids", "asks"), strict=True):
            prices = [Decimal(level[0]) for level in row[side]]
            assert prices == sorted(prices, reverse=side == "bids")
            for price, size, *_ in row[side]:
                held.pop(price, None)
                if size != "0":
                    held[price] = size

    transport, waiting = SimpleNamespace(ready_fd=-1, bytes_out=0), ()

    def push(self, entry: QueuedFrame) -> None:
        self.take(payload_of(entry.frame))

    enqueue = push

    def send_status(self, subscription: Subscription, status: object) -> None: ...

    def topic_closed(self, subscription: Subscription) -> None: ...


@define(eq=False)
class World:
    """A book, its hub, and the clients of the dialect; messages wait for :meth:`hand_out`."""

    bus: LocalBus = field(init=False)
    hub: Hub = field(init=False)
    channels: Channels = field(init=False)
    clients: list[tuple[Client, Subscription]] = field(factory=list)
    shown: tuple[int, Sides] | None = None
    """The last view that is not hidden, with its number."""

    def __attrs_post_init__(self) -> None:
        self.bus = LocalBus(epoch=7, history_rows=1, resume_messages=100, now_ms=lambda: 0.0)
        self.hub = Hub(self.bus, default_venue="okx", now_ms=lambda: 0.0, metrics=Metrics())
        self.hub.coalescer = WriteCoalescer(at_once=0, clock=lambda: 0.0)
        context = cast("SessionContext", SimpleNamespace(hub=self.hub, desk=Desk()))
        table = cast("Listing", Instruments([SWAP]))
        self.channels = Channels(MarketData("okx", context, lambda _: table))
        self.bus.open(KEY)

    def publish(self, bids: dict[int, int], asks: dict[int, int], *, hidden: bool) -> None:
        def levels(side: dict[int, int], *, best: int) -> Any:
            ordered = sorted(side.items(), reverse=best > 0)
            return tuple((Decimal(p), Decimal(q).scaleb(-2)) for p, q in ordered)

        view = BookView("BTCUSDTSWAP", levels(bids, best=1), levels(asks, best=-1), False, 1, 5)
        source = Source.SIMULATED if hidden else Source.EXCHANGE
        numbered = self.bus.publish(ChannelNews(KEY, view, source, 0.0))
        assert numbered is not None
        if not hidden:
            number = number_of(numbered.epoch, numbered.offset)
            sides = tuple({str(p): str(q) for p, q in side.items()} for side in (bids, asks))
            self.shown = number, cast("Sides", sides)

    def join(self) -> None:
        found = self.channels.find("books", "BTC-USDT-SWAP")
        assert isinstance(found, Found)
        form, client = self.channels.form(found), Client()
        present = form.present()
        if present is not None:
            client.take(present)
        request = Subscribe(found.target, None, None, None)
        subscription = Subscription(client, found.topic, request, form, found.name)
        self.hub.subscribe(subscription)
        self.clients.append((client, subscription))

    def leave(self, which: int) -> None:
        if self.clients:
            _, subscription = self.clients.pop(which % len(self.clients))
            self.hub.unsubscribe(subscription)

    def hand_out(self) -> None:
        """The oldest message that waits goes to who still wants it."""
        if self.hub.coalescer.busy:
            self.hub.coalescer.turn()


sides = st.dictionaries(st.integers(1, 6), st.integers(1, 3), max_size=5)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), sides, sides, st.sampled_from([False, False, False, True])),
        st.tuples(st.just("join")),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("hand_out")),
    ),
    max_size=30,
)


ONE, TWO, THREE = (("publish", {1: n}, {2: n}, False) for n in (1, 2, 3))


@given(steps)
@example([ONE, ("join",), TWO, ("join",), ("leave", 0), ("hand_out",), THREE])
@example([ONE, ("join",), ("publish", {}, {}, True), ("join",), TWO])
@example([("join",), ONE, ("publish", {}, {}, True), ("join",), TWO])
@example([("join",), ONE, TWO, ("hand_out",), ("publish", {}, {}, True), ("join",)])
async def test_every_client_has_our_book(done: list[Any]) -> None:
    """Whenever they come and go, also while messages are under way; a fallback's are hidden."""
    world = World()
    for name, *words in done:
        if name == "publish":
            bids, asks, hidden = words
            world.publish(bids, {10 + p: q for p, q in asks.items()}, hidden=hidden)
        else:
            getattr(world, name)(*words)
    while world.hub.coalescer.busy:
        world.hand_out()
    for client, _ in world.clients:
        if world.shown is None:
            assert client.number is None
        elif client.number is not None:
            assert (client.number, client.sides) == world.shown
