"""ChainFeed: notifications and answers in, candles of every mint out, and how far it has read."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import trio
from attrs import define, evolve, field, frozen
from structlog.testing import capture_logs
from support.bench import Bench, wall_ms
from support.make import T0

from trio_feed.core.calendar import open_of
from trio_feed.core.chain_cursor import ChainCursor
from trio_feed.core.questions import Rules
from trio_feed.core.streams import Kind, Stream
from trio_feed.environment import mono
from trio_feed.errors import BadMessage, NetworkError, RateLimited
from trio_feed.ingest.chain import ChainFeed
from trio_feed.ingest.chain_memory import ChainMemory
from trio_feed.instants import Wall
from trio_feed.model import Interval, Kline, Price
from trio_feed.net.rest import Answer
from trio_feed.settings import ChainSettings
from trio_feed.transactions import (
    AskBlockTime,
    AskSignatures,
    AskSlot,
    AskTransaction,
    Question,
    SignaturePage,
    SignatureRow,
    Transaction,
)
from trio_feed.venues.base import RestQuestion

S1, M5 = Interval.S1, Interval.M5
RULES = Rules("spinpet", frozenset(), Kind.PRICE, refill=False, chain=True)
PRICES = Stream("", "logs", "*", Kind.PRICE)
SLOT_MS = 200
BEGAN = T0 + 1_000
"""The feed begins inside of second 0, so that is not known whole."""


def slot_at(seconds: float) -> int:
    return int(T0 + seconds * 1000) // SLOT_MS


def time_of(slot: int) -> int:
    return slot * SLOT_MS // 1000 * 1000


def tx(name: str, seconds: float, *prices: tuple[str, str], **more: Any) -> Transaction:
    """A transaction of this moment, on the chain."""
    found = tuple(Price(mint, Decimal(p), f"{name}:{n}") for n, (mint, p) in enumerate(prices))
    slot = slot_at(seconds)
    return evolve(Transaction(name, slot, found, time_ms=time_of(slot)), **more)


@frozen
class Venue:
    """Questions and answers are values here; the nodes hand them through."""

    NAME: str = "spinpet"
    chain: bool = True
    asked: dict[bytes, Question] = field(factory=dict)

    def question(self, question: Question) -> RestQuestion:
        body = str(len(self.asked)).encode()
        self.asked[body] = question
        return RestQuestion(type(question).__name__, {}, body=body)

    def parse_answer(self, question: Question, body: bytes, instruments: Any) -> Any:
        return NODES[body]


NODES: dict[bytes, Any] = {}


@define
class Node:
    """What one node knows.  ``faults`` are raised by the next questions of a kind."""

    venue: Venue
    landed: list[Transaction] = field(factory=list)
    faults: dict[str, list[Exception]] = field(factory=dict)
    asked: list[str] = field(factory=list)
    ahead_ms: float | None = None
    """How far its calendar is ahead of ours; None: its answers have no date."""

    async def post(self, body: bytes, *, name: str, weight: int) -> Answer:
        await trio.sleep(0.05)
        self.asked.append(name)
        if self.faults.get(name):
            raise self.faults[name].pop(0)
        NODES[body] = self.answer(self.venue.asked[body])
        date_ms = None if self.ahead_ms is None else wall_ms() + self.ahead_ms
        return Answer(body, date_ms, mono(), mono())

    def answer(self, question: Question) -> Any:
        match question:
            case AskSlot():
                return slot_at(trio.current_time())
            case AskBlockTime(slot=slot):
                return time_of(slot)
            case AskTransaction(signature=signature):
                return next((t for t in self.landed if t.signature == signature), None)
            case AskSignatures(before=before, limit=limit):
                rows = [
                    SignatureRow(t.signature, t.slot, t.failed, t.time_ms)
                    for t in reversed(self.landed)
                ]
                names = [row.signature for row in rows]
                rows = rows[names.index(before) + 1 if before in names else 0 :][:limit]
                return SignaturePage(tuple(rows), len(rows))


@define
class RunningChain:
    """A feed that runs.  ``cursors`` are what it wants kept, ``recalled`` whom it asked for."""

    bench: Bench
    node: Node
    feed: ChainFeed
    cursors: list[ChainCursor]
    recalled: list[Collection[str]]
    lines: list[Any]

    async def happens(self, *transactions: Transaction, told: bool = True) -> None:
        """They land; whoever listens hears of it at once."""
        for transaction in transactions:
            self.node.landed.append(transaction)
            if told:
                heard = evolve(transaction, time_ms=0, accounts=None)
                self.feed.heard(heard, mono(), Wall(wall_ms()))
        await self.feed.prices.apply()

    def candles(self, mint: str, interval: Interval = S1) -> list[Kline]:
        """Closed ones, the last word of each."""
        found = {
            news.kline.open_ms: news.kline
            for news in self.bench.bus.candles
            if news.series.symbol == mint and news.series.interval is interval and news.kline.closed
        }
        return [found[at] for at in sorted(found)]

    def closes(self, mint: str) -> dict[int, str]:
        """Second -> close, of the complete ones."""
        return {
            (row.open_ms - T0) // 1000: str(row.close) for row in self.candles(mint) if row.complete
        }

    def marked(self, mint: str) -> list[int]:
        return [(r.open_ms - T0) // 1000 for r in self.candles(mint) if not r.complete]

    def events(self, name: str) -> list[Any]:
        return [line for line in self.lines if line["event"] == name]


@asynccontextmanager
async def running_chain(
    *, cursor: ChainCursor | None = None, landed: Collection[Transaction] = (), **more: Any
) -> AsyncIterator[RunningChain]:
    """Mints A and B, known since before the beginning."""
    options = {"symbols": ("A", "B"), "trade_intervals": (S1, M5)} | more
    bench = Bench(RULES, intervals=(), **options)
    venue = Venue()
    node = Node(venue, [tx("old", -100), *landed])
    cursors: list[ChainCursor] = []
    recalled: list[Collection[str]] = []

    class Symbols:
        async def meet(self, symbol: str) -> None:
            if bench.driver.is_stranger(symbol):
                bench.driver.meet(symbol, {}, {})

        async def recall(self, symbols: Collection[str]) -> None:
            recalled.append(symbols)

    @define
    class Memory(ChainMemory):
        def keep(self, cursor: ChainCursor) -> None:
            cursors.append(cursor)

    with capture_logs() as lines:
        feed = ChainFeed(
            venue,
            ChainSettings(),
            bench.driver,
            [node],  # type: ignore[list-item]
            Symbols(),
            Memory(bench.store, "a chain", cursor),
        )
        for symbol in ("A", "B"):
            engine = bench.driver.open(symbol, {})
            engine.priced.known_since(T0 - 200_000)
            bench.driver.use(symbol, [PRICES])
        bench.driver.up([PRICES])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run)
            feed.confirmed(mono(), Wall(wall_ms()))
            await trio.sleep(1)
            yield RunningChain(bench, node, feed, cursors, recalled, lines)
            nursery.cancel_scope.cancel()


async def test_the_nodes_answers_say_what_time_it_is(autojump_clock: trio.abc.Clock) -> None:
    """Our calendar may be wrong, and prices that are only heard of get the chain's time."""
    async with running_chain() as d:
        d.node.ahead_ms = 90_000.0
        await trio.sleep(60)
        shown = float(d.bench.driver.clock.at(mono()))
        assert shown - wall_ms() == pytest.approx(90_000, abs=2_000)


async def test_a_later_price_closes_the_candles_of_every_mint(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_chain() as d:
        await d.happens(tx("a", 1, ("A", "1.0")))
        await trio.sleep(0.5)
        await d.happens(tx("b", 1.5, ("B", "5.0")))
        assert d.closes("A") == {}
        await trio.sleep(0.7)
        await d.happens(tx("c", 2.2, ("B", "6.0")))
        assert d.closes("A") == {}  # no node has said when that was
        await trio.sleep(3)
        assert d.closes("A") == {1: "1.0"}
        assert d.closes("B") == {1: "5.0"}
        assert d.feed.prices.began_ms == BEGAN


async def test_a_reading_of_the_list_closes_what_nobody_followed(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_chain() as d:
        await d.happens(tx("a", 1, ("A", "1.0")))
        assert not d.closes("A")
        await trio.sleep(25)
        assert d.closes("A") == {1: "1.0"}
        assert d.feed.is_quiet()
        assert d.bench.driver.engines["A"].priced.next_end_ms == open_of(M5, T0) + 300_000


async def test_what_was_lost_is_fetched_and_counts_in_its_own_second(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_chain() as d:
        await d.happens(tx("a", 1, ("A", "1.0")))
        await trio.sleep(2.8)  # the list was read for the time of the first
        await d.happens(tx("b", 3.8, ("A", "2.0")), told=False)
        await trio.sleep(3.2)
        await d.happens(tx("c", 7, ("A", "3.0")))
        assert d.closes("A") in ({}, {1: "1.0"})
        await trio.sleep(25)
        assert d.closes("A") == {1: "1.0", 3: "2.0", 7: "3.0"}
        assert d.candles("A")[-1].open == Decimal("2.0")
        assert d.bench.count("repaired", "price") == 1
        assert not d.feed.is_quiet()  # the subscription has hidden something since it spoke


async def test_after_a_hidden_one_it_is_quiet_again_once_the_subscription_speaks(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_chain() as d:
        await d.happens(tx("a", 1, ("A", "1.0")))
        await trio.sleep(25)
        at = trio.current_time()
        await d.happens(tx("b", at, ("A", "2.0")), told=False)
        await trio.sleep(25)
        assert not d.feed.is_quiet()
        await d.happens(tx("c", trio.current_time(), ("A", "3.0")))
        assert d.feed.is_quiet()


async def test_a_retracted_price_leaves_its_candle(autojump_clock: trio.abc.Clock) -> None:
    async with running_chain() as d:
        d.feed._repair._retracts = True  # as with `processed`
        await d.happens(tx("a", 1, ("A", "1.0")))
        await trio.sleep(2)
        await d.happens(tx("gone", 3, ("A", "9.0"), ("B", "9.0")))
        d.node.landed.pop()
        await trio.sleep(2)
        await d.happens(tx("c", 5, ("A", "3.0")))
        await trio.sleep(60)
        assert d.closes("A") == {1: "1.0", 3: "1.0", 5: "3.0"}
        assert [row.trades for row in d.candles("A")] == [1, 0, 1]


@pytest.mark.parametrize(
    ("accounts", "marked"),
    [(frozenset({"B", "program"}), {"A": [], "B": [2]}), (None, {"A": [2], "B": [2]})],
)
async def test_cut_logs_mark_the_mints_that_the_transaction_names(
    accounts: frozenset[str] | None, marked: dict[str, list[int]], autojump_clock: trio.abc.Clock
) -> None:
    async with running_chain() as d:
        await d.happens(tx("a", 1, ("A", "1.0"), ("B", "1.0")))
        await trio.sleep(20)
        at = trio.current_time()
        await d.happens(tx("x", at, ("A", "2.0"), ("B", "2.0")))
        await d.happens(tx("cut", at, truncated=True, accounts=accounts))
        await trio.sleep(10)
        await d.happens(tx("z", at + 10, ("A", "3.0"), ("B", "3.0")))
        await trio.sleep(30)
        assert d.recalled == ([accounts] if accounts else [])
        for mint, seconds in marked.items():
            bad = d.marked(mint)
            assert (int(at) in bad) is bool(seconds)
            assert 1 not in bad
        assert (d.feed.prices.began_ms == BEGAN) is (accounts is not None)


async def test_cut_logs_that_one_answer_has_whole_mark_nothing(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_chain() as d:
        whole = tx("a", 1, ("A", "1.0"), ("B", "2.0"))
        d.node.landed.append(whole)
        told = evolve(whole, prices=whole.prices[:1], truncated=True, time_ms=0)
        d.feed.heard(told, mono(), Wall(wall_ms()))
        await trio.sleep(30)
        assert (d.closes("A"), d.closes("B")) == ({1: "1.0"}, {1: "2.0"})
        assert (d.marked("A"), d.marked("B"), d.events("chain.gap")) == ([], [], [])


def refused() -> Exception:
    return RateLimited("429", mono() + 7.0)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: NetworkError("gone"), "NetworkError", 1),
        (lambda: BadMessage("nonsense"), "BadMessage", 1),
        (refused, "RateLimited", 0),
    ],
)
async def test_a_question_that_fails_is_counted_and_asked_again(
    make: Callable[[], Exception], kind: str, said: int, autojump_clock: trio.abc.Clock
) -> None:
    async with running_chain() as d:
        await d.happens(tx("a", 1, ("A", "1.0")), told=False)
        d.node.faults["AskTransaction"] = [make()]
        await trio.sleep(40)
        assert d.closes("A") == {1: "1.0"}
        assert d.bench.count("rest_calls", kind) == 1
        assert d.bench.count("rest_calls", "ok") > 5
        assert len(d.events("chain.question_failed")) == said


async def test_without_room_for_a_mint_nothing_is_known_of_those_that_were_let_go(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_chain(symbols=("*",), max_symbols=2) as d:
        await d.happens(tx("a", 1, ("A", "1.0")))
        assert d.feed.prices.began_ms == BEGAN
        await d.happens(tx("c", 1, ("C", "1.0")))
        await trio.sleep(3)
        assert d.feed.prices.began_ms == T0 + 2_000  # of second 1 not all is known


async def test_how_far_it_has_read_is_kept_and_goes_on_there(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running_chain() as d:
        number = 0
        while trio.current_time() < 700:
            number += 1
            at = trio.current_time()
            await d.happens(tx(f"t{number}", at, ("A", str(number))))
            await trio.sleep(3)
        cursor = d.cursors[-1]
        landed = {t.signature: t for t in d.node.landed}
        assert cursor.since_ms == BEGAN
        assert cursor.symbols == ("A", "B")
        # Behind what is settled, and before the 5m candle that was not over then.
        assert T0 + 660_000 < cursor.settled_ms <= T0 + 700_000
        assert T0 + 590_000 - 25_000 < cursor.time_ms <= cursor.made_anew_from(M5)
        before = [t for t in landed.values() if t.slot <= cursor.slot]
        assert cursor.slot == landed[cursor.signature].slot
        assert all(p.time_ms < cursor.time_ms for t in before for p in t.prices)
        assert len(d.cursors) < 300
        # What clients know beyond what is settled, so that nothing is published twice.
        assert {*cursor.told} == {t.signature for t in landed.values() if t.slot > cursor.told_slot}
        past = [*landed.values()]
    async with running_chain(cursor=cursor, landed=past) as d:
        await trio.sleep(30)
        asked = [q.signature for q in d.node.venue.asked.values() if isinstance(q, AskTransaction)]
        assert sorted(asked) == [t.signature for t in past if t.slot > cursor.slot]
        assert d.events("chain.gap") == []


async def test_a_cursor_that_no_node_knows_is_a_gap_up_to_now(
    autojump_clock: trio.abc.Clock,
) -> None:
    cursor = ChainCursor("unknown", slot_at(-500), T0 - 500_000, T0 - 500_000, T0 - 900_000, ("A",))
    async with running_chain(cursor=cursor) as d:
        d.node.landed.clear()
        await trio.sleep(60)
        (gap,) = d.events("chain.gap")
        assert gap["problem"] == "the list ends before the last known transaction"
        assert gap["from_ms"] == T0 - 500_000
        assert gap["to_ms"] >= T0
        assert d.feed.prices.began_ms is not None
        assert d.feed.prices.began_ms >= T0
