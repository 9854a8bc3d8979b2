"""``scripts/bench fanout``: one message to many clients, and many streams at once.

Each server is a process on one core (:mod:`.servers`), its clients one on the other
(:mod:`.clients`); all are connected at the same time and measured in turn.  The figure is
deliveries per second of the server's own CPU: what else runs on the machine does not count, and
none of them does anything but send while it is measured.  A delivery counts when the kernel has
taken it; that the clients keep up is seen by what they have read (``note``).

The clients look for messages each millisecond: were they asleep in ``epoll_wait``, the kernel would
wake them in the sender's time, a slow sender with each message and a fast one seldom.

*500 streams*: 10 subscriptions each, messages on all of them as fast as it goes, round after round
without waiting for what is queued (until 2026-11 each round was waited for); p99 is from the
message's making to its arrival, at a hundred clients.  *A quarter of picows*: paced at a quarter of
what picows reached.

All peers with 10,000 clients want more than three minutes: ``--clients 10000 --peers trio_feed C
websockets uvicorn`` has those that matter.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

from .processes import LOADING, MEASURED, Child, child, open_files, pin
from .result import Result, Target
from .servers import SERVERS, STREAMS

_SPARE_FILES = 200
_MOST = 4_000
_EACH_ROUND = 6_000
"""Deliveries of one figure, or one message to all."""
_C, _OURS = "C send loop", "trio_feed"
_WEBSOCKETS = ("websockets", "websockets, uvloop", "uvicorn, uvloop")
_FAST = ("picows, uvloop", "websockets", "websockets, uvloop")


def run(quick: bool, clients: int = _MOST, peers: Sequence[str] = ("",)) -> Result:
    """``peers``: how the names of those begin that are measured.  Raises ValueError for one that
    is nobody's."""
    for word in peers:
        if not any(impl.startswith(word) for impl in SERVERS):
            raise ValueError(f"--peers: {word!r} begins none of {', '.join(SERVERS)}")
    pin(LOADING)
    most = 500 if quick else clients
    number = min(most, open_files() - _SPARE_FILES)
    sizes = [*(size for size in (100, 1_000) if size < number), number]
    result = Result("fanout", "deliveries/CPU s")
    result.notes.append(f"{number} clients")
    with ExitStack() as stack:
        pairs = {}
        for impl in SERVERS:
            if not impl.startswith(tuple(peers)):
                continue
            try:
                pairs[impl] = stack.enter_context(connected(impl, number, sizes))
            except RuntimeError as error:
                result.skip(impl, str(error))
        for _ in range(3 if quick else 5):
            for size in sizes:
                for impl, (server, readers) in pairs.items():
                    symbol = f"ALL{size}" if size < max(sizes) else "ALL"
                    times = max(1, _EACH_ROUND // size)
                    found = server.ask(f"publish {symbol} {times}")
                    _check(result, impl, found, size * times, readers)
                    result.add(_row(impl, size), found["deliveries"] / found["cpu_s"])
        for _ in range(3 if quick else 5):
            for impl, (server, readers) in pairs.items():
                readers.ask("take")
                found = server.ask("streams 3")
                taken = readers.ask("take")
                result.add(_many(impl), found["deliveries"] / found["cpu_s"])
                result.add(f"{_many(impl)}, p99", taken["p99_ms"], "ms")
        _paced(result, pairs, number)
    _judge(result, sizes, set(pairs))
    return result


def _row(impl: str, size: int) -> str:
    return f"{size:,} subscribers: {impl}"


def _many(impl: str) -> str:
    return f"{STREAMS} streams: {impl}"


@contextmanager
def connected(
    impl: str, number: int, sizes: list[int], each: int = 10
) -> Iterator[tuple[Child, Child]]:
    """A server and its clients, all subscribed."""
    common: list[tuple[str, int]] = [(f"ALL{size}", size) for size in sizes[:-1]]
    job: dict[str, Any] = {
        "number": number, "common": [*common, ("ALL", number)], "streams": STREAMS, "each": each,
        "sampled": 100, "nap_ms": 1,
    }  # fmt: skip
    with child("servers", impl, MEASURED) as server:
        port = server.read()["port"]
        with child("clients", {**job, "port": port}, LOADING) as clients:
            stayed = clients.read()["stayed"]
            if stayed < number:
                raise RuntimeError(f"only {stayed} of {number} clients stayed")
            yield server, clients


def _check(result: Result, impl: str, found: dict[str, float], wanted: int, clients: Child) -> None:
    """Everything went out; and the clients have read it, so that no socket is full."""
    if found["deliveries"] < wanted:
        result.skip(impl, f"{wanted - found['deliveries']:g} of {wanted} frames were not taken")
    clients.ask("take")


def _paced(result: Result, pairs: dict[str, tuple[Child, Child]], number: int) -> None:
    rates = result.rows.get(_many(_FAST[0]))
    if not rates:
        return
    per_message = number * 10 / STREAMS
    per_s = min(rates) / 4 / per_message
    for impl in (_OURS, _FAST[0], *_FAST[1:2]):
        if impl in pairs:
            server, clients = pairs[impl]
            for _ in range(3):
                clients.ask("take")
                server.ask(f"paced {per_s:.1f} 2")
                taken = clients.ask("take")
                result.add(f"a quarter of picows: {impl}, p99", taken["p99_ms"], "ms")


def _judge(result: Result, sizes: list[int], there: set[str]) -> None:
    ratios, targets = {}, []
    for size in sizes:
        best = _best(result, [_row(impl, size) for impl in _WEBSOCKETS if impl in there])
        for title, other, bound in (
            (f"{size:,} subscribers: trio_feed / C send loop", _row(_C, size), 0.88),
            (f"{size:,} subscribers: trio_feed / better of websockets, uvicorn", best, 1.4),
            (
                f"{size:,} subscribers: trio_feed / stock hypercorn",
                _row("hypercorn, trio", size),
                6.0,
            ),
        ):
            ratios[title] = (_row(_OURS, size), other)
            targets.append(Target(title, bound))
    for impl in _FAST:
        title = f"{STREAMS} streams: trio_feed / {impl}"
        ratios[title] = (_many(_OURS), _many(impl))
        targets.append(Target(title, 5.0))
    title = "a quarter of picows: p99, trio_feed / picows"
    ratios[title] = (
        f"a quarter of picows: {_OURS}, p99",
        f"a quarter of picows: {_FAST[0]}, p99",
    )
    targets += [Target(f"{_many(_OURS)}, p99", 150, most=True), Target(title, 1.0, most=True)]
    result.ratios, result.targets = ratios, targets


def _best(result: Result, rows: list[str]) -> str:
    return max(rows, key=lambda row: median(result.rows[row]), default="")
