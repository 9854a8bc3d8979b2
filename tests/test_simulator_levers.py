"""Each lever of time and of the market does what its fault is called, seen by a client."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
from attrs import define, field
from support.exchange import ask
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, wrap_client_stream

from trio_feed.model import Interval
from trio_feed.settings import SimulatorSettings
from trio_feed.simulator.exchanges import serve_exchange
from trio_feed.simulator.faults.clocks import Clocks
from trio_feed.simulator.faults.context import FaultContext
from trio_feed.simulator.faults.frames import FRAME_FAULTS
from trio_feed.simulator.faults.injection import inject
from trio_feed.simulator.faults.proxy import FaultProxy
from trio_feed.simulator.faults.schedule import TRUTH_KINDS, Fault
from trio_feed.simulator.faults.timing import TIMING_FAULTS
from trio_feed.simulator.machinery.connect_proxy import ConnectProxy
from trio_feed.simulator.machinery.memory_network import MemoryNetwork
from trio_feed.simulator.machinery.memory_stream import pipe_pair
from trio_feed.simulator.machinery.response_faults import ODD

START = 1_760_000_000_000
WS, REST, PROXY = ("exchange", 80), ("rest", 80), ("proxy", 80)
BTC, ETH, SOL = "BTCUSDT", "ETHUSDT", "SOLUSDT"
MINUTE = 60_000
STREAMS = "btcusdt@aggTrade/btcusdt@kline_1m"


@define
class Scene:
    context: FaultContext
    got: list[tuple[float, dict[str, Any]]] = field(factory=list)
    """(trio's time, message) of one client."""

    def inject(self, kind: str, value: float = 0.0, **more: Any) -> None:
        inject(self.context, Fault(kind, value, **more))

    def trades(self) -> list[tuple[float, int, int]]:
        """(when it came, id, its time)."""
        return [(at, m["a"], m["T"]) for at, m in self.got if m["e"] == "aggTrade"]

    def closes(self) -> list[tuple[float, dict[str, Any]]]:
        return [(at, m["k"]) for at, m in self.got if m["e"] == "kline" and m["k"]["x"]]

    async def rest(self, target: str) -> Any:
        stream = await self.context.network.dial(*REST)
        answer = await ask(stream, h11.Connection(h11.CLIENT), target)  # type: ignore[arg-type]
        await stream.aclose()
        return answer.json()

    async def status(self, symbol: str = BTC) -> str:
        info = await self.rest("/fapi/v1/exchangeInfo")
        return next(str(s["status"]) for s in info["symbols"] if s["symbol"] == symbol)

    def delays_s(self) -> list[float]:
        """From each trade to its coming."""
        clocks = self.context.clocks
        return [at - (time_ms - clocks.start_ms) / 1000 for at, _, time_ms in self.trades()]


@asynccontextmanager
async def open_scene() -> AsyncIterator[Scene]:
    async with trio.open_nursery() as nursery:
        network, clocks = MemoryNetwork(pipe_pair), Clocks(START)
        fault_proxy = FaultProxy(nursery, clocks.exchange_ms, 10)
        listeners = []
        for endpoint in (WS, REST):
            (listener,) = await network.listen(*endpoint)
            listeners.append(fault_proxy.wrap(listener, rest=endpoint is REST))
        settings = SimulatorSettings(symbols=(BTC, ETH), trades_per_minute=60)
        serve = partial(serve_exchange, settings, listeners=listeners, now_ms=clocks.exchange_ms)
        exchange = await nursery.start(serve)
        proxy = ConnectProxy(network)
        context = FaultContext(
            exchange, network, fault_proxy, proxy, WS, REST, PROXY, BTC, ETH, SOL, clocks
        )
        scene = Scene(context)
        await nursery.start(_listen, scene)
        yield scene
        nursery.cancel_scope.cancel()


async def _listen(scene: Scene, task_status: trio.TaskStatus[None]) -> None:
    stream = await scene.context.network.dial(*WS)
    async with trio.open_nursery() as nursery:
        path = f"/market/stream?streams={STREAMS}"
        socket = await wrap_client_stream(nursery, stream, "box", path, message_queue_size=10_000)
        task_status.started()
        try:
            while True:
                message = json.loads(await socket.get_message())["data"]
                scene.got.append((trio.current_time(), message))
        except ConnectionClosed:
            nursery.cancel_scope.cancel()


def in_order(trades: list[tuple[float, int, int]]) -> bool:
    ids = [number for _, number, _ in trades]
    return ids == [*range(ids[0], ids[0] + len(ids))]


async def test_a_stall_loses_nothing_and_ends_in_a_burst(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(20)
        scene.inject("stall", 8.0)
        await trio.sleep(7.9)
        before = len(scene.got)
        assert all(at <= 20 for at, _ in scene.got)
        await trio.sleep(20)
        burst = [at for at, _, _ in scene.trades() if at == 28.0]
        assert len(burst) >= 7
        assert in_order(scene.trades())
        assert len(scene.got) > before + 20
        assert max(scene.delays_s()[-10:]) < 1


async def test_a_stall_holds_rest_as_well(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        scene.inject("stall", 8.0)
        await scene.rest("/fapi/v1/time")
        assert trio.current_time() >= 8.0


async def test_a_late_feed_is_late_for_a_minute_and_in_order(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(10)
        scene.inject("late_feed", 4.0, lasts_s=60)
        await trio.sleep(100)
        assert in_order(scene.trades())
        late = [
            d for d, (at, _, _) in zip(scene.delays_s(), scene.trades(), strict=True) if at < 70
        ]
        assert min(late[15:]) >= 4.0
        assert max(scene.delays_s()[-10:]) < 1


async def test_a_pause_lets_time_and_frames_go_on(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(20)
        seen = len(scene.trades())
        scene.inject("process_pause", 30.0)
        assert trio.current_time() == 50.0
        assert len(scene.trades()) == seen
        await trio.sleep(0.5)
        assert len(scene.trades()) >= seen + 29
        assert in_order(scene.trades())
        events = [m["E"] - START for _, m in scene.got]
        assert events == sorted(events)
        assert [k["t"] for _, k in scene.closes()] == [START - START % MINUTE]
        assert any(20_000 < event < 49_000 for event in events)  # each was sent at its time


@pytest.mark.parametrize("times", [0, 1])
async def test_what_a_sleeping_machine_missed_is_gone(
    times: int, autojump_clock: MockClock
) -> None:
    async with open_scene() as scene:
        await trio.sleep(20)
        seen = len(scene.got)
        scene.inject("suspend", 1800.0, times=times)
        assert trio.current_time() == 20.0
        assert scene.context.clocks.exchange_ms() == START + 1_820_000
        assert scene.context.clocks.wall_ms() == START + 1_820_000
        await trio.sleep(30)
        assert len(scene.got) == seen
        assert len(scene.context.exchange.connections) == times
        assert (scene.context.worst_silence_s() > 0) == bool(times)


async def test_clocks_step_drift_and_are_put_right(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        clocks = scene.context.clocks
        for kind in ("clock_step", "wrong_clock_at_start", "clock_skew"):
            scene.inject(kind, -7200.0, lasts_s=50)
            assert clocks.wall_ms() - clocks.exchange_ms() == -7_200_000
            await trio.sleep(51)
            assert clocks.wall_ms() == clocks.exchange_ms()
        scene.inject("clock_drift", 5.0, lasts_s=50)
        await trio.sleep(40)
        assert clocks.wall_ms() - clocks.exchange_ms() == pytest.approx(200)
        await trio.sleep(11)
        assert clocks.wall_ms() == clocks.exchange_ms()


async def test_rest_is_behind_in_what_the_market_did(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(45)  # the first minute ended 5 s ago
        scene.inject("rest_behind", 15.0, lasts_s=60)
        rows = await scene.rest("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=1")
        assert rows[0][0] == START - START % MINUTE
        last = (await scene.rest("/fapi/v1/aggTrades?symbol=BTCUSDT&limit=1"))[0]["T"]
        assert last <= START + 30_000
        assert (await scene.rest("/fapi/v1/time"))["serverTime"] == START + 45_000
        await trio.sleep(61)
        last = (await scene.rest("/fapi/v1/aggTrades?symbol=BTCUSDT&limit=1"))[0]["T"]
        assert last > START + 100_000


@pytest.mark.parametrize("form", ODD)
async def test_odd_rows_come_once_each(form: str, autojump_clock: MockClock) -> None:
    pages = "/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=9"
    async with open_scene() as scene:
        clean = await scene.rest(pages)
        scene.inject("odd_rows", float([*ODD].index(form)), times=1)
        odd = await scene.rest(pages)
        assert odd == ODD[form](clean) != clean
        assert await scene.rest(pages) == clean


@pytest.mark.parametrize(("kind", "other"), [("halt", "TRADING"), ("halt_all", "SETTLING")])
async def test_a_halt(kind: str, other: str, autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(30)
        scene.inject(kind, lasts_s=300)
        await trio.sleep(1)
        assert [await scene.status(), await scene.status(ETH)] == ["SETTLING", other]
        await trio.sleep(400)
        assert await scene.status() == "TRADING"
        assert [at for at, _, _ in scene.trades() if 31 < at < 330] == []
        rows = await scene.rest("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=9")
        opens = [row[0] for row in rows]
        assert [b - a for a, b in pairwise(opens)].count(MINUTE) == 7
        assert max(b - a for a, b in pairwise(opens)) == 5 * MINUTE
        assert {k["t"] for _, k in scene.closes()} <= {*opens}
        assert scene.context.returns_s == [330.0]


async def test_candles_off_the_grid_after_a_halt(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(30)
        scene.inject("off_grid", lasts_s=300)
        await trio.sleep(500)
        closed = [k for _, k in scene.closes()]
        shifted = [k for k in closed if k["t"] % MINUTE]
        assert len(shifted) >= 2
        assert all(k["T"] + 1 - k["t"] <= MINUTE for k in closed)
        assert shifted[0]["t"] == START + 331_000 - START % 1_000


async def test_a_quiet_market_closes_flat_candles(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(30)
        scene.inject("quiet", lasts_s=300)
        await trio.sleep(400)
        assert [at for at, _, _ in scene.trades() if 31 < at < 330] == []
        assert in_order(scene.trades())
        flat = [k for _, k in scene.closes() if not k["n"]]
        assert len(flat) == 4
        assert {(k["f"], k["L"], k["v"], k["h"] == k["l"]) for k in flat} == {
            (-1, -1, "0.000", True)
        }
        assert await scene.status() == "TRADING"


async def test_a_new_listing_has_first_candles(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(30)
        scene.inject("new_listing")
        scene.inject("new_listing")  # once is enough
        await trio.sleep(30)
        for interval in ("1m", "1d", "1w", "1M"):
            rows = await scene.rest(f"/fapi/v1/klines?symbol={SOL}&interval={interval}")
            assert len(rows) == (1 if interval != "1m" else 2)
        trades = await scene.rest(f"/fapi/v1/aggTrades?symbol={SOL}&fromId=1&limit=5")
        assert [trade["a"] for trade in trades] == [1, 2, 3, 4, 5]
        assert trades[0]["T"] > START + 30_000


async def test_ids_begin_anew(autojump_clock: MockClock) -> None:
    async with open_scene() as scene:
        await trio.sleep(30)
        scene.inject("id_restart")
        await trio.sleep(60)
        ids = [number for _, number, time_ms in scene.trades() if time_ms > START + 30_000]
        assert ids == [*range(1, len(ids) + 1)]
        trades = await scene.rest("/fapi/v1/aggTrades?symbol=BTCUSDT&fromId=3&limit=2")
        assert [trade["a"] for trade in trades] == [3, 4]
        assert {k["f"] for at, k in scene.closes() if at > 100} <= {*ids}


async def test_a_late_correction_is_in_all_pages_and_no_stream(autojump_clock: MockClock) -> None:
    async def pages() -> list[Any]:
        ask_for = "/fapi/v1/klines?symbol=BTCUSDT&interval={}&limit=1&endTime={}"
        end = START + 20_000
        return [(await scene.rest(ask_for.format(i, end)))[0] for i in ("1m", "5m")]

    async with open_scene() as scene:
        await trio.sleep(20)
        scene.inject("late_correction", 10.0)
        await trio.sleep(90)  # the minute and the five have ended; it came to light 10 s later
        market = scene.context.exchange.market
        minute = market.open_of(BTC, Interval.M1, START)
        assert scene.context.late_trades == [START + 20_000]
        assert (
            market.span(BTC, minute, minute + MINUTE, ghosts=False).volume * 2
            == market.candle(BTC, Interval.M1, minute).volume
        )
        assert [row[8] for row in await pages()] == [61, 301]
        assert {k["n"] for _, k in scene.closes()} == {60}


def swapped(kind: str, value: float, *payloads: bytes) -> list[tuple[float, bytes]]:
    change_frames = FRAME_FAULTS[kind](value)
    return [out for payload in payloads for out in change_frames(payload)]


def test_trades_change_places_and_nothing_else() -> None:
    trade, kline = b'{"e":"aggTrade","a":1}', b'{"e":"kline"}'
    assert swapped("trade_disorder", 0, trade, kline, trade) == [
        (0.9, trade), (0.0, kline), (0.0, trade),
    ]  # fmt: skip
    okx = b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[]}'
    assert swapped("trade_disorder", 0, okx)[0][0] == 0.9


@pytest.mark.parametrize(("value", "years"), [(1990, -35.0), (2090, 65.0), (2, 2 / 24 / 365.25)])
def test_absurd_times_are_single(value: float, years: float) -> None:
    trade = b'{"e":"aggTrade","E":1760000000000,"T":1760000000000}'
    outs = [json.loads(out) for _, out in swapped("absurd_time", value, *[trade] * 20)]
    off = [n for n, out in enumerate(outs) if out["E"] != 1760000000000]
    assert off == [3, 13]
    wrong = round(1760000000000 + years * 365.25 * 86_400_000)
    assert (outs[3]["E"], outs[3]["T"]) == (wrong, wrong)
    assert (outs[13]["E"], outs[13]["T"]) == (wrong, 1760000000000)


async def test_a_pause_needs_a_clock_that_can_jump() -> None:
    with pytest.raises(TypeError, match="MockClock"):
        TIMING_FAULTS["process_pause"](None, Fault("process_pause", 1.0))  # type: ignore[arg-type]


def test_every_kind_is_tried_here() -> None:
    text = Path(__file__).read_text()
    assert [kind for kind in TRUTH_KINDS if f'"{kind}"' not in text] == []


async def test_a_send_of_nothing_is_not_the_end_of_the_stream(autojump_clock: MockClock) -> None:
    near, far = pipe_pair()
    got: list[bytes] = []

    async def read() -> None:
        got.append(await far.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await near.send_all(b"")
        await wait_all_tasks_blocked()
        await near.send_all(b"x")
    assert got == [b"x"]
