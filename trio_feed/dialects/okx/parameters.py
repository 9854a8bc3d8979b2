"""The parameters of OKX's REST questions, checked as the exchange does.  Pure."""

from collections.abc import Sequence

from .errors import BadParameter, wrong

_TYPES = ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION")
_DIGITS = 19


class Parameters:
    """Of one question.  Everything raises BadParameter."""

    def __init__(self, query: Sequence[tuple[str, str]]) -> None:
        self._found: dict[str, str] = {}
        for name, value in query:
            if name in self._found:
                raise wrong(name[:40])
            self._found[name] = value

    def text(self, name: str) -> str:
        """Empty: not given."""
        return self._found.get(name, "")

    def mandatory(self, name: str) -> str:
        value = self._found.get(name)
        if not value:
            raise BadParameter("50014", f"Parameter {name} can not be empty.", 400)
        return value

    def number(self, name: str) -> int | None:
        value = self._found.get(name)
        if not value:
            return None
        if not (value.isascii() and value.isdigit()) or len(value) > _DIGITS:
            raise wrong(name)
        return int(value)

    def limit(self, default: int, most: int) -> int:
        """One beyond ``most`` is cut down (301 candles are 300)."""
        value = self.number("limit")
        if value == 0:
            raise wrong("limit")
        return default if value is None else min(value, most)

    def levels(self, most: int) -> int:
        """``sz``, which is not cut down."""
        value = self.number("sz")
        if value is None:
            return 1
        if not 1 <= value <= most:
            raise wrong("sz")
        return value

    def inst_type(self) -> str:
        value = self.mandatory("instType")
        if value not in _TYPES:
            raise wrong("instType")
        return value
