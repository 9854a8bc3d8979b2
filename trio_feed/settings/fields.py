"""What the fields of all tables are made of."""

from typing import Any

import attrs


class Secret:
    """A string that never prints itself.  ``reveal()`` where it goes on the wire."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "'***'" if self._value else "''"


class FieldError(ValueError):
    """A value that does not fit; ``key`` is the field inside its table."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def between(low: float, high: float) -> Any:
    """A validator: low <= value <= high."""

    def check(_instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
        if not low <= value <= high:
            raise FieldError(attribute.name, f"{value} is not between {low:g} and {high:g}")

    return check
