"""``scripts/bench scenario``: the user's: 1,000 candle updates a second of 200 symbols come over
WebSocket from an exchange, and 10,000 connected clients, 50 for each symbol, get them.

Figures: from the making of an update at the exchange to the last of its subscribers (p50, p99), the
service's CPU as a share of the machine's two cores, and the longest stall of its event loop (by
wall clock, and in CPU time of its own).
Beside it, in the same run and with the same exchange and clients, a loop that reads an update and
calls ``os.write`` for each subscriber: what any Python program needs at least.  The clients wait in
``epoll_wait`` here, for it is latency that counts.

``--subscriptions 10``: each client has ten of the symbols, so that each has 500 subscribers and
500,000 deliveries a second are offered, more than a core for who writes each by itself.  The
loop then reads its updates late, and the exchange, which waits for it, sends fewer of them.  There
is no target for it.  The clients look at each delivery; what they use of their core is said, for
beyond nine tenths it is them that are measured.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .exchange import Exchange, frame, paced, symbols
from .processes import LOADING, MEASURED, child, cpu_s, open_files, pin
from .result import Result, Target

_SYMBOLS, _PER_S = 200, 1_000
_OURS, _LOOP = "trio_feed", "os.write loop"
_P99, _P50 = f"{_OURS}: p99 to the last subscriber", f"{_OURS}: p50 to the last subscriber"
_CPU, _STALL = f"{_OURS}: CPU of two cores", f"{_OURS}: longest stall"
_RATIO = "p50, trio_feed / os.write loop"
_TARGETS = (
    Target(_P99, 10, most=True),
    Target(_RATIO, 2.0, most=True),
    Target(_CPU, 30, most=True),
    Target(_STALL, 10, most=True),
)
_CANDLE = (
    '{"stream":"%s_perpetual@continuousKline_1m","data":{"e":"continuous_kline","E":%d,"ps":"%s",'
    '"ct":"PERPETUAL","k":{"t":%d,"T":%d,"i":"1m","f":1,"L":2,"o":"66440.7","c":"66444.1",'
    '"h":"66450.1","l":"66430.0","v":"%d","n":%d,"x":false,"q":"%d","V":"1","Q":"66000","B":"0"},'
    '"s":"%s","st":1}}'
)


def run(quick: bool, subscriptions: int = 1) -> Result:
    """``subscriptions`` of each client."""
    pin(LOADING)
    number = min(1_000 if quick else 10_000, open_files() - 200)
    seconds, rounds = (4.0, 1) if quick else (10.0, 2)
    result = Result(
        "scenario",
        "ms",
        {
            _RATIO: (_P50, f"{_LOOP}: p50 to the last subscriber"),
            "p99, trio_feed / os.write loop": (_P99, f"{_LOOP}: p99 to the last subscriber"),
            "CPU, trio_feed / os.write loop": (_CPU, f"{_LOOP}: CPU of two cores"),
        },
        _TARGETS if subscriptions == 1 else (),
    )
    each = number * subscriptions // _SYMBOLS
    result.notes.append(f"{number} clients, {each} for each of {_SYMBOLS} symbols")
    for _ in range(rounds):
        for impl in (_OURS, _LOOP):
            try:
                _measure(result, impl, number, subscriptions, seconds)
            except RuntimeError as error:
                result.skip(impl, str(error))
    return result


def _measure(result: Result, impl: str, number: int, subscriptions: int, seconds: float) -> None:
    names = symbols(_SYMBOLS)
    exchange = Exchange(names)
    job = {"impl": impl, "port": exchange.port, "symbols": names}
    try:
        with _answering(exchange) as feed, child("scenario_server", job, MEASURED) as server:
            port = server.read()["port"]
            wanted = {
                "port": port, "number": number, "common": [], "streams": _SYMBOLS,
                "each": subscriptions, "candles": True, "sampled": number,
                "expected": number * subscriptions // _SYMBOLS,
            }  # fmt: skip
            with child("clients", wanted, LOADING) as clients:
                stayed = clients.read()["stayed"]
                # This exchange closes no candle: behind the end of a minute the service would
                # rightly hold back what follows.
                left_s = 60 - time.time() % 60
                time.sleep(left_s if left_s < seconds + 3 else 0)
                feed.send(1.0)  # the first of each stream, and caches
                clients.ask("take")
                server.ask("stall")
                both = (server.process.pid, clients.process.pid)
                before = [cpu_s(pid) for pid in both]
                sent = feed.send(seconds)
                used, load = (cpu_s(pid) - at for pid, at in zip(both, before, strict=True))
                time.sleep(0.2)
                taken, stall = clients.ask("take"), server.ask("stall")
    finally:
        exchange.close()
    if stayed < number or taken["gone"]:
        result.skip(impl, f"{number - stayed + taken['gone']:g} clients did not stay")
    result.add(f"{impl}: p50 to the last subscriber", taken["p50_ms"])
    result.add(f"{impl}: p99 to the last subscriber", taken["p99_ms"])
    result.add(f"{impl}: max to the last subscriber", taken["max_ms"])
    result.add(f"{impl}: CPU of two cores", used / seconds / 2 * 100, "%")
    result.add(f"{impl}: longest stall", stall["stall_ms"])
    result.add(f"{impl}: longest stall, CPU", stall["stall_cpu_ms"])
    result.add(f"{impl}: updates sent", sent / seconds, "/s")
    result.add(f"{impl}: updates that all got", taken["messages"] / sent * 100, "%")
    result.add(f"{impl}: the clients' core", load / seconds * 100, "%")


class _Feed:
    """The connections of a reader, by the symbols that it asked for on each."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange, self._ending = exchange, threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._number = 0
        self._thread.start()

    def _accept(self) -> None:
        self._exchange.accept(10_000, lambda: not self._ending.is_set())

    def send(self, seconds: float) -> int:
        """Updates of the symbols in turn at the pace; says how many."""
        sent = 0
        while not self._exchange.by_stream:
            time.sleep(0.01)
        for _ in paced(_PER_S, seconds):
            name = self._exchange.names[self._number % _SYMBOLS]
            self._number += 1
            at, micros = time.time_ns() // 1_000_000, time.monotonic_ns() // 1000
            open_ms = at // 60_000 * 60_000
            lower = name.lower()
            connection = self._exchange.by_stream.get(f"{lower}_perpetual@continuousKline_1m")
            if connection is None:
                raise RuntimeError(f"nobody has asked for {name}")
            body = _CANDLE % (
                lower, at, name, open_ms, open_ms + 59_999, micros, self._number, micros, name,
            )  # fmt: skip
            connection.sendall(frame(body.encode()))
            sent += 1
        return sent

    def end(self) -> None:
        self._ending.set()
        self._thread.join()


@contextmanager
def _answering(exchange: Exchange) -> Iterator[_Feed]:
    feed = _Feed(exchange)
    try:
        yield feed
    finally:
        feed.end()
