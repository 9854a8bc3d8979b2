"""``chart SYMBOL INTERVAL``: candles of a running service, drawn in the terminal."""

import os
import shutil
import sys
from collections.abc import Callable

import click
import trio

from ..client import CandleUpdate, History, Stream, open_client
from ..environment import Environment
from ..logs import shows_colours
from ..model import Kline
from .drawing import draw, room
from .options import Refused, put
from .remote import url_option, wait_for_signal, websocket_url
from .rows import line
from .tail import note

_REDRAW_S = 0.25
_PATIENCE_S = 15.0
_RUNNING_S = 1.0
"""So long the running candle is waited for, behind the closed ones."""


@click.command(
    "chart",
    short_help="Draw the candles of a running service.",
    help="Draw the candles of SYMBOL at INTERVAL (BTCUSDT 1m); on a terminal they move until"
    " Ctrl-C.",
)
@click.argument("symbol")
@click.argument("interval")
@click.option("--exchange", help="Where the symbol exists on several.")
@click.option("--once", is_flag=True, help="Draw once and stop (as where stdout is no terminal).")
@click.option("--width", type=click.IntRange(20, 1000), help="Columns (default: the terminal's).")
@click.option("--height", type=click.IntRange(8, 200), help="Lines (default: the terminal's).")
@click.option("--json", "as_json", is_flag=True, help="What would be drawn, a JSON object a line.")
@url_option
def command(
    symbol: str, interval: str, exchange: str | None, once: bool, width: int | None,
    height: int | None, as_json: bool, url: str,
) -> int:  # fmt: skip
    size = shutil.get_terminal_size((100, 30))
    width, height = width or size.columns, height or size.lines - 1
    terminal = sys.stdout.isatty()
    colours = shows_colours(os.environ, sys.platform, terminal=terminal)
    if once or as_json or not terminal:
        stream, klines = trio.run(fetch, symbol, interval, url, exchange, room(width))
        if as_json:
            rows = (line(stream, k, "closed" if k.closed else "open", "json") for k in klines)
            return put("\n".join(rows)) if klines else 0
        return put(draw(stream, klines, width=width, height=height, colours=colours))
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(width=width), auto_refresh=False) as live:

        def show(stream: Stream, klines: list[Kline]) -> None:
            picture = draw(stream, klines, width=width, height=height, colours=colours)
            live.update(Text.from_ansi(picture, no_wrap=True), refresh=True)

        trio.run(_move, symbol, interval, url, exchange, room(width), show)
    return 0


Show = Callable[[Stream, list[Kline]], None]


async def _move(
    symbol: str, interval: str, url: str, exchange: str | None, count: int, show: Show
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_signal, nursery.cancel_scope)
        await follow(symbol, interval, url, exchange, count, show)


async def follow(
    symbol: str,
    interval: str,
    url: str,
    exchange: str | None,
    count: int,
    show: Show,
    environment: Environment | None = None,
) -> None:
    """For ever: ``show`` the candles when they changed, some times a second.  Raises Refused."""
    klines: dict[int, Kline] = {}
    drawn_s = -_REDRAW_S
    async with open_client(websocket_url(url), environment=environment) as client:
        try:
            stream = await client.subscribe(symbol, interval, exchange=exchange, history=count)
        except ValueError as error:
            raise Refused(str(error)) from None
        async for message in client:
            if isinstance(message, History):
                klines = {kline.open_ms: kline for kline in message.candles}
            elif isinstance(message, CandleUpdate):
                klines[message.kline.open_ms] = message.kline
                while len(klines) > count:
                    del klines[min(klines)]
            else:
                note(message, url)
                continue
            if trio.current_time() - drawn_s >= _REDRAW_S:
                show(stream, [klines[at] for at in sorted(klines)])
                drawn_s = trio.current_time()


async def fetch(
    symbol: str,
    interval: str,
    url: str,
    exchange: str | None,
    count: int,
    environment: Environment | None = None,
) -> tuple[Stream, list[Kline]]:
    """The last closed candles and the running one.  Raises Refused."""
    klines: dict[int, Kline] | None = None
    async with open_client(websocket_url(url), environment=environment) as client:
        try:
            stream = await client.subscribe(symbol, interval, exchange=exchange, history=count)
        except ValueError as error:
            raise Refused(str(error)) from None
        with trio.move_on_after(_PATIENCE_S) as patience:
            async for message in client:
                if isinstance(message, History):
                    klines = {kline.open_ms: kline for kline in message.candles}
                    patience.deadline = trio.current_time() + _RUNNING_S
                elif isinstance(message, CandleUpdate) and klines is not None:
                    klines[message.kline.open_ms] = message.kline
                    break
                else:
                    note(message, url, fatal=True)
    if klines is None:
        raise Refused(f"{url}: no answer within {_PATIENCE_S:g} s (is the service running?)")
    return stream, [klines[at] for at in sorted(klines)][-count:]
