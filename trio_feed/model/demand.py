"""Symbols on demand: what a client wants fed and what becomes of it.  Plain values, so that they
may cross a socket between processes."""

from typing import Literal

from attrs import field, frozen

SUBSCRIBE = "subscribe"
ANSWER_S = 10.0
"""So long anybody waits at most."""

Reason = Literal["unlisted", "no_room", "too_many", "starting"]


@frozen
class Wish:
    """A symbol that a client asks for.

    ``venue`` None: any that lists it.  ``symbol``: the unified name or the venue's own, in any
    case.  ``kind`` is what the client waits for: ``subscribe`` for nothing but that it may
    subscribe, an interval such as ``1m`` for its candles.  ``asker``: whose account it is on.
    ``within_s``: so long an answer is worth waiting for.
    """

    venue: str | None
    symbol: str
    kind: str = SUBSCRIBE
    asker: str = ""
    within_s: float = field(default=ANSWER_S, eq=False)


@frozen
class Granted:
    """It is fed, under its unified name ``symbol``."""

    venue: str
    symbol: str


@frozen
class Refused:
    """It is not, for a ``reason`` that ``problem`` says in words; ``retry_after_s`` is 0 where
    asking again does not help."""

    reason: Reason
    problem: str
    retry_after_s: float = 0.0
