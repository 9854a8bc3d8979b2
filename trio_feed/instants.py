"""Three clocks, three types, and nothing subtracts one from another.

- :class:`Mono` is trio's clock: seconds that only grow and that nobody sets.  Every wait, deadline
  and backoff is measured on it.  It may stand still while the machine sleeps.
- :class:`Wall` is this machine's calendar in unix milliseconds.  It labels what is shown to people
  (``received_at``), and is wrong whenever the machine's clock is wrong.
- :class:`Exchange` is an exchange's calendar in unix milliseconds, as far as its messages have
  told it.  The times inside of messages (open times, trade times) are plain ``int`` of it.

At run time all three are floats and cost nothing; mypy keeps them apart.
"""

from typing import TYPE_CHECKING, Self

from attrs import frozen

if TYPE_CHECKING:

    class _Instant:
        """``instant - instant`` of one clock is a length; ``instant + length`` is an instant."""

        def __init__(self, value: float) -> None: ...
        def __float__(self) -> float: ...
        def __int__(self) -> int: ...
        def __sub__(self, other: Self) -> float: ...
        def __add__(self, length: float) -> Self: ...
        def __lt__(self, other: Self) -> bool: ...
        def __le__(self, other: Self) -> bool: ...
        def __gt__(self, other: Self) -> bool: ...
        def __ge__(self, other: Self) -> bool: ...

    class Mono(_Instant):
        """Seconds of a clock that only goes forward; the origin means nothing."""

    class Wall(_Instant):
        """Unix milliseconds of this machine's calendar."""

    class Exchange(_Instant):
        """Unix milliseconds of an exchange's calendar."""

else:
    Mono = Wall = Exchange = float

NEVER: Mono = Mono(float("inf"))


@frozen
class Now:
    """One moment on all three clocks, read once for everything that happens in it."""

    mono: Mono
    wall: Wall
    exchange: Exchange
