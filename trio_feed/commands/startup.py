"""What a person sees on a terminal when the service starts: a box, then the history.

The box's text is pure; :func:`narrate` looks at the service now and then.
"""

from collections.abc import Callable, Mapping
from typing import Any

import trio

from ..ingest.venue import VenueFeed
from ..service import Ready
from ..settings import Settings
from .terminal import Narrator

_LOOK_S = 0.25
_PATIENCE_S = 30.0
_SETTLED_S = 1.5
"""No more candles of the start for so long, and nothing asked for: they are all there."""


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
    symbols = [s for e in settings.exchanges.values() if e.enabled for s in e.named if s != "*"]
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
    return "scripts/run --config config/live.toml (behind a firewall: its line connection.proxy)"


async def narrate(
    ready: Ready, narrator: Narrator, say: Callable[[str], None], clock: Callable[[], float]
) -> None:
    """Say when the history is there.  A venue that is out of reach does not hold the line back for
    long.  ``clock`` gives the seconds that the narrator counts by."""
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
