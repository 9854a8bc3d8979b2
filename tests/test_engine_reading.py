"""The reading side of a shard: entries in order, jumps, epochs; and where a log ends."""

from typing import Any

import msgspec
import pytest
import trio
from support.make import MINUTE, SERIES, T0, kline, trade
from support.node import Client, Node, connected, now_ms, numbers

from trio_feed.bus import wire
from trio_feed.bus.base import Published, Stream
from trio_feed.bus.engine.base import Entry
from trio_feed.bus.engine.heads import heads_of
from trio_feed.bus.engine.reading import Read, Reading
from trio_feed.bus.remote import RemoteBus
from trio_feed.bus.wire import Flags
from trio_feed.client.numbers import Numbers
from trio_feed.model import (
    Channel,
    ChannelKey,
    ChannelMessage,
    KlineMessage,
    Source,
    StatusMessage,
    StreamState,
)
from trio_feed.push.fanout.hub import Hub

TRADES = ChannelKey(SERIES.venue, SERIES.symbol, Channel.TRADE)
CANDLES, LINE = 1, 2
GAP = [(StreamState.UNREPAIRABLE, TRADES), (StreamState.LIVE, TRADES)]
"""What is told of trades of which some are nowhere."""


class Heard:
    """A hub."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.reasons: list[str] = []

    def opened(self, stream: Stream) -> None:
        self.said.append(("opened", stream.stream_key))

    def closed(self, stream: Stream) -> None:
        self.said.append(("closed", stream.stream_key))

    def aliased(self, native: str, symbol: str) -> None: ...

    def described(self, stream: Stream) -> None: ...

    def published(self, stream: Stream, published: Published) -> None:
        message = published.message
        if isinstance(message, KlineMessage):
            self.said.append((message.kline.open_ms - T0) // MINUTE)
        elif isinstance(message, ChannelMessage):
            self.said.append(f"t{message.data.trade_id}")  # type: ignore[union-attr]

    def status_changed(self, stream: Stream, status: StatusMessage) -> None:
        self.said.append((status.state, stream.stream_key))
        self.reasons.append(status.reason)

    def take(self) -> list[Any]:
        said, self.said = self.said, []
        return said


def reading() -> tuple[Reading, Heard]:
    bus = RemoteBus(
        history_rows=5, resume_messages=5, tell_kept=lambda _: None, now=lambda: 0.0, repairs=True
    )
    heard = Heard()
    bus.listen(heard)
    return Reading("s.0", bus, 0.0), heard


def candle(k: int, epoch: int, offset: int, *, closed: bool = True) -> wire.Sent:
    row = kline(T0 + k * MINUTE, closed=closed)
    after_ms = T0 + (k - 1) * MINUTE
    message = KlineMessage(SERIES, row, epoch, offset, 1, 1.0, after_ms=after_ms)
    return wire.sent(CANDLES, message, 1.0)


def sold(number: int, epoch: int, offset: int, *, after_ms: int = 0) -> wire.Sent:
    sale = trade(number, T0 + after_ms)
    message = ChannelMessage(TRADES, sale, Source.EXCHANGE, epoch, offset, 1.0)
    return wire.sent(LINE, message, 1.0)


def opened(
    key: Any, number: int, epoch: int, offset: int, last: int | None, **more: Any
) -> wire.Opened:
    recent = [] if last is None else [(kline(T0 + last * MINUTE), 1)]
    return wire.opened(
        number, key, epoch=epoch, offset=offset, first_ms=T0, sparse=False, revisions=0,
        connected=True, waiting="", recent=recent, latest=None, provisional=None, status=None,
        ring=None, **more,
    )  # fmt: skip


def checkpoint(
    epoch: int,
    last: int,
    offset: int = 0,
    *,
    opening: bool = True,
    revised: tuple[int, int] = (0, 0),
    **more: Any,
) -> wire.Checkpoint:
    streams = [
        opened(SERIES, CANDLES, epoch, offset, last, revised=revised),
        opened(TRADES, LINE, epoch, offset, None),
    ]
    facts = {"before": {}, "lost": [], "unsaved": []} | more
    return wire.Checkpoint(opening, streams, [], **facts)


def entry(epoch: int, sequence: int, *items: wire.Item) -> Entry:
    is_checkpoint = any(isinstance(item, wire.Checkpoint) for item in items)
    return Entry((epoch, sequence), wire.entry(items), is_checkpoint)


def test_it_begins_with_a_checkpoint_and_goes_on_entry_by_entry() -> None:
    node, heard = reading()
    assert node.take([entry(5, 7, candle(1, 5, 3))], 1.0) is Read.JUMPED
    assert not heard.take()
    node.resync([entry(5, 4, sold(9, 5, 9), checkpoint(5, 0, opening=False))], 1.0)
    assert heard.take() == [("opened", SERIES), ("opened", TRADES)]
    assert node.take([entry(5, 5, candle(1, 5, 1)), entry(5, 6, sold(1, 5, 1))], 2.0) is Read.ON
    assert heard.take() == [1, "t1"]
    assert node.position == (5, 6)
    assert not node.is_silent(4.9)
    assert node.is_silent(5.0)


def begun() -> tuple[Reading, Heard]:
    node, heard = reading()
    node.resync([entry(5, 1, checkpoint(5, 0))], 1.0)
    node.take([entry(5, 2, candle(1, 5, 1), sold(1, 5, 1))], 1.0)
    heard.take()
    return node, heard


def test_an_entry_of_an_older_epoch_is_ignored() -> None:
    node, heard = begun()
    node.take([entry(6, 1, checkpoint(6, 1, before={CANDLES: (5, 1), LINE: (5, 1)}))], 2.0)
    heard.take()
    assert node.take([entry(5, 3, candle(2, 5, 2))], 2.0) is Read.ON
    assert not heard.take()


def test_another_owner_goes_on_and_what_comes_twice_comes_once() -> None:
    node, heard = begun()
    opening = checkpoint(6, 0, before={CANDLES: (5, 0), LINE: (5, 0)})
    again = [candle(1, 6, 1), candle(2, 6, 2), sold(1, 6, 1), sold(2, 6, 2)]
    node.take([entry(6, 1, opening), entry(6, 2, *again)], 2.0)
    # This node was ahead of the log, so what it knows of trades is not what the log says.
    assert heard.take() == [*GAP, 2, "t2"]


def test_trades_whose_ids_begin_anew_behind_a_takeover_are_handed_out() -> None:
    node, heard = reading()
    node.resync([entry(5, 1, checkpoint(5, 0))], 1.0)
    node.take([entry(5, 2, sold(1_000, 5, 1))], 1.0)
    node.take([entry(6, 1, checkpoint(6, 0, before={CANDLES: (5, 0), LINE: (5, 1)}))], 2.0)
    heard.take()
    again = [sold(1_000, 6, 1), *(sold(n, 6, n + 1, after_ms=5_000) for n in (1, 2, 3))]
    node.take([entry(6, 2, *again)], 2.0)
    assert heard.take() == ["t1", "t2", "t3"]


def test_trades_that_an_owner_lost_are_told() -> None:
    node, heard = begun()
    whole = {CANDLES: (5, 1), LINE: (5, 1)}
    node.take([entry(6, 1, checkpoint(6, 1, before=whole))], 2.0)
    assert not heard.take(), "nothing was missed"
    again = checkpoint(7, 1, before={CANDLES: (6, 0), LINE: (6, 0)}, lost=[LINE])
    node.take([entry(7, 1, again)], 2.0)
    assert heard.take() == GAP


@pytest.mark.parametrize(
    ("before", "lost", "reason"),
    [
        ((5, 1), [LINE], "its feed began anew, at this node or another"),
        ((0, 0), [], "the engine lost a part of its log"),  # FLUSHALL: the same node goes on
        ((5, 4), [LINE], "this node could not read a part of the engine's log"),
    ],
)
def test_it_is_said_why_trades_are_missing(
    before: tuple[int, int], lost: list[int], reason: str
) -> None:
    node, heard = begun()
    opening = checkpoint(6, 1, before={CANDLES: before, LINE: before}, lost=lost)
    node.take([entry(6, 1, opening)], 2.0)
    assert heard.reasons[0] == f"{reason}; what came between is not known"


@pytest.mark.parametrize("epoch", [5, 8])
def test_what_was_trimmed_before_it_was_read_is_not_the_engines_loss(epoch: int) -> None:
    node, heard = begun()
    node.resync([entry(epoch, 8, checkpoint(epoch, 1, 8, opening=False))], 2.0)
    assert "this node could not read" in heard.reasons[0]


@pytest.mark.parametrize("same_epoch", [True, False])
def test_a_jump_is_repaired_by_the_store_and_told_of_trades(same_epoch: bool) -> None:
    node, heard = begun()
    epoch = 5 if same_epoch else 8
    assert node.take([entry(epoch, 9, candle(4, epoch, 9))], 2.0) is Read.JUMPED
    again = [
        entry(epoch, 8, checkpoint(epoch, 3, 8, opening=False)),
        entry(epoch, 9, candle(4, epoch, 9)),
    ]
    node.resync(again, 2.0)
    assert heard.take() == GAP
    (waiting,) = node.bus.waiting
    rows = [
        KlineMessage(SERIES, kline(T0 + k * MINUTE), 5, 2 * k, 1, 0.0, after_ms=None)
        for k in (2, 3)
    ]
    node.bus.repair(waiting, rows)
    assert heard.take() == [2, 3, 4]
    assert not node.bus.waiting


def serving() -> tuple[Node, Reading]:
    """A node whose hub listens to what is read."""
    node, (read, _) = Node(), begun()
    node.hub = Hub(read.bus, default_venue=SERIES.venue, now_ms=now_ms, metrics=node.metrics)
    return node, read


def jump(read: Reading, epoch: int = 5) -> None:
    """The log up to its checkpoint, with the numbers up to 8, is gone."""
    read.resync([entry(epoch, 8, checkpoint(epoch, 1, 8, opening=False))], 2.0)


async def subscribe(client: Client) -> dict[str, Numbers]:
    """By type of message what a client knows of the numbers then."""
    known = {}
    requests: list[dict[str, Any]] = [
        {"interval": "1m", "provisional": True},
        {"channel": "trade"},
    ]
    for fields in requests:
        await client.request(type="subscribe", symbol="BTCUSDT", **fields)
        while (answer := await client.next())["type"] != "subscription_confirmed":
            assert answer["type"] == "history_data", answer
        confirmed = answer["data"]
        kind = "kline_data" if "interval" in fields else "trade_data"
        known[kind] = Numbers(kind)
        known[kind].begin(confirmed["epoch"], confirmed["offset"])
    await trio.testing.wait_all_tasks_blocked()
    client.take()  # the present state
    return known


async def heard_by(client: Client, known: dict[str, Numbers]) -> list[tuple[int, int]]:
    """The numbers that came; raises where a client of ours would."""
    await trio.testing.wait_all_tasks_blocked()
    told = [m for m in client.take() if m["type"] in known]
    for each in told:
        data = each["data"]
        known[each["type"]].take(data["epoch"], data["offset"], data.get("conflated", 0))
    return numbers(told)


@pytest.mark.parametrize("epoch", [5, 8])
async def test_what_a_jump_leaves_out_is_counted_for_those_who_were_there(
    epoch: int, autojump_clock: trio.abc.Clock
) -> None:
    node, read = serving()
    async with connected(node) as early, connected(node) as late, connected(node) as back:
        early_knows = await subscribe(early)
        jump(read, epoch)
        late_knows = await subscribe(late)
        read.take([entry(epoch, 9, candle(2, epoch, 9, closed=False), sold(9, epoch, 9))], 3.0)
        missed = 7 if epoch == 5 else 8
        assert await heard_by(early, early_knows) == [(9, missed), (9, missed)]
        assert await heard_by(late, late_knows) == [(9, 0), (9, 0)]
        read.take([entry(epoch, 10, candle(2, epoch, 10), sold(10, epoch, 10))], 3.0)
        for client, knows in ((early, early_knows), (late, late_knows)):
            assert await heard_by(client, knows) == [(10, 0), (10, 0)]
        if epoch == 5:
            assert numbers(await back.resume(5, 1)) == [(9, 7), (10, 0)]


async def test_what_is_passed_over_counts_for_those_who_came_before_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    """An owner begins with trades that this node has handed out already, under other numbers."""
    node, read = serving()
    async with connected(node) as early, connected(node) as amid, connected(node) as late:
        early_knows = await subscribe(early)
        read.take([entry(5, 3, *(sold(n, 5, n) for n in (2, 3, 4)))], 2.0)
        assert await heard_by(early, early_knows) == [(2, 0), (3, 0), (4, 0)]
        opening = checkpoint(6, 0, before={CANDLES: (5, 1), LINE: (5, 4)})
        read.take([entry(6, 1, opening)], 2.0)
        amid_knows = await subscribe(amid)
        read.take([entry(6, 2, *(sold(n, 6, n - 1) for n in (2, 3, 4)))], 2.0)
        late_knows = await subscribe(late)
        read.take([entry(6, 3, sold(5, 6, 4), sold(6, 6, 5))], 2.0)
        assert await heard_by(early, early_knows) == [(4, 3), (5, 0)]
        assert await heard_by(amid, amid_knows) == [(4, 3), (5, 0)]
        assert await heard_by(late, late_knows) == [(4, 0), (5, 0)]


async def test_behind_repaired_candles_the_open_updates_are_counted_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Also for a client that is slow, and where a provisional candle comes first."""
    node, read = serving()
    async with connected(node) as quick, connected(node) as slow:
        quick_knows, slow_knows = await subscribe(quick), await subscribe(slow)
        slow.stall()
        read.resync(
            [
                entry(5, 8, checkpoint(5, 3, 8, opening=False)),
                entry(5, 9, candle(4, 5, 9, closed=False)),
            ],
            2.0,
        )
        ahead = candle(4, 5, 9, closed=False)
        assert isinstance(ahead, wire.Candle)
        flags = Flags.EPHEMERAL | Flags.PROVISIONAL | Flags.REMEMBERED
        ahead = msgspec.structs.replace(ahead, flags=flags)
        read.take([entry(5, 10, ahead)], 2.0)
        assert await heard_by(quick, quick_knows) == [(1, 0)], "it has no number of its own"
        (waiting,) = read.bus.waiting
        rows = [
            KlineMessage(SERIES, kline(T0 + k * MINUTE), 5, 2 * k, 1, 0.0, after_ms=None)
            for k in (2, 3)
        ]
        read.bus.repair(waiting, rows)
        assert await heard_by(quick, quick_knows) == [(4, 2), (6, 1), (9, 2)]
        read.take([entry(5, 11, candle(4, 5, 12, closed=False))], 2.0)
        assert await heard_by(quick, quick_knows) == [(12, 2)]
        slow.reading.set()
        told = await heard_by(slow, slow_knows)
        assert told[-1][0] == 12
        assert sum(left_out for _, left_out in told) + len([n for n, _ in told if n > 1]) == 11


def corrected(k: int, epoch: int, offset: int) -> KlineMessage:
    """A row of the store."""
    row = kline(T0 + k * MINUTE, close="99.5")
    return KlineMessage(SERIES, row, epoch, offset, 1, 0.0, revision=True)


@pytest.mark.parametrize("epoch", [5, 8])
async def test_a_correction_in_a_jump_reaches_those_who_were_there(
    epoch: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing else is missing: its number is in the checkpoint."""
    node, read = serving()
    async with connected(node) as client:
        knows = await subscribe(client)
        jumped = checkpoint(epoch, 1, 8, opening=False, revised=(5, 4))
        read.resync([entry(epoch, 8, jumped)], 2.0)
        read.take([entry(epoch, 9, candle(2, epoch, 9, closed=False))], 3.0)
        assert not await heard_by(client, knows), "first the correction"
        (waiting,) = read.bus.waiting
        read.bus.repair(waiting, [corrected(1, 5, 4)])
        await trio.testing.wait_all_tasks_blocked()
        told = [m["data"] for m in client.take() if m["type"] == "kline_data"]
        shown = [(row["offset"], row["data"]["update_type"]) for row in told]
        assert shown == [(4, "revision"), (9, "realtime")]
        assert told[0]["data"]["close"] == 99.5
        for row in told:
            knows["kline_data"].take(row["epoch"], row["offset"], row.get("conflated", 0))
        again = checkpoint(epoch, 1, 9, opening=False, revised=(5, 4))
        read.take([entry(epoch, 10, again)], 4.0)
        assert not read.bus.waiting


async def test_who_comes_back_from_before_a_hole_does_not_resume_over_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The store did not have it in time, and may have it now; this node's ring never will."""
    node, read = serving()
    async with connected(node) as there, connected(node) as back:
        await subscribe(there)
        jumped = checkpoint(5, 3, 8, opening=False)
        read.resync([entry(5, 8, jumped), entry(5, 9, candle(4, 5, 9))], 2.0)
        (waiting,) = read.bus.waiting
        read.bus.give_up(waiting)
        await trio.testing.wait_all_tasks_blocked()
        said = there.take()
        (told,) = [
            m["data"] for m in said if m["type"] == "stream_status" and "interval" in m["data"]
        ]
        assert (told["status"], told["to"]) == ("unrepairable", T0 // 1000 + 3 * 60)
        assert numbers(said) == [(9, 7)]
        answers = await back.resume(5, 1)
        (confirmed,) = [m for m in answers if m["type"] == "subscription_confirmed"]
        assert confirmed["data"]["recovered"] is False


def test_a_silent_owner_is_told_and_what_comes_next_ends_it() -> None:
    node, heard = begun()
    node.bus.fall_silent("it is silent")
    node.bus.fall_silent("it is silent")
    assert heard.take() == [(StreamState.STALE, SERIES), (StreamState.STALE, TRADES)]
    node.take([entry(5, 3)], 9.0)
    assert heard.take() == [(StreamState.LIVE, SERIES), (StreamState.LIVE, TRADES)]


def test_another_version_is_not_read() -> None:
    node, _ = begun()
    later = Entry((5, 3), bytes([wire.VERSION + 1]) + b"\x90", checkpoint=False)
    with pytest.raises(
        wire.OtherVersion, match=f"wire {wire.VERSION + 1}, this one reads {wire.VERSION}"
    ):
        node.take([later], 2.0)


def test_where_a_log_ends() -> None:
    unsaved = candle(0, 4, 9)
    assert isinstance(unsaved, wire.Candle)
    heads = heads_of(
        [
            entry(5, 1, checkpoint(5, 0, unsaved=[unsaved])),
            entry(5, 2, candle(1, 5, 1), candle(2, 5, 2, closed=False), sold(7, 5, 1)),
            entry(5, 3, sold(8, 5, 2)),
        ]
    )
    assert heads.tail == (5, 3)
    assert heads.numbers == {SERIES: (5, 2), TRADES: (5, 2)}
    assert [(m.kline.open_ms, m.epoch, m.offset) for m in heads.closed] == [
        (T0, 4, 9),
        (T0 + MINUTE, 5, 1),
    ]
    last = heads.last_trade(TRADES)
    assert last is not None
    assert last.trade_id == 8
    assert heads.last_trade(SERIES) is None
