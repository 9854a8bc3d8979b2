"""What can be wrong with settings beyond their form, and what a simulator brings along to them."""

from collections.abc import Iterable

from attrs import evolve

from .core.channels import kinds_of
from .errors import SettingsError
from .ingest.driver import EVERY
from .model import Channel
from .push.edge.configuration import check_server
from .push.private.auth import Authenticator
from .settings import ExchangeSettings, Settings
from .simulator.exchanges import VENUES as BOXED
from .simulator.exchanges import completed
from .venues import NAMES, make_venue


def complete(settings: Settings) -> Settings:
    """The settings with what a simulator brings along by itself."""
    box = settings.simulator
    exchange = settings.exchanges.get(box.venue)
    if not box.enabled or exchange is None:
        return settings
    exchanges = {**settings.exchanges, box.venue: completed(box, exchange)}
    return evolve(settings, exchanges=exchanges)


def check(settings: Settings) -> None:
    """Raises SettingsError with the key, what is wrong with it, and what may stand there."""
    enabled = [name for name, exchange in settings.exchanges.items() if exchange.enabled]
    for name in enabled:
        _check_exchange(name, settings.exchanges[name])
    if not enabled:
        raise SettingsError("exchanges", f"none is enabled; one of {', '.join(NAMES)}")
    possible = [name for name in enabled if name in BOXED]
    if settings.simulator.enabled and settings.simulator.venue not in possible:
        raise SettingsError("simulator.venue", f"one of the enabled: {_list(possible)}")
    Authenticator(settings.auth)  # reads key files
    default = settings.service.default_venue
    if default and default not in enabled:
        raise SettingsError("service.default_venue", f"one of {', '.join(enabled)}")
    check_server(settings.server)


def _check_exchange(name: str, exchange: ExchangeSettings) -> None:
    """What is asked of a venue is something that it has."""
    venue, key = make_venue(name, exchange), f"exchanges.{name}"
    if unknown := set(exchange.intervals) - venue.INTERVALS:
        raise SettingsError(f"{key}.intervals", f"{name} has no {_list(unknown)} candles")
    for channel in exchange.channels:
        if channel is not Channel.KLINE and not kinds_of(channel, venue.KINDS, venue.TRADE_KIND):
            raise SettingsError(f"{key}.channels", f"{name} has no {channel.replace('_', ' ')}s")
    if exchange.fallback == "simulated" and not (name in BOXED and venue.LISTED):
        raise SettingsError(f"{key}.fallback", "there is no simulation of what it sends")
    if EVERY in exchange.symbols and venue.LISTED:
        raise SettingsError(f"{key}.symbols", f"{name} has a list; name the symbols of it")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
