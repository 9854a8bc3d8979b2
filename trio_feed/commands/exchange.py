"""``exchange``: the exchange in a box as a server of its own, to test a program against."""

import time
from functools import partial

import click
import trio

from ..errors import StartError
from ..settings import SimulatorSettings
from ..simulator.exchanges import VENUES, serve_exchange
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
    help="all, none, or names with commas; --list-faults names them.",
)
@click.option("--per-hour", type=click.FloatRange(0.1, 3600), default=60.0, show_default=True)
@click.option("--list-faults", is_flag=True, help="Name the faults and stop.")
def command(
    venue: str, host: str, port: int, seed: int, symbols: str, faults: str, per_hour: float,
    list_faults: bool,
) -> int:  # fmt: skip
    if list_faults:
        from .chaos import FAULTS

        return put("\n".join(FAULTS))
    box = SimulatorSettings(
        enabled=True, venue=venue, host=host, port=port, seed=seed,
        symbols=tuple(symbol.strip() for symbol in symbols.split(",") if symbol.strip()),
    )  # fmt: skip
    names = chosen(faults)
    if names and venue == "spinpet":
        raise Refused("--faults: those of spinpet are in scripts/simulate only")
    trio.run(serve_until_signal, box, names, per_hour)
    return 0


def chosen(faults: str) -> tuple[str, ...]:
    """Raises Refused."""
    from .chaos import FAULTS

    if faults in ("", "none"):
        return ()
    names = tuple(FAULTS) if faults == "all" else tuple(faults.split(","))
    for name in names:
        if name not in FAULTS:
            raise Refused(f"--faults: {name!r} is none; one of {', '.join(FAULTS)}")
    return names


async def serve_until_signal(
    box: SimulatorSettings, faults: tuple[str, ...], per_hour: float
) -> None:
    """Raises StartError where the port is taken."""
    import signal

    from .chaos import serve_with_faults

    try:
        listeners = await trio.open_tcp_listeners(box.port, host=box.host)
    except OSError as error:
        raise StartError(f"--port: cannot listen on {box.host}:{box.port}: {error}") from None
    port = listeners[0].socket.getsockname()[1]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            if faults:
                begin = partial(serve_with_faults, box, listeners, faults, per_hour, put)
            else:
                now_ms = lambda: time.time() * 1000  # noqa: E731
                begin = partial(serve_exchange, box, listeners=listeners, now_ms=now_ms)
            await nursery.start(begin, name="exchange")
            put(
                f"{box.venue} (simulated, seed {box.seed}) on ws://{box.host}:{port} and"
                f" http://{box.host}:{port}, symbols {' '.join(box.symbols)}"
            )
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return
