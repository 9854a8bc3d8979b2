"""The whole service under virtual time against a box with a fault script; see ``--help``.

Everything runs in one process over memory streams: the simulated exchange behind a gate
(:mod:`trio_feed.simulator.gate`), the service, and one client of its push endpoint that keeps
every closed candle it is told of.  Afterwards the store and the client's record are compared with
the simulated market, which can be asked for the truth of any minute.

Time is trio's MockClock, so hours take seconds, and nothing reads the machine's clock but the
measurement of ``wall_s``.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import structlog
import trio
import trio._core._run as scheduler
import trio.testing
import trio_websocket
from attrs import define, field, frozen

from trio_feed import logs, service
from trio_feed.model import Interval, Kline, Series
from trio_feed.settings import LoggingSettings, Settings, SimulatorSettings, load
from trio_feed.simulator.boxes import serve_box
from trio_feed.simulator.faultscript import KINDS, Fault, parse_kinds, write_script
from trio_feed.simulator.gate import Gate
from trio_feed.simulator.memory import MemoryNetwork
from trio_feed.simulator.trial import Trial
from trio_feed.supervise import root_cause
from trio_feed.world import World

START_MS = 1_760_000_000_000
"""2025-10-09T08:53:20Z: not on any boundary."""
MINUTE_MS = 60_000
SYMBOL = "BTCUSDT"
WEBSOCKET, REST, PUSH = ("exchange", 80), ("rest", 80), ("push", 80)
HISTORY_BARS = 20
SETTLE_S = 3_600.0
"""After the last fault: what is not repaired by then counts as lost."""
VENUES = ("binance_usdm", "binance", "okx")
_CONTROL_FRAMES_PER_S = {"binance": 5}
_DIALS, _DIALS_WITHIN_S = 300, 300.0
MUST_BE_ZERO = (
    "lost", "duplicated", "out_of_order", "wrong_values", "crashes", "limit_violations",
)  # fmt: skip

Truth = Callable[[Kline], Kline]


@frozen
class Run:
    """``script`` None: written from the seed.  ``truth`` is for tests of the check itself: what
    it makes of a candle of the market is what the service is held to."""

    seed: int = 1
    hours: float = 24.0
    kinds: tuple[str, ...] = tuple(KINDS)
    venue: str = "binance_usdm"
    trades: bool = False
    script: Sequence[tuple[float, Fault]] | None = None
    truth: Truth = lambda kline: kline

    def faults(self) -> Sequence[tuple[float, Fault]]:
        if self.script is not None:
            return self.script
        return write_script(self.seed, self.hours, self.kinds, start_ms=START_MS)

    @property
    def expected(self) -> range:
        """Open times of the candles that have to come: history, and what closes in the hours."""
        first = START_MS // MINUTE_MS - HISTORY_BARS
        end = int(START_MS + self.hours * 3_600_000) // MINUTE_MS
        return range(first * MINUTE_MS, end * MINUTE_MS, MINUTE_MS)


@define
class Record:
    """What the client was told: (open ms, values) of each closed candle, ids of trades."""

    finals: list[tuple[int, tuple[float, ...]]] = field(factory=list)
    trades: set[int] = field(factory=set)
    last_ms: int = 0

    def note(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "history_data":
            self._rows(message["data"]["data"])
        elif kind == "kline_data":
            self._rows([message["data"]["data"]])
        elif kind == "trade_data":
            trade = message["data"]["data"]
            self.trades.update(range(trade["first_id"], trade["last_id"] + 1))

    def _rows(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["is_final"]:
                open_ms = row["time"] * 1000
                self.finals.append((open_ms, tuple(float(row[name]) for name in _VALUES)))
                self.last_ms = max(self.last_ms, open_ms)


_VALUES = ("open", "high", "low", "close", "volume", "quote_volume")
"""Without the number of trades: OKX does not give it."""


@define
class Scene:
    """Everything of one run."""

    run: Run
    network: MemoryNetwork
    trial: Trial
    record: Record = field(factory=Record)
    ready: service.Ready | None = None
    crash: str = ""
    dials: deque[float] = field(factory=deque)
    too_many_dials: int = 0
    up: trio.Event = field(factory=trio.Event)
    """The service runs, or has crashed before."""
    complete: trio.Event = field(factory=trio.Event)
    """The client has the last candle."""
    crashed: trio.Event = field(factory=trio.Event)

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        """For the service: counted, whether they succeed or not."""
        now = trio.current_time()
        self.dials.append(now)
        while self.dials[0] <= now - _DIALS_WITHIN_S:
            self.dials.popleft()
        if len(self.dials) > _DIALS:
            self.too_many_dials += 1
            self.trial.gate.offences.note(f"{len(self.dials)} dials within 5 minutes")
        return await self.network.dial(host, port)

    def service_now_ms(self) -> float:
        return virtual_now_ms() + self.trial.skew_ms


def virtual_now_ms() -> float:
    """The exchange's clock, and the truth."""
    return START_MS + trio.current_time() * 1000


def settings_of(run: Run) -> Settings:
    """One symbol, minutes only, no disk."""
    table = f"exchanges.{run.venue}"
    return load(
        assignments=[
            f"server.host={PUSH[0]}",
            f"server.port={PUSH[1]}",
            "store.path=:memory:",
            "kline.broadcast_buffer_size=100000",
            "kline.connection_timeout=3600",  # the client is not what is tried here
            "websocket.ping_interval=150000",
            f"{table}.symbols=['{SYMBOL}']",
            f"{table}.intervals=['1m']",
            f"{table}.trade_intervals=[]",
            f"{table}.channels={['kline', 'trade'] if run.trades else ['kline']}",
            f"{table}.history_bars={HISTORY_BARS}",
            f"{table}.backfill_workers=2",
            f"{table}.connection.ping_after_s=45",  # trades are rare
            f"{table}.connection.websocket_url=ws://{WEBSOCKET[0]}:{WEBSOCKET[1]}",
            f"{table}.connection.rest_url=http://{REST[0]}:{REST[1]}",
        ]
    )


def simulate(run: Run) -> tuple[list[str], dict[str, Any]]:
    """One run -> what was injected, a line each, and the result.

    Same run, same answer but for ``wall_s``: trio shuffles the tasks that are ready with a random
    generator of its own (so that nobody relies on their order) and finds them in a set; both are
    put under the seed here, with the switch that trio has for Hypothesis.
    """
    started = time.perf_counter()
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.seed(run.seed)
    try:
        with _quiet_logs():
            clock = trio.testing.MockClock(autojump_threshold=0)
            lines, result = trio.run(_simulate, run, clock=clock)
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
    result["wall_s"] = round(time.perf_counter() - started, 2)
    return lines, result


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """The service's warnings are what the script asked for; errors go to stderr."""
    before = structlog.get_config()
    logs.configure(LoggingSettings(level="error", format="json"), sys.stderr)
    try:
        yield
    finally:
        structlog.configure(**before)


async def _simulate(run: Run) -> tuple[list[str], dict[str, Any]]:
    async with trio.open_nursery() as nursery:
        scene = await _set_up(run, nursery)
        nursery.start_soon(_serve, scene)
        await scene.up.wait()
        if not scene.crash:
            await _act(scene, nursery)
        result = await _judge(scene)
        nursery.cancel_scope.cancel()
    lines = [*scene.trial.log, *scene.trial.gate.offences.log]
    return sorted(lines, key=lambda line: float(line[2:].split()[0])), result


async def _set_up(run: Run, nursery: trio.Nursery) -> Scene:
    """The box behind its gate."""
    network = MemoryNetwork()
    gate = Gate(nursery, virtual_now_ms, _CONTROL_FRAMES_PER_S.get(run.venue, 10))
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
    for endpoint in (WEBSOCKET, REST):
        (listener,) = await network.listen(*endpoint)
        listeners.append(gate.guard(listener, rest=endpoint is REST))
    box = SimulatorSettings(
        venue=run.venue,
        seed=run.seed,
        symbols=(SYMBOL,),
        kline_push_ms=2_000,
        trades_per_minute=4,
    )
    serve = partial(serve_box, box, listeners=listeners, now_ms=virtual_now_ms)
    exchange = await nursery.start(serve)
    return Scene(run, network, Trial(exchange, network, gate, WEBSOCKET, REST))


async def _serve(scene: Scene) -> None:
    """The service.  That it ends at all is a crash: nobody told it to."""
    chance = random.Random(f"service {scene.run.seed}")
    world = World(scene.dial, scene.network.listen, scene.service_now_ms, chance)

    async def run(task_status: trio.TaskStatus[service.Ready]) -> None:
        await service.run(settings_of(scene.run), world, task_status=task_status)
        raise AssertionError("the service returned")

    try:
        async with trio.open_nursery() as nursery:
            scene.ready = await nursery.start(run)
            scene.up.set()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        cause = root_cause(error)
        scene.crash = f"{type(cause).__name__}: {cause}"
        scene.trial.log.append(f"t={trio.current_time():.3f} crash {scene.crash}")
        for event in (scene.up, scene.crashed, scene.complete):
            event.set()


async def _act(scene: Scene, nursery: trio.Nursery) -> None:
    """The client, the faults, and time to settle: until the last candle has come."""
    nursery.start_soon(_listen, scene)
    nursery.start_soon(scene.trial.play, scene.run.faults())
    end_s = scene.run.hours * 3600
    with trio.move_on_at(end_s):
        await scene.crashed.wait()
    with trio.move_on_at(end_s + SETTLE_S):
        await scene.complete.wait()


async def _listen(scene: Scene) -> None:
    """A client of the push endpoint, over the wire."""
    stream = await scene.network.dial(*PUSH)
    async with trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, PUSH[0], "/ws", message_queue_size=1000
        )
        ask: dict[str, Any] = {"type": "subscribe", "symbol": SYMBOL}
        await connection.send_message(json.dumps(ask | {"interval": "1m", "limit": 100}))
        if scene.run.trades:
            await connection.send_message(json.dumps(ask | {"channel": "trade"}))
        try:
            while True:
                scene.record.note(json.loads(await connection.get_message()))
                if scene.record.last_ms >= scene.run.expected[-1]:
                    scene.complete.set()
        except trio_websocket.ConnectionClosed as error:  # what it misses now counts as lost
            scene.trial.log.append(f"t={trio.current_time():.3f} client dropped {error.reason}")


async def _judge(scene: Scene) -> dict[str, Any]:
    """The invariants.  A candle is lost that the store or the client has not got."""
    run, trial, record = scene.run, scene.trial, scene.record
    stored = await _stored(scene)
    expected = run.expected
    truths = {at: run.truth(_candle(scene, at)) for at in expected}
    delivered = Counter(at for at, _ in record.finals if at in truths)
    wrong = {at for at, kline in truths.items() if at in stored and not _same(stored[at], kline)}
    wrong |= {at for at, told in record.finals if at in truths and told != _values(truths[at])}
    opens = [at for at, _ in record.finals]
    offences = trial.gate.offences
    return {
        "closed_expected": len(expected),
        "closed_in_store": sum(at in stored for at in expected),
        "closed_delivered": len(delivered),
        "lost": sum(at not in stored or at not in delivered for at in expected),
        "duplicated": sum(count - 1 for count in delivered.values()),
        "out_of_order": sum(b < a for a, b in pairwise(opens)),
        "wrong_values": len(wrong),
        "trades_lost": _trades_lost(scene) if run.trades else None,
        "book_mismatches": None,
        "max_detect_s": round(trial.worst_silence_s(), 1),
        "crashes": int(bool(scene.crash)),
        "limit_violations": (
            scene.too_many_dials + offences.control_frames + offences.while_banned
        ),
        "virtual_hours": round(trio.current_time() / 3600, 2),
        "seed": run.seed,
        "venue": run.venue,
        "dials": trial.exchange.dials,
        "requests": trial.exchange.requests,
        "faults": dict(sorted(trial.injected.items())),
    }


async def _stored(scene: Scene) -> dict[int, Kline]:
    if scene.ready is None:
        return {}
    series = Series(scene.run.venue, SYMBOL, Interval.M1)
    rows = await scene.ready.store.history(series, limit=1_000_000)
    return {kline.open_ms: kline for kline in rows}


def _candle(scene: Scene, open_ms: int) -> Kline:
    candle: Kline = scene.trial.exchange.market.candle(SYMBOL, Interval.M1, open_ms)
    return candle


def _same(stored: Kline, truth: Kline) -> bool:
    return stored.closed and stored.same_values(truth)


def _values(kline: Kline) -> tuple[float, ...]:
    return tuple(float(getattr(kline, name)) for name in _VALUES)


def _trades_lost(scene: Scene) -> int:
    """Of those that happened after the client's first one, in the hours."""
    end_ms = START_MS + scene.run.hours * 3_600_000
    market, told = scene.trial.exchange.market, scene.record.trades
    first, end = min(told, default=0), market.first_id(SYMBOL, end_ms)
    return sum(number not in told for number in range(first, end)) if told else end


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parser().parse_args(arguments)
    run = Run(options.seed, options.hours, options.faults, options.venue, options.trades)
    lines, result = simulate(run)
    if not options.json:
        print(*lines, sep="\n")
    print(json.dumps(result))
    return int(any(result[name] for name in MUST_BE_ZERO))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hours", type=float, default=24.0, help="virtual")
    parser.add_argument(
        "--faults", type=_kinds, default="all", help=f"all, none, or some of {','.join(KINDS)}"
    )
    parser.add_argument("--venue", choices=VENUES, default=VENUES[0])
    parser.add_argument("--trades", action="store_true", help="also take trades and count them")
    parser.add_argument("--json", action="store_true", help="only the line of JSON")
    return parser


def _kinds(text: str) -> tuple[str, ...]:
    try:
        return parse_kinds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
