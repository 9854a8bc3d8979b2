"""What a person sees on a terminal while the service runs: a box, the history, a line a minute.

The box and the lines' texts are pure; :func:`narrate` looks at the service now and then.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Never

import trio
from attrs import frozen

from ..ingest.venue import VenueFeed
from ..metrics import total
from ..service import Ready
from ..settings import Settings
from .terminal import Narrator

MINUTE_S = 60.0
_LOOK_S = 0.25
_PATIENCE_S = 30.0
_SETTLED_S = 1.5
"""No more candles of the start for so long, and nothing asked for: they are all there."""


@frozen
class Numbers:
    """What a line a minute is made of; ``messages`` and ``repaired`` count from the start."""

    messages: float
    repaired: float
    live: int
    streams: int
    clients: int
    proxies_up: int
    proxies: int


def box(settings: Settings, event: Mapping[str, Any], width: int, *, demo: bool = False) -> str:
    """The first thing on the terminal.  ``demo``: no settings were found, so the packaged ones
    are in force."""
    from io import StringIO

    from rich.box import ROUNDED
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    urls = event["urls"]
    rows = [("page", f"{_here(urls['http'])}/"), ("WebSocket", _here(urls["websocket"]))]
    rows.append(("HTTP", f"{_here(urls['http'])}/api/v1/klines?symbol={_symbol(settings)}"))
    if "admin" in urls:
        rows.append(("operators", f"{_here(urls['admin'])}/metrics"))
    rows.append(("data", _what(settings)))
    if event.get("simulated"):
        rows.append(("go live", _how_to_go_live(demo=demo)))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    out = StringIO()
    title = "trio_feed: simulated market" if event.get("simulated") else "trio_feed"
    wide = max(min(width, 100), 40)
    console = Console(file=out, width=wide, color_system=None, highlight=False, markup=False)
    console.print(Panel(table, title=title, box=ROUNDED, expand=False))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _here(url: str) -> str:
    """An address that a browser on this machine can open."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _symbol(settings: Settings) -> str:
    symbols = [s for e in settings.exchanges.values() if e.enabled for s in e.symbols if s != "*"]
    interval = [i.value for e in settings.exchanges.values() if e.enabled for i in e.intervals]
    first = symbols[0] if symbols else "SYMBOL"
    return f"{first}&interval={interval[0] if interval else '1s'}"


def _what(settings: Settings) -> str:
    found = []
    for name, exchange in settings.exchanges.items():
        if exchange.enabled:
            made_up = settings.simulator.enabled and settings.simulator.venue == name
            symbols = " ".join(exchange.symbols[:4])
            more = f" and {len(exchange.symbols) - 4} more" if len(exchange.symbols) > 4 else ""
            found.append(f"{name}{' (simulated: made-up prices)' * made_up}: {symbols}{more}")
    return "\n".join(found)


def _how_to_go_live(*, demo: bool) -> str:
    if demo:
        return "trio-feed init, which writes trio_feed.toml; then trio-feed run"
    return "scripts/run --config config/live.toml (behind a firewall: its proxy table)"


def minute_line(before: Numbers, now: Numbers, span_s: float, at: datetime) -> str:
    """``11:03:00  412 messages/s, 24 of 24 streams live, ...``."""
    rate = (now.messages - before.messages) / max(span_s, 0.001)
    repaired = int(now.repaired - before.repaired)
    parts = [
        f"{rate:,.0f} messages/s",
        f"{now.live} of {now.streams} streams live",
        f"{now.clients} client{'s' * (now.clients != 1)}",
        f"{repaired} repaired" if repaired else "nothing to repair",
    ]
    if now.proxies:
        parts.append(f"proxies {now.proxies_up} of {now.proxies} up")
    return f"{at:%H:%M:%S} " + ", ".join(parts)


async def narrate(
    ready: Ready,
    narrator: Narrator,
    say: Callable[[str], None],
    clock: Callable[[], float],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Never:
    """Say when the history is there, then a line a minute, until cancelled.  ``clock`` gives the
    seconds that the narrator counts by."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_history, ready, narrator, say, clock)
        before, at_s = numbers(ready), trio.current_time()
        while True:
            await trio.sleep(MINUTE_S)
            found, found_s = numbers(ready), trio.current_time()
            say(minute_line(before, found, found_s - at_s, now()))
            before, at_s = found, found_s
    raise AssertionError("it goes on until cancelled")


async def _history(
    ready: Ready, narrator: Narrator, say: Callable[[str], None], clock: Callable[[], float]
) -> None:
    """A venue that is out of reach does not hold the line back for long."""
    began_s = clock()
    while True:
        await trio.sleep(_LOOK_S)
        now_s = clock()
        feeds = [feed for feed in ready.feeds if feed.pool.slots]
        late = now_s - began_s > _PATIENCE_S
        if not feeds or (len(feeds) < len(ready.feeds) and not late):
            continue
        quiet = now_s - max(narrator.filled_s, began_s) > _SETTLED_S
        if quiet and not any(map(_is_busy, feeds)):
            say(narrator.history(sum(feed.driver.series() for feed in feeds)))
            return


def _is_busy(feed: VenueFeed) -> bool:
    return bool(feed.driver.queues.fetches) or bool(feed.driver.holding())


def numbers(ready: Ready) -> Numbers:
    """How the service stands now."""
    metrics = ready.app.context.metrics
    states = [stream["state"] for feed in ready.feeds for stream in feed.driver.streams().values()]
    proxies = [proxy for feed in ready.feeds for proxy in feed.proxies()]
    return Numbers(
        messages=total(metrics.messages),
        repaired=total(metrics.repaired),
        live=sum(str(state) in ("live", "quiet") for state in states),
        streams=len(states),
        clients=len(ready.app.sessions),
        proxies_up=sum(proxy.up for proxy in proxies),
        proxies=len(proxies),
    )
