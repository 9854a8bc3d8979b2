"""What can be wrong with settings beyond their form, and what a simulator brings along to them."""

import re
import socket
from collections.abc import Iterable
from importlib.util import find_spec

import attrs
from attrs import evolve

from .bus.engine import NO_LIBRARY as NO_ENGINE_LIBRARY
from .core.channels import kinds_of
from .errors import SettingsError
from .ingest.driver import EVERY
from .model import Channel, Interval
from .net.urls import RestUrl, WebSocketUrl
from .push.edge.configuration import check_server
from .push.private.auth import Authenticator
from .settings import ConnectionSettings, ExchangeSettings, Settings
from .settings.exchanges import FROM_TRADES, ON_DEMAND
from .store import NO_LIBRARY
from .venues import NAMES, Venue, make_venue

_ROLLED_UP = set(Interval) - {Interval.S1, Interval.S30, Interval.M1}
_DEFAULT_CHANNELS = ExchangeSettings().channels


def complete(settings: Settings) -> Settings:
    """The settings with what a simulator brings along by itself."""
    box = settings.simulator
    exchange = settings.exchanges.get(box.venue)
    if not box.enabled or exchange is None:
        return settings
    from .simulator.exchanges import completed

    exchanges = {**settings.exchanges, box.venue: completed(box, exchange)}
    return evolve(settings, exchanges=exchanges)


def check(settings: Settings) -> None:
    """Raises SettingsError with the key, what is wrong with it, and what may stand there."""
    enabled = [name for name, exchange in settings.exchanges.items() if exchange.enabled]
    for name in enabled:
        _check_exchange(name, settings.exchanges[name])
    if not enabled:
        raise SettingsError("exchanges", f"none is enabled; one of {', '.join(NAMES)}")
    if settings.simulator.enabled:
        possible = [name for name in enabled if _is_simulated(name)]
        if settings.simulator.venue not in possible:
            raise SettingsError("simulator.venue", f"one of the enabled: {_list(possible)}")
    Authenticator(settings.auth)  # reads key files
    default = settings.service.default_venue
    if default and default not in enabled:
        raise SettingsError("service.default_venue", f"one of {', '.join(enabled)}")
    check_server(settings.server)
    for key, url in (
        ("store.url", settings.store.url),
        ("settlement.url", settings.settlement.url),
    ):
        if url and find_spec("psycopg") is None:
            raise SettingsError(key, NO_LIBRARY)
    if settings.server.workers > 1 and not hasattr(socket, "AF_UNIX"):
        problem = "more than one needs Unix sockets, which this system has not"
        raise SettingsError("server.workers", problem)
    if settings.engine.kind == "memory":
        if len(settings.node.roles) < 2:
            raise SettingsError("node.roles", "only some, and there is no [engine] for the others")
    else:
        _check_cluster(settings)


def _check_cluster(settings: Settings) -> None:
    """What several machines want, and what they cannot do yet."""
    if not settings.node.name:
        raise SettingsError("node.name", "missing: with an engine each node has one of its own")
    if not settings.store.url:
        raise SettingsError("store.url", "missing: with an engine all nodes share a PostgreSQL")
    if settings.settlement.path:
        raise SettingsError("settlement.path", "is of one machine; remove it: store.url is used")
    if find_spec("coredis") is None:
        raise SettingsError("engine.kind", NO_ENGINE_LIBRARY)
    if settings.server.workers > 1 and "push" not in settings.node.roles:
        raise SettingsError("server.workers", 'nobody to serve: node.roles lacks "push"')
    for name, exchange in settings.exchanges.items():
        if exchange.enabled and exchange.on_demand:
            raise SettingsError(
                f"exchanges.{name}.symbols", "on demand is not for an engine; name the symbols"
            )
    for name, dialect in attrs.asdict(settings.dialects, recurse=False).items():
        if dialect.passthrough:
            raise SettingsError(f"dialects.{name}.passthrough", "not together with an engine")


def of_venue(error: SettingsError) -> SettingsError:
    """The same error; of an unknown interval with those that its venue, or that list, can have."""
    found = re.fullmatch(r"exchanges\.(\w+)\.(|trade_|rollup_)intervals", error.path)
    said = re.fullmatch(r"('.*') is not one of [\w ]+?( \(.*\))?", error.problem)
    if found is None or said is None or found[1] not in NAMES:
        return error
    had: Iterable[Interval] = make_venue(found[1], ExchangeSettings()).INTERVALS
    if found[2]:
        had = FROM_TRADES if found[2] == "trade_" else _ROLLED_UP
    known = " ".join(each for each in Interval if each in had)
    return SettingsError(error.path, f"{said[1]} is not one of {known}{said[2] or ''}")


def _check_exchange(name: str, exchange: ExchangeSettings) -> None:
    """What is asked of a venue is something that it has."""
    venue, key = make_venue(name, exchange), f"exchanges.{name}"
    _check_urls(exchange.connection, f"{key}.connection")
    if not exchange.symbols:
        raise SettingsError(
            f"{key}.symbols", "none; name some, such as BTCUSDT, or write enabled = false"
        )
    if venue.LISTED:
        _check_symbols(venue, exchange.symbols, f"{key}.symbols")
    if unknown := set(exchange.intervals) - venue.INTERVALS:
        problem = f"{name} has no {_list(unknown)} candles; {_elsewhere(unknown, venue.INTERVALS)}"
        raise SettingsError(f"{key}.intervals", problem)
    had = [channel for channel in exchange.channels if _has(venue, channel)]
    if lacking := [channel for channel in exchange.channels if channel not in had]:
        what = " and ".join(f"{channel.replace('_', ' ')}s" for channel in lacking)
        default = " (they are in the default)" if exchange.channels == _DEFAULT_CHANNELS else ""
        instead = ", ".join(f'"{channel}"' for channel in had)
        ways = f"write channels = [{instead}]"
        if not had:
            ways = f"it has {', '.join(each for each in Channel if _has(venue, each))}"
        problem = f"{name} has no {what}{default}; {ways}"
        raise SettingsError(f"{key}.channels", problem)
    if exchange.fallback == "simulated" and not (_is_simulated(name) and venue.LISTED):
        raise SettingsError(f"{key}.fallback", "there is no simulation of what it sends")
    if EVERY in exchange.symbols and venue.LISTED:
        raise SettingsError(
            f"{key}.symbols", f'{name} has a list; name the symbols of it, or write "on_demand"'
        )
    if exchange.on_demand and exchange.fallback != "none":
        raise SettingsError(f"{key}.fallback", "not with symbols on demand")
    if exchange.on_demand and not venue.LISTED:
        raise SettingsError(
            f"{key}.symbols", f'{name} has no list to look symbols up in; write ["*"] for all'
        )
    if exchange.on_demand and exchange.max_symbols_per_client > exchange.most_symbols:
        raise SettingsError(
            f"{key}.max_symbols_per_client", f"more than max_symbols ({exchange.most_symbols})"
        )


def _is_simulated(name: str) -> bool:
    from .simulator.exchanges import VENUES  # a tenth of the start, and only who wants it

    return name in VENUES


def _check_urls(connection: ConnectionSettings, key: str) -> None:
    try:
        if connection.websocket_url:
            WebSocketUrl.parse(connection.websocket_url)
        if connection.rest_url:
            RestUrl.parse(connection.rest_url)
    except SettingsError as error:
        raise SettingsError(f"{key}.{error.path}", error.problem) from None


def notes(settings: Settings) -> list[str]:
    """What is no fault, and perhaps not meant: a line each."""
    found = []
    for name, exchange in settings.exchanges.items():
        connection = exchange.connection
        if exchange.enabled and connection.proxy.address and not connection.proxy.enabled:
            found.append(
                f"exchanges.{name}.connection.proxy: {connection.proxy.address} is not used:"
                " enabled is false"
            )
    return found


def _check_symbols(venue: Venue, symbols: Iterable[str], key: str) -> None:
    """Names that no venue's list can hold: those are upper case where there is a case, and have
    none of the signs that other programs put between the parts."""
    for symbol in symbols:
        meant = symbol.partition(":")[0].replace("/", "").upper()  # BTC/USDT:USDT
        meant = venue.own_form(meant)
        if symbol not in (meant, EVERY, ON_DEMAND):
            raise SettingsError(key, f"{symbol!r} is no symbol; did you mean {meant}?")


def _has(venue: Venue, channel: Channel) -> bool:
    return channel is Channel.KLINE or bool(kinds_of(channel, venue.KINDS, venue.TRADE_KIND))


def _elsewhere(wanted: set[Interval], had: Iterable[Interval]) -> str:
    """Where a venue's lack of an interval is made good."""
    ways = []
    if of_trades := wanted & FROM_TRADES:
        ways.append(f"{_list(of_trades)} can be made from trades: trade_intervals")
    if of_minutes := wanted - FROM_TRADES:
        ways.append(f"{_list(of_minutes)} can be made from 1m: rollup_intervals")
    known = " ".join(interval for interval in Interval if interval in had)
    return "; ".join([*ways, f"it has {known or 'none of its own'}"])


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
