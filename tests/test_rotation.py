"""Make before break: nothing lost, nothing doubled."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from support.stack import START_MS, open_stack, push_client, settings_for_tests

from trio_feed.ingest.connection import ConnectionState
from trio_feed.ingest.instruments import Refresh
from trio_feed.ingest.pool import Slot
from trio_feed.ingest.rotation import Generation, Rotation, keep
from trio_feed.ingest.rules import problem_of
from trio_feed.model import Instrument
from trio_feed.venues import Plan

MINUTE = 60_000


@pytest.mark.parametrize("venue", ["binance_usdm", "okx"])
async def test_rotations_lose_and_double_nothing(
    venue: str, autojump_clock: trio.abc.Clock
) -> None:
    """An hour in which every connection lives about five minutes, trades and candles taken."""
    settings = settings_for_tests(
        ".connection.max_age_s=300",
        ".trade_intervals=['30s']",
        ".channels=['kline','trade']",
        "kline.broadcast_buffer_size=1000000",
        venue=venue,
    )
    with trio.fail_after(50_000):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await client.ask(type="subscribe", symbol="BTCUSDT", channel="trade")
            await trio.sleep_until(3600 + 90)
            (feed,) = stack.ready.feeds
            lost = stack.ready.app.context.metrics.connections_lost
            assert lost.labels(venue, "ConnectionLost")._value.get() == 0
            assert max(state.id for state in feed.connections) > 11
            times = [row["time"] * 1000 for row in client.candles(final=True)]
            assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))
            assert times[-1] + 2 * MINUTE > START_MS + 3600_000
            trades = [m["data"]["data"] for m in client.messages if m["type"] == "trade_data"]
            ids = [row["trade_id"] for row in trades]
            assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_an_announced_end_is_answered_before_it_comes(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests()
    with trio.fail_after(3_600):
        async with open_stack(settings) as stack:
            (feed,) = stack.ready.feeds
            await trio.sleep(30)
            stack.exchange.announce_shutdown()
            await trio.sleep(60)
            (state,) = feed.connections
            assert (state.id, state.status) == (2, "live")
            lost = stack.ready.app.context.metrics.connections_lost
            assert lost.labels("binance_usdm", "ConnectionLost")._value.get() == 0


async def test_a_successor_that_does_not_deliver_replaces_nothing(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests(".connection.max_age_s=300")
    with trio.fail_after(10_000):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await trio.sleep(200)
            stack.exchange.refuse_upgrades(503, 5)
            await trio.sleep(300)
            (feed,) = stack.ready.feeds
            assert feed.not_ready(60) == ""
            times = [row["time"] * 1000 for row in client.candles(final=True)]
            assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))
            await trio.sleep(300)
            assert [state.status for state in feed.connections] == ["live"]


def test_a_link_that_has_no_connection_yet_has_a_name_all_the_same() -> None:
    """Between the plan and the first try /ready looked for its newest connection, and fell."""
    link = Slot(Plan("ws://exchange", ()))
    assert link.name == "a connection that is about to be opened"
    assert not link.live
    assert link.last_message_ms is None
    link.states.append(ConnectionState(3, link.plan))
    assert link.name == "connection 3 (connecting)"


# ---------------------------------------------------------------- one lane by itself


class Lane:
    """Generations that deliver after ``settles_s`` each (None: never); what happened, and when."""

    def __init__(self, *settles_s: float | None) -> None:
        self.settles_s = list(settles_s)
        self.log: list[tuple[str, int, float]] = []
        self.leave: dict[int, Callable[[str], None]] = {}
        self.count = 0

    def note(self, what: str, number: int) -> None:
        self.log.append((what, number, round(trio.current_time(), 3)))

    def retired(self, state: ConnectionState) -> None:
        self.note("retired", state.id)

    def make(self, generation: Generation) -> Any:
        self.count += 1
        lane, number = self, self.count
        settles_s = self.settles_s.pop(0) if self.settles_s else 1.0
        self.leave[number] = generation.leave

        class Kept:
            state = ConnectionState(number, Plan("ws://exchange", ()))

            async def run(self) -> None:
                lane.note("opened", number)
                try:
                    if settles_s is not None:
                        await trio.sleep(settles_s)
                        generation.delivered.set()
                    await trio.sleep_forever()
                finally:
                    lane.note("ended", number)

        return Kept()

    async def run(self, seconds: float, *, chance: float = 0.0, turn: Any = None) -> list[Any]:
        """Keep it for a while; its lines."""
        with capture_logs() as logs:
            with trio.move_on_after(seconds):
                rotation = Rotation(100.0, 5.0, turn or trio.Lock(), lambda: chance)
                await keep(self.make, rotation, retired=self.retired)
        return logs


async def test_the_old_one_goes_when_its_successor_has_delivered(
    autojump_clock: trio.abc.Clock,
) -> None:
    lane = Lane(1.0, 2.0)
    logs = await lane.run(150)
    assert lane.log == [
        ("opened", 1, 0), ("opened", 2, 100), ("retired", 1, 102), ("ended", 1, 102),
        ("ended", 2, 150),
    ]  # fmt: skip
    assert [(line["event"], line["connection"], line["successor"]) for line in logs] == [
        ("connection.rotating", 1, 2), ("connection.rotated", 1, 2),
    ]  # fmt: skip
    assert logs[0]["reason"] == "age"


@pytest.mark.parametrize(("chance", "age_s"), [(0.0, 100), (1.0, 95), (0.5, 97.5)])
async def test_ages_differ_by_a_twentieth(
    chance: float, age_s: float, autojump_clock: trio.abc.Clock
) -> None:
    lane = Lane(1.0, 1.0)
    await lane.run(105, chance=chance)
    assert ("opened", 2, age_s) in lane.log


async def test_a_slow_successor_is_said_and_lets_others_have_their_turn(
    autojump_clock: trio.abc.Clock,
) -> None:
    lane, turn, free = Lane(1.0, 9.0), trio.Lock(), list[float]()

    async def other() -> None:
        await trio.sleep(101)
        async with turn:
            free.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        logs = await lane.run(150, turn=turn)
    assert free == [105]  # the turn is given back when it has not settled
    assert ("retired", 1, 109) in lane.log
    assert [line["event"] for line in logs] == [
        "connection.rotating", "connection.rotation_slow", "connection.rotated",
    ]  # fmt: skip


async def test_one_that_never_delivers_replaces_nothing(autojump_clock: trio.abc.Clock) -> None:
    lane = Lane(1.0, None)
    await lane.run(1_000)
    assert lane.log[:2] == [("opened", 1, 0), ("opened", 2, 100)]
    assert set(lane.log[2:]) == {("ended", 1, 1_000), ("ended", 2, 1_000)}


async def test_before_its_time_for_the_first_reason(autojump_clock: trio.abc.Clock) -> None:
    lane = Lane(1.0, 1.0)

    async def tell() -> None:
        await trio.sleep(10)
        lane.leave[1]("announced")
        lane.leave[1]("again")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        logs = await lane.run(50)
    assert ("opened", 2, 10) in lane.log
    assert ("retired", 1, 11) in lane.log
    assert logs[0]["reason"] == "announced"
    assert lane.count == 2


def test_when_the_table_is_asked_for_again() -> None:
    refresh = Refresh(3600.0)
    assert refresh.delay_s(settled=True) == 3600
    soon = [refresh.delay_s(settled=False) for _ in range(6)]
    assert soon == [5, 10, 20, 40, 60, 60]
    assert refresh.delay_s(settled=True) == 3600
    assert refresh.delay_s(settled=False) == 5  # it begins anew
    assert Refresh(7.0).delay_s(settled=False) == 5
    short = Refresh(7.0, hurries=1)
    assert short.delay_s(settled=False) == 7


@pytest.mark.parametrize(
    ("trading", "unavailable", "problem"),
    [(True, "", ""), (False, "", "not trading"), (True, "a dated one", "a dated one"),
     (False, "a dated one", "a dated one")],
)  # fmt: skip
def test_why_a_symbol_cannot_be_taken(trading: bool, unavailable: str, problem: str) -> None:
    instrument = Instrument("v", "A", "A", "perpetual", trading=trading, unavailable=unavailable)
    assert problem_of(instrument) == problem
    assert problem_of(None) == "not in the venue's list"
