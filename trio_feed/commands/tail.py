"""``tail SYMBOL INTERVAL``: candles of a running service as they come, with no hole in them."""

import click
import trio

from ..client import (
    CandleUpdate,
    ConnectionChange,
    ConnectionState,
    History,
    ServerError,
    StreamStatus,
    UpdateKind,
    open_client,
)
from ..environment import Environment
from .options import Refused, put
from .remote import url_option, wait_for_signal, websocket_url
from .rows import Form, Put, header, line

_STATES = {UpdateKind.REALTIME: "open", UpdateKind.FINAL: "closed", UpdateKind.REVISION: "revised"}


@click.command(
    "tail",
    short_help="Follow the candles of a running service.",
    help="Follow the candles of SYMBOL at INTERVAL (BTCUSDT 1m) as they come.",
)
@click.argument("symbol")
@click.argument("interval")
@click.option("--exchange", help="Where the symbol exists on several.")
@click.option("--history", type=click.IntRange(0, 1000), default=10, show_default=True)
@click.option("--closed", is_flag=True, help="Closed candles only.")
@click.option(
    "--count",
    type=click.IntRange(1),
    help="Stop after so many lines behind the history (of open candles too, without --closed).",
)
@click.option("--csv", "form", flag_value="csv", help="Comma-separated values.")
@click.option("--json", "form", flag_value="json", help="A JSON object per line.")
@url_option
def command(
    symbol: str, interval: str, exchange: str | None, history: int, closed: bool,
    count: int | None, form: Form | None, url: str,
) -> int:  # fmt: skip
    trio.run(_follow, symbol, interval, exchange, history, closed, count, form or "text", url)
    return 0


async def _follow(
    symbol: str, interval: str, exchange: str | None, history: int, closed: bool,
    count: int | None, form: Form, url: str,
) -> None:  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_signal, nursery.cancel_scope)
        await follow(
            symbol, interval, url, exchange=exchange, history=history, closed=closed,
            count=count, form=form,
        )  # fmt: skip
        nursery.cancel_scope.cancel()


async def follow(
    symbol: str,
    interval: str,
    url: str,
    *,
    exchange: str | None = None,
    history: int = 10,
    closed: bool = False,
    count: int | None = None,
    form: Form = "text",
    say: Put = put,
    environment: Environment | None = None,
) -> None:
    """Until ``count`` lines of news, else for ever.  Raises Refused."""
    left = count
    async with open_client(websocket_url(url), environment=environment) as client:
        try:
            await client.subscribe(symbol, interval, exchange=exchange, history=history)
        except ValueError as error:
            raise Refused(str(error)) from None
        heading = header(form)
        async for message in client:
            if heading and isinstance(message, History | CandleUpdate):
                say(heading)
                heading = ""
            if isinstance(message, History):
                for kline in message.candles:
                    say(line(message.stream, kline, "closed", form))
                continue
            if isinstance(message, CandleUpdate):
                if closed and message.kind is UpdateKind.REALTIME:
                    continue
                say(line(message.stream, message.kline, _STATES[message.kind], form))
                if left is not None:
                    left -= 1
                    if left <= 0:
                        return
            note(message, url)


def note(message: object, url: str, *, fatal: bool = False) -> None:
    """What is no candle: to stderr.  Raises Refused where it cannot go on; ``fatal``: a lost
    connection is such, too."""
    if isinstance(message, ServerError):
        raise Refused(f"{url}: {message.problem}")
    if isinstance(message, ConnectionChange) and message.state is ConnectionState.LOST:
        reason = message.reason or "connection lost"
        if fatal:
            raise Refused(f"{url}: {reason} (is the service running?)")
        click.echo(f"trio_feed: {url}: {reason}; again soon", err=True)
    if isinstance(message, StreamStatus):
        click.echo(f"trio_feed: {message.stream}: {message.state}", err=True)
