"""Bytes that wait for clients, over everything that is sent to them.  Pure.

What one client may have waiting is bounded where it is sent from (the send queue, one HTTP answer
at a time).  All of them together are bounded here: strangers that order large answers and never
read them would else take the memory one by one.  Beyond the bound the client with the most is
dropped, which is one of theirs and nobody who reads.
"""

from collections.abc import Callable
from math import inf

MAX_TOTAL = 64 * 2**20


class Account:
    """What waits for one client.  ``close`` it when the client has gone.

    The send queue counts in place: ``bytes`` and the ``total`` of ``everything``.
    """

    __slots__ = ("bytes", "drop", "everything")

    def __init__(self, everything: "WaitingBytes", drop: Callable[[], None]) -> None:
        self.bytes = 0
        self.drop = drop
        self.everything = everything

    def add(self, size: int) -> None:
        """``size`` more are waiting; negative: less.  May drop a client, this one too."""
        self.bytes += size
        self.everything.total += size
        if self.everything.total > self.everything.most:
            self.everything.drop()

    def close(self) -> None:
        self.everything.forget(self)
        self.drop = _nobody  # a method of who holds this, as a rule


def _nobody() -> None:
    """The client has gone."""


class WaitingBytes:
    """One per process.  ``most`` may wait for all clients together; ``total`` does."""

    def __init__(self, most: float = MAX_TOTAL) -> None:
        self.total, self.most = 0, most
        self._accounts: dict[Account, None] = {}

    def open(self, drop: Callable[[], None]) -> Account:
        """``drop`` ends the client's connection at once, and waits for nothing."""
        account = Account(self, drop)
        self._accounts[account] = None
        return account

    def drop(self) -> None:
        """It is too much: drop those with the most."""
        while self.total > self.most and self._accounts:
            worst = max(self._accounts, key=_bytes_of)
            self.forget(worst)
            worst.drop()

    def forget(self, account: Account) -> None:
        """What it has is counted no more, and neither what is still done with it."""
        if account in self._accounts:
            del self._accounts[account]
            self.total -= account.bytes
            account.everything = _NOTHING


def unbounded() -> Account:
    """Of who is not counted."""
    return Account(_NOTHING, _nobody)


def _bytes_of(account: Account) -> int:
    return account.bytes


_NOTHING = WaitingBytes(inf)
