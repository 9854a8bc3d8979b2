"""``exchange``: the exchange in a box as a server of its own, to test a program against."""

import json
import time
from collections.abc import Sequence
from functools import partial

import click
import trio

from ..errors import StartError
from ..settings import SimulatorSettings
from ..simulator.chaos import Chaos, serve_with_faults
from ..simulator.exchanges import VENUES, serve_exchange
from .chaos import EXCHANGE_FAULTS, PROXIED_FAULTS, chosen, listed
from .options import Refused, put


@click.command(
    "exchange",
    short_help="A simulated exchange on a port of its own.",
    help="A simulated exchange on a port: the real venue's wire dialect, a seeded market and, with"
    " --faults, the outages that exchanges have.  Point any program's URLs at it.",
)
@click.option("--venue", type=click.Choice(VENUES), default="binance_usdm", show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=9443, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same market.")
@click.option("--symbols", default="BTCUSDT,ETHUSDT,SOLUSDT", show_default=True)
@click.option(
    "--faults",
    default="none",
    show_default=True,
    help='"list" says what there is; all, none, or names with commas.',
)
@click.option("--per-hour", type=click.FloatRange(0.1, 3600), default=60.0, show_default=True)
@click.option(
    "--proxy-port",
    type=click.IntRange(0, 65535),
    help="Also an HTTP CONNECT proxy there that leads to the exchange; it has faults of its own.",
)
@click.option("--list-faults", is_flag=True, help="As --faults list.")
@click.option("--json", "as_json", is_flag=True, help="A JSON line per fault, and for the start.")
def command(
    venue: str, host: str, port: int, seed: int, symbols: str, faults: str, per_hour: float,
    proxy_port: int | None, list_faults: bool, as_json: bool,
) -> int:  # fmt: skip
    if list_faults or faults == "list":
        return put(listed())
    box = SimulatorSettings(
        enabled=True, venue=venue, host=host, port=port, seed=seed,
        symbols=tuple(symbol.strip() for symbol in symbols.split(",") if symbol.strip()),
    )  # fmt: skip
    names = chosen(faults, "--faults", EXCHANGE_FAULTS if proxy_port is None else PROXIED_FAULTS)
    if (names or proxy_port is not None) and venue == "spinpet":
        raise Refused("--faults: those of spinpet are in scripts/simulate only")
    trio.run(serve_until_signal, box, names, per_hour, proxy_port, as_json)
    return 0


async def serve_until_signal(
    box: SimulatorSettings,
    faults: tuple[str, ...],
    per_hour: float,
    proxy_port: int | None,
    as_json: bool,
) -> None:
    """Raises StartError where a port is taken."""
    import signal

    def say(fault: str) -> None:
        event = {"event": "fault", "fault": fault, "time_ms": int(time.time() * 1000)}
        put(json.dumps(event) if as_json else f"fault: {fault}")

    listeners = await _listen("--port", box.host, box.port)
    port = listeners[0].socket.getsockname()[1]
    proxy = [] if proxy_port is None else await _listen("--proxy-port", box.host, proxy_port)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            if faults or proxy:
                chaos = Chaos(faults, per_hour, say)
                begin = partial(serve_with_faults, box, chaos, listeners, port=port, proxy=proxy)
            else:
                now_ms = lambda: time.time() * 1000  # noqa: E731
                begin = partial(serve_exchange, box, listeners=listeners, now_ms=now_ms)
            await nursery.start(begin, name="exchange")
            way = f"http://{box.host}:{proxy[0].socket.getsockname()[1]}" if proxy else ""
            put(ready(box, port, way, as_json=as_json))
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return


async def _listen(option: str, host: str, port: int) -> Sequence[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise StartError(f"{option}: cannot listen on {host}:{port}: {error}") from None


def ready(box: SimulatorSettings, port: int, proxy: str, *, as_json: bool) -> str:
    """Where everything is.  Pure."""
    websocket, rest = f"ws://{box.host}:{port}", f"http://{box.host}:{port}"
    if as_json:
        return json.dumps(
            {
                "event": "ready", "venue": box.venue, "seed": box.seed, "websocket_url": websocket,
                "rest_url": rest, "proxy_url": proxy or None, "symbols": box.symbols,
            }
        )  # fmt: skip
    way = f", behind the proxy {proxy}" if proxy else ""
    return (
        f"{box.venue} (simulated, seed {box.seed}) on {websocket} and {rest}{way}, symbols"
        f" {' '.join(box.symbols)}"
    )
