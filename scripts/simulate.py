"""The whole service under virtual time against an exchange with a fault schedule; see ``--help``.

Everything runs in one process over memory streams: the simulated exchange behind a fault proxy
(:mod:`trio_feed.simulator.faults.proxy`), the service, and one client of its push endpoint that
keeps every closed candle it gets.  Afterwards the store and the client's record are compared with
the simulated market, which can be asked for the truth of any minute.

Time is trio's MockClock, so hours take seconds, and nothing reads the machine's clock but the
measurement of ``wall_s``.  The service reaches the exchange through a proxy, and nothing else.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trio
from attrs import define, evolve, field

from scripts.simulate_box import Dialling, open_box
from scripts.simulate_client import listen
from scripts.simulate_judge import MUST_BE_ZERO, Felt, judge
from scripts.simulate_nodes import simulate_nodes
from scripts.simulate_nodes_faults import ENGINE_KINDS, parse_engine_kinds
from scripts.simulate_nodes_judge import MUST_BE_ZERO as NODES_MUST_BE_ZERO
from scripts.simulate_nodes_run import NodesRun
from scripts.simulate_run import (
    BUILT,
    CHANNELS,
    FRESH,
    NEWCOMER,
    PUSH,
    SPINPET,
    START_MS,
    SYMBOL,
    VENUES,
    Run,
    service_settings,
)
from scripts.simulate_solana import INTERVALS as SPINPET_INTERVALS
from scripts.simulate_solana import KINDS as SPINPET_KINDS
from scripts.simulate_solana import judge_solana, mints_of, settings_of
from scripts.simulate_time import in_virtual_time
from trio_feed import service
from trio_feed.environment import Environment
from trio_feed.model import Interval, Series
from trio_feed.simulator.faults.context import FaultContext
from trio_feed.simulator.faults.injection import run_schedule
from trio_feed.simulator.faults.schedule import ALL_KINDS, KINDS, SOLANA_KINDS, parse_kinds
from trio_feed.simulator.market.books import BookPath
from trio_feed.supervise import root_cause
from trio_feed.testing.judge import Stored
from trio_feed.testing.record import BookCheck, Record
from trio_feed.testing.truth import days_of

SETTLE_S = 3_600.0
"""After the last fault: what is not repaired by then counts as lost."""
BUILT_S = 120.0
"""So long after the exchange's last candle those that are made here are waited for."""
AUDIT_S = 900.0
"""And so long what came to light late."""


@define
class Scene:
    """Everything of one run."""

    run: Run
    context: FaultContext
    record: Record
    felt: Felt
    dialling: Dialling
    end_ms: int = 0
    """Of the hours, in the exchange's time; 0: they are not over."""
    wanted: dict[Interval, int] = field(factory=dict)
    """The last candles of the hours, open times."""
    ready: service.Ready | None = None
    crash: str = ""
    up: trio.Event = field(factory=trio.Event)
    """The service runs, or has crashed before."""
    complete: trio.Event = field(factory=trio.Event)
    """The client has the last candle."""
    crashed: trio.Event = field(factory=trio.Event)

    def is_complete(self) -> bool:
        """Whether the hours are over and the client has the last candle of each series that the
        exchange gives, or that is made of those."""
        return bool(self.end_ms) and all(
            self.record.of(SYMBOL, interval).last_ms >= open_ms
            for interval, open_ms in self.wanted.items()
        )

    def end(self) -> None:
        """The hours are over."""
        self.end_ms = math.floor(self.context.clocks.exchange_ms())
        if self.run.venue == SPINPET:
            return  # silent intervals have no candle, so none is waited for
        days = days_of(self.context.exchange.market, SYMBOL)
        for interval, origin in self.run.origins.items():
            if origin == "exchange":
                self.wanted.update((interval, at) for at, _ in days.last(interval, 1, self.end_ms))


def simulate(run: Run) -> tuple[list[str], dict[str, Any]]:
    """One run -> what was injected, a line each, and the result."""
    felt = Felt()
    return in_virtual_time(run.seed, felt, partial(_simulate, run, felt))


async def _simulate(run: Run, felt: Felt) -> tuple[list[str], dict[str, Any]]:
    async with trio.open_nursery() as nursery:
        scene = await _set_up(run, felt, nursery)
        nursery.start_soon(_serve, scene)
        await scene.up.wait()
        if not scene.crash:
            await _act(scene, nursery)
        result = await _judge(scene)
        nursery.cancel_scope.cancel()
    lines = [*scene.context.log, *scene.context.fault_proxy.violations.log]
    return sorted(lines, key=lambda line: float(line[2:].split()[0])), result


async def _set_up(run: Run, felt: Felt, nursery: trio.Nursery) -> Scene:
    context = await open_box(run, nursery)
    books = None
    if run.venue != SPINPET:
        books = BookCheck(BookPath(context.exchange.market, SYMBOL), by_id=run.venue != "okx")
    return Scene(run, context, Record(books, SYMBOL), felt, Dialling(context))


async def _serve(scene: Scene) -> None:
    """The service.  That it ends at all is a crash: nobody told it to."""
    chance = random.Random(f"service {scene.run.seed}")
    environment = Environment(
        scene.dialling.dial, scene.context.network.listen, scene.context.clocks.wall_ms, chance
    )

    async def run(task_status: trio.TaskStatus[service.Ready]) -> None:
        own = settings_of(scene.run) if scene.run.venue == SPINPET else []
        settings = service_settings(evolve(scene.run, settings=(*own, *scene.run.settings)))
        await service.run(settings, environment, task_status=task_status)
        raise AssertionError("the service returned")

    try:
        async with trio.open_nursery() as nursery:
            scene.ready = await nursery.start(run)
            scene.up.set()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        cause = root_cause(error)
        scene.crash = f"{type(cause).__name__}: {cause}"
        scene.context.log.append(f"t={trio.current_time():.3f} crash {scene.crash}")
        for event in (scene.up, scene.crashed, scene.complete):
            event.set()


async def _act(scene: Scene, nursery: trio.Nursery) -> None:
    """The client, the faults, and time to settle: until the last candle has come."""
    nursery.start_soon(_listen, scene)
    nursery.start_soon(
        run_schedule, scene.context, [item for item in scene.run.faults() if item[0] > 0]
    )
    end_s = scene.run.hours * 3600
    with trio.move_on_at(end_s):
        await scene.crashed.wait()
    scene.end()
    if scene.is_complete():
        scene.complete.set()
    with trio.move_on_at(end_s + SETTLE_S):
        await scene.complete.wait()
    if scene.run.built or scene.run.rollups:
        await _crash_or(scene, scene.run.chain_s if scene.run.venue == SPINPET else BUILT_S)
    if scene.context.late_trades:
        await _crash_or(scene, AUDIT_S)


async def _crash_or(scene: Scene, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await scene.crashed.wait()


async def _listen(scene: Scene) -> None:
    """A client of the push endpoint, over the wire.  What it misses once dropped counts as lost."""
    run = scene.run
    each = [{"interval": interval.value, "limit": 100} for interval in run.origins]
    asked: list[dict[str, Any]] = [{"symbol": SYMBOL, **one} for one in each]
    new = [{"symbol": FRESH, "provisional": True, **one} for one in each]
    later = new if run.lists_fresh else []
    if run.venue == SPINPET:  # mints are known with their first price
        asked, later = [], [{"symbol": mint, **one} for mint in mints_of(run) for one in each]
    asked += (
        []
        if run.venue == SPINPET
        else [{"symbol": SYMBOL, "channel": channel} for channel in run.channels[1:]]
    )
    stream = await scene.context.network.dial(*PUSH)
    reason = await listen(
        stream, asked, scene.record,
        later=later, is_complete=scene.is_complete, complete=scene.complete,
    )  # fmt: skip
    scene.context.log.append(f"t={trio.current_time():.3f} client dropped {reason}")


async def _judge(scene: Scene) -> dict[str, Any]:
    run, context = scene.run, scene.context
    symbols = mints_of(run) if run.venue == SPINPET else (SYMBOL, NEWCOMER, FRESH)
    stored = {
        (symbol, interval): await _stored(scene, symbol, interval)
        for symbol in symbols
        for interval in run.origins
    }
    felt, messages = scene.felt, max(1, context.fault_proxy.frames)
    found = context.fault_proxy.violations
    violations = scene.dialling.too_many + found.control_frames + found.while_banned
    end_ms = scene.end_ms or START_MS
    if run.venue == SPINPET:
        verdict = judge_solana(run, context, scene.record, stored, end_ms)
    else:
        verdict = judge(run, context, scene.record, stored, end_ms, context.returns_s)
    return {
        **verdict,
        "crashes": int(bool(scene.crash)),
        "limit_violations": violations,
        "bypassed": scene.dialling.bypassed,
        "virtual_hours": round(trio.current_time() / 3600, 2),
        "seed": run.seed,
        "venue": run.venue,
        "dials": context.exchange.dials,
        "requests": context.exchange.requests,
        "weight": getattr(context.exchange, "weight", 0),
        "reconnects": context.exchange.upgrades,
        "turns_per_frame": round(felt.turns / messages, 1),
        "log_lines": sum(felt.logs.values()) - felt.logs["service.minute"],
        "logs": dict(felt.logs.most_common(12)),
        "faults": dict(sorted(context.injected.items())),
    }


async def _stored(scene: Scene, symbol: str, interval: Interval) -> Stored:
    if scene.ready is None:
        return {}
    series = Series(scene.run.venue, symbol, interval)
    rows = await scene.ready.store.history(series, limit=1_000_000)
    return {kline.open_ms: kline for kline in rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.nodes:
        return _several(parser, options)
    channels = tuple(name for name in CHANNELS if name == "kline" or getattr(options, f"{name}s"))
    run = Run(
        options.seed,
        options.hours,
        _kinds(parser, options.faults),
        options.venue,
        channels,
        intervals=options.intervals,
        built=tuple(i for i in BUILT if i not in options.intervals) if options.built else (),
        rollups=options.rollups,
        symbols=options.symbols,
        settings=tuple(options.set),
    )
    if run.venue == SPINPET:
        kinds = SPINPET_KINDS if run.kinds in (tuple(KINDS), tuple(ALL_KINDS)) else run.kinds
        if unfit := sorted({*kinds} - {*SPINPET_KINDS}):
            parser.error(f"{SPINPET} has no {', '.join(unfit)}; it has {', '.join(SPINPET_KINDS)}")
        run = evolve(run, kinds=kinds, intervals=(), built=SPINPET_INTERVALS)
    return _told(*simulate(run), MUST_BE_ZERO, as_json=options.json)


def _several(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    left, between = parse_engine_kinds(options.faults)
    feeders, servers = options.nodes
    one = evolve(
        NodesRun().one,
        seed=options.seed,
        hours=options.hours,
        kinds=_kinds(parser, left),
        built=BUILT[1:] if options.built else (),
        rollups=options.rollups,
        settings=tuple(options.set),
    )
    run = NodesRun(one, feeders, servers, options.clients, between, options.standby)
    return _told(*simulate_nodes(run), NODES_MUST_BE_ZERO, as_json=options.json)


def _told(
    lines: Sequence[str], result: dict[str, Any], zero: Sequence[str], *, as_json: bool
) -> int:
    if not as_json:
        print(*lines, sep="\n")
    print(json.dumps(result))
    return int(any(result[name] for name in zero))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--hours", type=float, default=24.0, help="virtual")
    length.add_argument("--minutes", dest="hours", type=_minutes, help="the same in minutes")
    parser.add_argument(
        "--faults",
        default="all",
        help="all (that fit the venue), everything, none, or some of "
        + ",".join([*ALL_KINDS, *SOLANA_KINDS])
        + "; with --nodes also engine (all of them) or some of "
        + ",".join(ENGINE_KINDS),
    )
    parser.add_argument(
        "--nodes", type=_nodes, help="so many that feed x so many that serve, as in 2x2"
    )
    parser.add_argument("--clients", type=int, default=4, help="with --nodes")
    parser.add_argument(
        "--standby", choices=("", "cold", "hot"), default="", help="with --nodes; by the seed"
    )
    parser.add_argument("--venue", choices=VENUES, default=VENUES[0])
    parser.add_argument("--trades", action="store_true", help="also take trades and count them")
    parser.add_argument("--books", action="store_true", help="also take books and compare them")
    parser.add_argument("--tickers", action="store_true", help="also take tickers")
    parser.add_argument(
        "--built", action="store_true", help="also 1s and 30s made of trades; with --nodes 30s"
    )
    parser.add_argument(
        "--intervals", type=_intervals, default="1m", help="the exchange's candles: 1m,5m,1h ..."
    )
    parser.add_argument("--rollups", type=_intervals, default="", help="made of 1m: 3m,2h ...")
    parser.add_argument("--symbols", type=int, default=2, help="so many are taken")
    parser.add_argument("--set", action="append", default=[], help="of the service: key=value")
    parser.add_argument("--json", action="store_true", help="only the line of JSON")
    return parser


def _intervals(text: str) -> tuple[Interval, ...]:
    try:
        return tuple(Interval.parse(name.strip()) for name in text.split(",") if name.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _kinds(parser: argparse.ArgumentParser, text: str) -> tuple[str, ...]:
    try:
        return parse_kinds(text)
    except ValueError as error:
        parser.error(f"argument --faults: {error}")


def _minutes(text: str) -> float:
    return float(text) / 60


def _nodes(text: str) -> tuple[int, int]:
    feeders, _, servers = text.partition("x")
    if not (feeders.isdecimal() and servers.isdecimal() and int(feeders) and int(servers)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 2x2")
    return int(feeders), int(servers)


if __name__ == "__main__":
    sys.exit(main())
