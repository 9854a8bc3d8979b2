"""``klines SYMBOL INTERVAL``: closed candles of a running service, to read or to export."""

from datetime import UTC, datetime

import click
import trio

from ..client import ConnectionChange, ConnectionState, History, ServerError, Stream, open_client
from ..environment import Environment
from ..model import Kline
from .options import Refused, put
from .remote import url_option, websocket_url
from .rows import Form, header, line

_PAGE = 1000
_PATIENCE_S = 15.0


@click.command(
    "klines",
    short_help="Closed candles of a running service.",
    help="Closed candles of SYMBOL at INTERVAL (BTCUSDT 1m), oldest first.",
)
@click.argument("symbol")
@click.argument("interval")
@click.option("--exchange", help="Where the symbol exists on several.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), help="The last so many (default 100).")
@click.option("--from", "start", help="ISO time (2026-11-29, 2026-11-29T10:00) or unix seconds.")
@click.option("--to", "end", help="The same; candles that open before it.")
@click.option("--csv", "form", flag_value="csv", help="Comma-separated values.")
@click.option("--json", "form", flag_value="json", help="A JSON object per line.")
@url_option
def command(
    symbol: str, interval: str, exchange: str | None, limit: int | None, start: str | None,
    end: str | None, form: Form | None, url: str,
) -> int:  # fmt: skip
    form = form or "text"
    start_s, end_s = seconds(start, "--from"), seconds(end, "--to")
    if start_s is None:
        limit = limit or 100
    stream, rows = trio.run(ask, symbol, interval, url, exchange, limit, start_s, end_s)
    lines = [line(stream, kline, "closed", form) for kline in rows]
    if first := header(form):
        lines.insert(0, first)
    return put("\n".join(lines)) if lines else 0


def seconds(text: str | None, option: str) -> int | None:
    """Unix seconds of a time as people write it; without a zone it is UTC.  Raises Refused."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{option}: {text!r} is no time such as 2026-11-29T10:00") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


async def ask(
    symbol: str,
    interval: str,
    url: str,
    exchange: str | None = None,
    limit: int | None = None,
    start_s: int | None = None,
    end_s: int | None = None,
    environment: Environment | None = None,
) -> tuple[Stream, list[Kline]]:
    """Page by page, ascending; ``limit`` None: everything from ``start_s`` on.  Raises Refused."""
    found: list[Kline] = []
    async with open_client(websocket_url(url), environment=environment) as client:
        while limit is None or len(found) < limit:
            rows = _PAGE if limit is None else min(_PAGE, limit - len(found))
            try:
                stream = await client.history(
                    symbol, interval, limit=rows, start_s=start_s, end_s=end_s, exchange=exchange
                )
            except ValueError as error:
                raise Refused(str(error)) from None
            page: tuple[Kline, ...] | None = None
            with trio.move_on_after(_PATIENCE_S):
                async for message in client:
                    if isinstance(message, ServerError):
                        raise Refused(f"{url}: {message.problem}")
                    if isinstance(message, ConnectionChange):
                        if message.state is ConnectionState.LOST:
                            raise Refused(f"{url}: {message.reason} (is the service running?)")
                    elif isinstance(message, History) and message.requested:
                        page = message.candles
                        break
            if page is None:
                raise Refused(f"{url}: no answer within {_PATIENCE_S:g} s")
            if start_s is not None:
                found += page
                if page:
                    start_s = page[-1].open_ms // 1000 + 1
            else:
                found = [*page, *found]
                if page:
                    end_s = page[0].open_ms // 1000
            if len(page) < rows:
                break
    return stream, found
