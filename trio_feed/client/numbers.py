"""The numbers of one stream: what came last, and whether anything is missing before the next.
Pure."""

from typing import Any

from ..errors import NetworkError


class OutOfStep(NetworkError):
    """The server left out something, or said what is not of the protocol: connect anew."""


class Numbers:
    """Inside an epoch the offsets go up by one, and by one more for each message that the server
    says it conflated.  ``name`` is for errors."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"<Numbers {self._name} {self._last}>"

    @property
    def known(self) -> bool:
        return self._last is not None

    def since(self) -> dict[str, Any] | None:
        """What to resume from, as the server wants it; None: unknown."""
        if self._last is None:
            return None
        return {"epoch": self._last[0], "offset": self._last[1]}

    def forget(self) -> None:
        self._last = None

    def begin(self, epoch: int | None, offset: int | None) -> None:
        """The stream goes on after this number."""
        self._last = None if epoch is None or offset is None else (epoch, offset)

    def take(self, epoch: int, offset: int, conflated: int = 0) -> bool:
        """Note a message; False: it is an old one.  Raises OutOfStep where one is missing."""
        if self._last is not None:
            if (epoch, offset) <= self._last:
                return False
            expected = self._last[1] + 1 + conflated
            if epoch == self._last[0] and offset != expected:
                raise OutOfStep(f"{self._name}: offset {offset} instead of {expected}")
        self._last = epoch, offset
        return True
