"""The same two faults for trio_feed and for the clients that people would pick instead.

A: for 20 s the server cuts every TCP connection (a reset) each 3 s, at 500 trades a second; then it
is kind.  What counts are the trades of those 20 s, by id, and their 1s candles, as they were at
their end, that the user has not got 15 s after the first later trade (on a busy machine a client
may be many seconds behind: what is on its way is not lost).

B: from one moment on the server sends no data, but answers every ping.  What counts are the seconds
until the client has given that connection up, as the server sees it, and, where it has, the trades
from the silence's beginning until data comes again that the user never gets.

"... behind trio_feed" is the same client, told trio_feed's dialect as its exchange's address;
trio_feed has the connections that are cut or silent.

The server is the simulated Binance spot exchange in this process, on loopback, with REST beside it
(aggTrades by id), so that those that repair can.  Each client is a process of its own; trio_feed's
is trio_feed.client.  Those of A
run one after the other; those of B, which only wait, at the same time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the package lies beside this folder, installed or not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ssl

import trio
import trustme
from attrs import define, field

from scripts.bench_clients import CLIENTS, OURS, WITHOUT_SECONDS, installed
from trio_feed import __version__
from trio_feed.model import Interval
from trio_feed.settings import SimulatorSettings
from trio_feed.simulator import Market, binance_exchange, serve

ROOT = Path(__file__).resolve().parent.parent
BEHIND = " behind trio_feed"
CUTS_S, CUT_EVERY_S, KIND_S = 20.0, 3.0, 15.0
LATEST_S = 90.0
"""From the end of what counts until a client has to be past it."""
START_S = 60.0
"""Until the first trade is received."""
QUIET_AFTER_S = 3.0


@define
class Told:
    """The ids that a client has handed to its user, and how often each."""

    ids: Counter[int] = field(factory=Counter)
    candles: dict[int, tuple[float, float]] = field(factory=dict)
    """By open time: close and volume, as they were told last."""
    _first: trio.Event = field(factory=trio.Event)

    def note(self, first: int, last: int) -> None:
        self.ids.update(range(first, last + 1))
        self._first.set()

    def line(self, line: bytes) -> None:
        """What scripts/bench_clients.py prints."""
        if line.isdigit():
            self.note(int(line), int(line))
        elif line.startswith(b"k "):
            _, open_ms, close, volume = line.split()
            self.candles[int(open_ms)] = float(close), float(volume)

    async def first(self) -> None:
        await self._first.wait()


@define
class Server:
    """The box.  ``address`` and ``tls`` are host:port."""

    exchange: Any
    market: Market
    address: str
    tls: str

    def next_id(self) -> int:
        """Of the first trade that has not happened yet."""
        return self.market.first_id("BTCUSDT", time.time() * 1000)

    def candles_since(self, began_ms: float) -> dict[int, tuple[float, float]]:
        """The 1s candles that are over, as :class:`Told` has them."""
        first, end = (int(ms // 1000) * 1000 for ms in (began_ms, time.time() * 1000))
        found = [self.market.candle("BTCUSDT", Interval.S1, at) for at in range(first, end, 1000)]
        return {each.open_ms: (float(each.close), float(each.volume)) for each in found}


@asynccontextmanager
async def open_server(authority: trustme.CA, rate: int) -> AsyncIterator[Server]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    market = Market(7, ("BTCUSDT", "ETHUSDT"), rate * 60)
    (plain,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    (secret,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    exchange = binance_exchange(
        market, lambda: time.time() * 1000, SimulatorSettings(venue="binance")
    )
    listeners = [plain, trio.SSLListener(secret, context)]
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, exchange, listeners=listeners))
        addresses = ["{}:{}".format(*one.socket.getsockname()) for one in (plain, secret)]
        yield Server(exchange, market, *addresses)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_client(name: str, server: Server, folder: Path) -> AsyncIterator[Told]:
    """A started client; killed on the way out."""
    told = Told()
    own = name.removesuffix(BEHIND)
    run = partial(run_behind if own != name or name == OURS else run_peer, own)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, server, folder, told)
        yield told
        nursery.cancel_scope.cancel()


async def run_peer(name: str, server: Server, folder: Path, told: Told) -> None:
    await follow_peer(name, server.address, server.tls, folder, told)


async def run_behind(name: str, server: Server, folder: Path, told: Told) -> None:
    """The service, and a client of its dialect or of its push endpoint."""
    secure = name == "cryptofeed"  # takes wss only
    async with open_ours(server, folder, secure=secure) as url:
        address = url.partition("://")[2]
        if name != OURS:
            address += "/binance"
        await follow_peer(name, address, address, folder, told)


async def follow_peer(name: str, address: str, tls: str, folder: Path, told: Told) -> None:
    command = [sys.executable, "scripts/bench_clients.py", name, address, tls]
    trusted = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(folder / "ca.pem"))
    with open(folder / f"{name}.log", "ab") as log:  # noqa: ASYNC230 - for its stderr
        async with process(command, stderr=log, env=os.environ | trusted) as lines:
            async for line in lines:
                told.line(line)


@asynccontextmanager
async def open_ours(server: Server, folder: Path, *, secure: bool = False) -> AsyncIterator[str]:
    """The service; its URL, once it is ready.  ``secure``: with TLS."""
    settings = str(write_settings(server, folder, secure=secure))
    command = [sys.executable, "-m", "trio_feed", "--config", settings]
    async with process(command) as lines, trio.open_nursery() as nursery:
        async for line in lines:
            event = json.loads(line)
            if event["event"] == "service.ready":
                nursery.start_soon(complain_of, lines)
                yield event["urls"]["http"]
                break
        nursery.cancel_scope.cancel()


async def complain_of(lines: AsyncIterator[bytes]) -> None:
    """What the service warns of, but for the connections that are cut."""
    async for line in lines:
        event = json.loads(line)
        if event["level"] in ("warning", "error") and event["event"] != "connection.lost":
            print(f"trio_feed: {line.decode()[:300]}", file=sys.stderr, flush=True)


def write_settings(server: Server, folder: Path, *, secure: bool) -> Path:
    path = folder / f"of-{server.address.rpartition(':')[2]}.toml"  # several run at once
    files = f'tls_cert_file = "{folder}/own.pem"\ntls_key_file = "{folder}/own.key"'
    path.write_text(
        f"""
[server]
port = 0
{files if secure else ""}
[store]
path = ":memory:"
[logging]
format = "json"
[exchanges.binance]
symbols = ["BTCUSDT"]
intervals = ["1s", "1m"]
trade_intervals = []
channels = ["kline", "trade"]
history_bars = 20
[exchanges.binance.connection]
websocket_url = "ws://{server.address}"
rest_url = "http://{server.address}"
"""
    )
    return path


@asynccontextmanager
async def process(command: Sequence[str], **more: Any) -> AsyncIterator[AsyncIterator[bytes]]:
    """A started process and its lines; killed, and waited for, on the way out."""
    started = await trio.lowlevel.open_process(command, cwd=ROOT, stdout=subprocess.PIPE, **more)
    assert started.stdout is not None

    async def lines(stdout: Any) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in stdout:
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line

    try:
        yield lines(started.stdout)
    finally:
        started.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await started.wait()
        await started.stdout.aclose()


async def fault_a(name: str, authority: trustme.CA, folder: Path, rate: int) -> dict[str, Any]:
    async with open_server(authority, rate) as server, open_client(name, server, folder) as told:
        if not await begins(told):
            return {"A": not_begun(name, folder)}
        first, began, began_ms = server.next_id(), trio.current_time(), time.time() * 1000
        for cut in range(1, int(CUTS_S // CUT_EVERY_S) + 1):
            await trio.sleep_until(began + cut * CUT_EVERY_S)
            for connection in [*server.exchange.connections]:
                connection.abort()
        await trio.sleep_until(began + CUTS_S)
        wanted, candles = range(first, server.next_id()), server.candles_since(began_ms)
        if name.removesuffix(BEHIND) in WITHOUT_SECONDS:
            candles = {}
        await until_told(wanted, candles, told)
        return {
            "trades": len(wanted),
            "lost": lost_of(wanted, told),
            "lost_ids": spans_of(wanted, told),
            "candles_wanted": len(candles),
            "candles_lost": wrong_of(candles, told),
            "doubled": sum(told.ids[number] > 1 for number in wanted),
            "connections": server.exchange.upgrades,
        }


async def until_told(wanted: range, candles: dict[int, tuple[float, float]], told: Told) -> None:
    """Returns when the client has told its user everything, or has had its time to: ``KIND_S``
    from when it is past the end."""
    with trio.move_on_after(LATEST_S) as waiting:
        past = False
        while lost_of(wanted, told) or wrong_of(candles, told):
            if not past and max(told.ids) >= wanted.stop:
                past, waiting.deadline = True, trio.current_time() + KIND_S
            await trio.sleep(0.5)


def spans_of(wanted: range, told: Told) -> list[tuple[int, int]]:
    """First and last of those in a row that are lost, counted from the beginning; ten at most."""
    spans: list[tuple[int, int]] = []
    for place, number in enumerate(wanted):
        if number in told.ids:
            continue
        first = spans.pop()[0] if spans and spans[-1][1] == place - 1 else place
        spans.append((first, place))
    return spans[:10]


def lost_of(wanted: range, told: Told) -> int:
    return sum(number not in told.ids for number in wanted)


def wrong_of(candles: dict[int, tuple[float, float]], told: Told) -> int:
    return sum(told.candles.get(open_ms) != values for open_ms, values in candles.items())


async def fault_b(
    name: str, authority: trustme.CA, folder: Path, rate: int, cap_s: float
) -> dict[str, Any]:
    async with open_server(authority, rate) as server, open_client(name, server, folder) as told:
        if not await begins(told):
            return {"B": not_begun(name, folder)}
        await trio.sleep(QUIET_AFTER_S)
        first = server.next_id()
        silent, began = [*server.exchange.connections], trio.current_time()
        for connection in silent:
            connection.mute()
        noticed_s = await seconds_until(
            lambda: not any(one in server.exchange.connections for one in silent), began, cap_s
        )
        if noticed_s is None:
            return {"noticed_s": None}
        last = max(told.ids)
        again = await seconds_until(lambda: max(told.ids) > last, began, noticed_s + 30)
        wanted = range(first, server.next_id())
        await until_told(wanted, {}, told)
        lost = {"silence_lost": lost_of(wanted, told), "silence_wanted": len(wanted)}
        lost["silence_lost_ids"] = spans_of(wanted, told)
        return {"noticed_s": noticed_s, "data_again_s": again, **lost}


async def begins(told: Told) -> bool:
    with trio.move_on_after(START_S):
        await told.first()
        return True
    return False


def not_begun(name: str, folder: Path) -> str:
    log = folder / f"{name.removesuffix(BEHIND)}.log"
    said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"no trade within {START_S:g} s" + (f": {said[-1][:120]}" if said else "")


async def seconds_until(condition: Callable[[], bool], began: float, cap_s: float) -> float | None:
    while trio.current_time() - began < cap_s:
        if condition():
            return round(trio.current_time() - began, 1)
        await trio.sleep(0.1)
    return None


async def bench(
    names: Sequence[str], faults: str, rate: int, cap_s: float
) -> dict[str, dict[str, Any]]:
    authority = trustme.CA()
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="trio_feed_bench_") as word:
        folder = Path(word)
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        own = authority.issue_cert("127.0.0.1")
        own.private_key_pem.write_to_path(str(folder / "own.key"))
        own.cert_chain_pems[0].write_to_path(str(folder / "own.pem"))
        for name in names:
            row = rows[name] = {"version": version_of(name)}
            if not row["version"]:
                row["A"] = row["B"] = "cannot be installed here: see requirements-bench.lock"
            elif "A" in faults:
                row |= await fault_a(name, authority, folder, rate)
                print(f"A {name}: {row}", file=sys.stderr, flush=True)
        if "B" in faults:
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(one_of_b, name, authority, folder, rate, cap_s, rows[name])
    return rows


def version_of(name: str) -> str:
    return __version__ if name == OURS else installed(name.removesuffix(BEHIND))


async def one_of_b(
    name: str, authority: trustme.CA, folder: Path, rate: int, cap_s: float, row: dict[str, Any]
) -> None:
    if row["version"]:
        row |= await fault_b(name, authority, folder, rate, cap_s)
        print(f"B {name}: {row}", file=sys.stderr, flush=True)


def part_of(row: dict[str, Any], what: str) -> str:
    lost = row.get(f"{what}_lost")
    return "-" if not row.get(f"{what}_wanted") else f"{lost} of {row[f'{what}_wanted']}"


def table(rows: dict[str, dict[str, Any]], cap_s: float) -> str:
    lines = [
        "| client | version | A: trades lost | of | doubled | candles lost |"
        " B: silence noticed after | data again after | lost meanwhile |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        lost = row.get("A", "-")
        if "lost" in row:
            lost = f"{row['lost']} ({100 * row['lost'] / row['trades']:.1f} %)"
        noticed = row.get("B", "-")
        if "noticed_s" in row:
            seconds = row["noticed_s"]
            noticed = f"not within {cap_s:g} s" if seconds is None else f"{seconds} s"
        again = row.get("data_again_s")
        cells = [
            name, row["version"] or "-", lost, row.get("trades", "-"), row.get("doubled", "-"),
            part_of(row, "candles"), noticed, "-" if again is None else f"{again} s",
            part_of(row, "silence"),
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 when every client that is asked for could be measured."""
    names = [OURS, *CLIENTS, *(name + BEHIND for name in CLIENTS)]
    parser = argparse.ArgumentParser(prog="scripts/bench_faults", description=__doc__)
    parser.add_argument("--only", default=",".join(names), help=", ".join(names))
    parser.add_argument("--faults", default="AB", choices=["A", "B", "AB"])
    parser.add_argument("--rate", type=int, default=500, help="trades a second")
    parser.add_argument("--silence", type=float, default=180.0, help="seconds that B waits at most")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(names):
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    rows = trio.run(bench, chosen, options.faults, options.rate, options.silence)
    print(table(rows, options.silence))
    print(json.dumps(rows))
    return int(any("A" in row or "B" in row for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
