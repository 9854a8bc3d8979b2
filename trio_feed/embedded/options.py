"""The arguments of :func:`trio_feed.feed` -> settings of one venue, in the words of the settings.

Pure.  What is wrong is a SettingsError whose ``path`` is the argument's name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SettingsError
from ..model import Channel, Interval
from ..settings import ExchangeSettings, Settings
from ..settings.exchanges import FROM_TRADES, ON_DEMAND
from ..settings.load import structure
from ..store import MEMORY
from ..validate import check, complete
from ..venues import make_venue

Words = str | Sequence[str]
ProxyOption = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None


def settings_of(
    venue: str,
    symbols: Words,
    intervals: Words,
    channels: Words,
    proxy: ProxyOption,
    proxy_from_env: bool,
    history: int,
    simulated: bool,
    more: Mapping[str, Any],
) -> Settings:
    """Complete and checked.  Raises SettingsError."""
    table = dict(more)
    if proxy is not None:
        table["connection"] = {**_table(table.get("connection", {}), "connection"), "proxy": proxy}
    table["symbols"] = list(_words(symbols))
    if ON_DEMAND in table["symbols"]:
        raise SettingsError("symbols", "nobody can ask for more here; name the symbols")
    table["history_bars"] = history
    wanted = list(dict.fromkeys(_words(channels)))
    lengths = [_interval(each) for each in dict.fromkeys(_words(intervals))]
    if lengths and Channel.KLINE not in wanted:
        wanted.insert(0, Channel.KLINE.value)
    if Channel.KLINE in wanted and not lengths:
        raise SettingsError("intervals", "none; name some, such as 1m")
    if not wanted:
        raise SettingsError("intervals", "none, and no channels; name some, such as 1m or trade")
    table["channels"] = wanted
    try:
        table |= _origins(venue, lengths)
        tree: dict[str, Any] = {
            "exchanges": {venue: table},
            "store": {"path": MEMORY},
            "proxy": {"from_env": proxy_from_env},
        }
        if simulated:
            # Its market has what is asked for: the names are wrong or right as they are live.
            tree["simulator"] = {
                "enabled": True, "venue": venue, "symbols": table["symbols"], "turning": True,
            }  # fmt: skip
        settings = complete(structure(tree))
        check(settings)
    except SettingsError as error:
        raise SettingsError(_argument(error.path, venue), error.problem) from None
    return settings


def _origins(venue: str, intervals: Sequence[Interval]) -> dict[str, list[str]]:
    """What the venue does not offer is made here: of trades, or of its minutes."""
    had = make_venue(venue, ExchangeSettings()).INTERVALS
    lacking = [interval for interval in intervals if interval not in had]
    return {
        "intervals": [interval.value for interval in intervals if interval in had],
        "trade_intervals": [each.value for each in lacking if each in FROM_TRADES],
        "rollup_intervals": [each.value for each in lacking if each not in FROM_TRADES],
    }


def _words(words: Words) -> Sequence[str]:
    """One name is as good as a list of it."""
    return (words,) if isinstance(words, str) else words


def _interval(text: str) -> Interval:
    try:
        return Interval.parse(text)
    except ValueError as error:
        raise SettingsError("intervals", str(error)) from None


def _table(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"settings.{key}", "is a value where a table is wanted")
    return value


def _argument(path: str, venue: str) -> str:
    """The dotted key -> the argument that it came from."""
    if path == f"exchanges.{venue}":
        return "venue"
    key = path.removeprefix(f"exchanges.{venue}.")
    for prefix, argument in _ARGUMENTS.items():
        if key == prefix or key.startswith(f"{prefix}."):
            return argument + key.removeprefix(prefix)
    return f"settings.{key}" if key != path else path


_ARGUMENTS = {
    "symbols": "symbols",
    "intervals": "intervals",
    "trade_intervals": "intervals",
    "rollup_intervals": "intervals",
    "channels": "channels",
    "history_bars": "history",
    "connection.proxy": "proxy",
}
