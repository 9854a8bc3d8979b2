"""The whole service under virtual time against a box with a fault script; see ``--help``.

Everything runs in one process over memory streams: the simulated exchange behind a gate
(:mod:`trio_feed.simulator.gate`), the service, and one client of its push endpoint that keeps
every closed candle it is told of.  Afterwards the store and the client's record are compared with
the simulated market, which can be asked for the truth of any minute.

Time is trio's MockClock, so hours take seconds, and nothing reads the machine's clock but the
measurement of ``wall_s``.  The service reaches the exchange through a proxy, and nothing else.
"""

import argparse
import io
import json
import random
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import structlog
import trio
import trio._core._run as scheduler
import trio.testing
from attrs import define, field

from scripts.simulate_client import BookCheck, Record, listen
from scripts.simulate_judge import MUST_BE_ZERO, Stored, judge
from scripts.simulate_run import (
    CHANNELS,
    NEWCOMER,
    PROXY,
    PUSH,
    REST,
    START_MS,
    SYMBOL,
    VENUES,
    WEBSOCKET,
    Run,
    box_settings,
    service_settings,
)
from trio_feed import logs, service
from trio_feed.environment import Environment
from trio_feed.model import Interval, Series
from trio_feed.settings import LoggingSettings
from trio_feed.simulator.books import BookPath
from trio_feed.simulator.boxes import serve_box
from trio_feed.simulator.faultscript import KINDS, parse_kinds
from trio_feed.simulator.gate import Gate
from trio_feed.simulator.levers import play
from trio_feed.simulator.memory import MemoryNetwork
from trio_feed.simulator.memory_proxy import MemoryProxy
from trio_feed.simulator.pipe import pipe_pair
from trio_feed.simulator.trial import Trial
from trio_feed.supervise import root_cause

SETTLE_S = 3_600.0
"""After the last fault: what is not repaired by then counts as lost."""
_CONTROL_FRAMES_PER_S = {"binance": 5}
_DIALS, _DIALS_WITHIN_S = 300, 300.0


@define
class Scene:
    """Everything of one run."""

    run: Run
    trial: Trial
    record: Record
    ready: service.Ready | None = None
    crash: str = ""
    dials: deque[float] = field(factory=deque)
    too_many_dials: int = 0
    bypassed: int = 0
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
        if (host, port) != PROXY:
            self.bypassed += 1
            self.trial.gate.offences.note(f"{host}:{port} dialled past the proxy")
        return await self.trial.network.dial(host, port)

    def service_now_ms(self) -> float:
        return virtual_now_ms() + self.trial.skew_ms


def virtual_now_ms() -> float:
    """The exchange's clock, and the truth."""
    return START_MS + trio.current_time() * 1000


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


class _Unexpected(io.TextIOBase):
    """Where log lines go."""

    def write(self, text: str) -> int:
        return len(text) if "stream.refused" in text else sys.stderr.write(text)


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """The service's warnings are what the script asked for; errors go to stderr, but for the
    refusal of streams of the symbol that comes and goes."""
    before = structlog.get_config()
    logs.configure(LoggingSettings(level="error", format="json"), _Unexpected())
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
    """The box behind its gate, and the proxy before it."""
    network = MemoryNetwork(pipe_pair)
    gate = Gate(nursery, virtual_now_ms, _CONTROL_FRAMES_PER_S.get(run.venue, 10))
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
    for endpoint in (WEBSOCKET, REST):
        (listener,) = await network.listen(*endpoint)
        listeners.append(gate.guard(listener, rest=endpoint is REST))
    serve = partial(serve_box, box_settings(run), listeners=listeners, now_ms=virtual_now_ms)
    exchange = await nursery.start(serve)
    exchange.market.delist(NEWCOMER)
    proxy = MemoryProxy(network)
    (listener,) = await network.listen(*PROXY)
    nursery.start_soon(proxy.run, listener)
    trial = Trial(exchange, network, gate, proxy, WEBSOCKET, REST, PROXY, SYMBOL, NEWCOMER)
    books = BookCheck(BookPath(exchange.market, SYMBOL), by_id=run.venue != "okx")
    return Scene(run, trial, Record(books))


async def _serve(scene: Scene) -> None:
    """The service.  That it ends at all is a crash: nobody told it to."""
    chance = random.Random(f"service {scene.run.seed}")
    world = Environment(scene.dial, scene.trial.network.listen, scene.service_now_ms, chance)

    async def run(task_status: trio.TaskStatus[service.Ready]) -> None:
        await service.run(service_settings(scene.run), world, task_status=task_status)
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
    nursery.start_soon(play, scene.trial, scene.run.faults())
    end_s = scene.run.hours * 3600
    with trio.move_on_at(end_s):
        await scene.crashed.wait()
    with trio.move_on_at(end_s + SETTLE_S):
        await scene.complete.wait()


async def _listen(scene: Scene) -> None:
    """A client of the push endpoint, over the wire.  What it misses once dropped counts as lost."""
    run = scene.run
    asked: list[dict[str, Any]] = [{"symbol": SYMBOL, "interval": "1m", "limit": 100}]
    asked += [{"symbol": SYMBOL, "channel": channel} for channel in run.channels[1:]]
    stream = await scene.trial.network.dial(*PUSH)
    reason = await listen(
        stream, asked, scene.record, last_ms=run.expected[-1], complete=scene.complete
    )
    scene.trial.log.append(f"t={trio.current_time():.3f} client dropped {reason}")


async def _judge(scene: Scene) -> dict[str, Any]:
    run, trial = scene.run, scene.trial
    stored = {symbol: await _stored(scene, symbol) for symbol in (SYMBOL, NEWCOMER)}
    offences = trial.gate.offences
    violations = scene.too_many_dials + offences.control_frames + offences.while_banned
    return {
        **judge(run, trial, scene.record, stored),
        "crashes": int(bool(scene.crash)),
        "limit_violations": violations,
        "bypassed": scene.bypassed,
        "virtual_hours": round(trio.current_time() / 3600, 2),
        "seed": run.seed,
        "venue": run.venue,
        "dials": trial.exchange.dials,
        "requests": trial.exchange.requests,
        "faults": dict(sorted(trial.injected.items())),
    }


async def _stored(scene: Scene, symbol: str) -> Stored:
    if scene.ready is None:
        return {}
    series = Series(scene.run.venue, symbol, Interval.M1)
    rows = await scene.ready.store.history(series, limit=1_000_000)
    return {kline.open_ms: kline for kline in rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parser().parse_args(arguments)
    channels = tuple(name for name in CHANNELS if name == "kline" or getattr(options, f"{name}s"))
    run = Run(options.seed, options.hours, options.faults, options.venue, channels)
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
    parser.add_argument("--books", action="store_true", help="also take books and compare them")
    parser.add_argument("--tickers", action="store_true", help="also take tickers")
    parser.add_argument("--json", action="store_true", help="only the line of JSON")
    return parser


def _kinds(text: str) -> tuple[str, ...]:
    try:
        return parse_kinds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
