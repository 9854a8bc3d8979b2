"""The parameters of Binance's REST questions, checked as the exchange does.  Pure."""

import re
from collections.abc import Sequence

import msgspec

from ...model import Interval
from . import zones
from .errors import UNSUPPORTED, BadParameter

_SYMBOL = r"^[A-Z0-9-_.]{1,20}$"
_NUMBER = r"^[0-9]{1,20}$"
_MICROSECONDS = 10**14
"""A time from here on is in microseconds, which is taken too."""


class Parameters:
    """Of one question.  Everything raises BadParameter."""

    def __init__(self, query: Sequence[tuple[str, str]]) -> None:
        self._found: dict[str, str] = {}
        for name, value in query:
            if name in self._found:
                raise BadParameter(-1101, f"Duplicate values for parameter '{name[:40]}'.")
            self._found[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def text(self, name: str) -> str | None:
        value = self._found.get(name)
        if value == "":
            raise BadParameter(-1105, f"Parameter '{name}' was empty.")
        return value

    def mandatory(self, name: str) -> str:
        value = self._found.get(name)
        if not value:
            problem = "was not sent, was empty/null, or malformed."
            raise BadParameter(-1102, f"Mandatory parameter '{name}' {problem}")
        return value

    def number(self, name: str) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not re.fullmatch(_NUMBER, value, re.ASCII):
            raise _illegal(name, _NUMBER)
        return int(value)

    def time_ms(self, name: str) -> int | None:
        value = self.number(name)
        return value // 1000 if value is not None and value >= _MICROSECONDS else value

    def limit(self, default: int, most: int, *, clamps: bool) -> int:
        """``clamps``: one beyond ``most`` is cut down, else it is refused."""
        value = self.number("limit")
        if value is None:
            return default
        if not value or (value > most and not clamps):
            raise BadParameter(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(value, most)

    def interval(self, *, seconds: bool) -> Interval:
        value = self.mandatory("interval")
        known = {each.value: each for each in Interval if each is not Interval.S30}
        found = known.get(value)
        if found is None or (found is Interval.S1 and not seconds):
            raise BadParameter(-1120, "Invalid interval.")
        return found

    def check_zone(self, interval: Interval) -> None:
        """``timeZone``: one whose bars are not those of UTC is refused."""
        zone = self.text("timeZone")
        offset = 0 if zone is None else zones.offset_of(zone)
        if offset is None:
            raise BadParameter(-1130, "Data sent for parameter 'timeZone' is not valid.")
        if zone is not None and not zones.has_same_bars(interval, offset):
            problem = zones.other_bars(interval, zone)
            raise BadParameter(UNSUPPORTED, f"This operation is not supported. ({problem})")

    def symbols(self) -> list[str] | None:
        """``symbols=["A","B"]``; None: not given."""
        value = self.text("symbols")
        if value is None:
            return None
        if "symbol" in self:
            raise BadParameter(-1128, "Combination of optional parameters invalid.")
        try:
            found = msgspec.json.decode(value, type=list[str])
        except (msgspec.DecodeError, RecursionError):
            raise _illegal(
                "symbols", r"^\[(\"[A-Z0-9-_.]{1,20}\"(,\"[A-Z0-9-_.]{1,20}\"){0,}){0,1}\]$"
            ) from None
        if len(set(found)) != len(found):
            raise BadParameter(-1151, "Symbol is present multiple times in the list.")
        return found


def check_case(name: str) -> None:
    """No symbol has small letters, so that none has to be looked up.  Raises BadParameter."""
    if name != name.upper():
        raise _illegal("symbol", _SYMBOL)


def check_symbol(name: str) -> None:
    """For one that is not listed: its letters, then that it is unknown.  Raises BadParameter."""
    if not re.fullmatch(_SYMBOL, name, re.ASCII):
        raise _illegal("symbol", _SYMBOL)
    raise BadParameter(-1121, "Invalid symbol.")


def _illegal(name: str, legal: str) -> BadParameter:
    problem = f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."
    return BadParameter(-1100, problem)
