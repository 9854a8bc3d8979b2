"""Bytes that wait for clients, over everything that is sent to them.  Pure.

What one client may have waiting is bounded where it is sent from (the send queue, one HTTP answer
at a time).  All of them together are bounded here: strangers that order large answers and never
read them would else take the memory one by one.  Beyond the bound the client with the most is
dropped, which is one of theirs and nobody who reads.
"""

from collections.abc import Callable

MAX_TOTAL = 64 * 2**20


class Account:
    """What waits for one client.  ``close`` it when the client has gone."""

    def __init__(self, everything: "WaitingBytes", drop: Callable[[], None]) -> None:
        self.bytes = 0
        self.drop = drop
        self._everything = everything

    def add(self, size: int) -> None:
        """``size`` more are waiting; negative: less.  May drop a client, this one too."""
        self.bytes += size
        self._everything.changed(self, size)

    def close(self) -> None:
        self._everything.forget(self)
        self.drop = _nobody  # a method of who holds this, as a rule


def _nobody() -> None:
    """The client has gone."""


class WaitingBytes:
    """One per process.  ``most`` may wait for all clients together."""

    def __init__(self, most: int = MAX_TOTAL) -> None:
        self.total = 0
        self._most = most
        self._accounts: dict[Account, None] = {}

    def open(self, drop: Callable[[], None]) -> Account:
        """``drop`` ends the client's connection at once, and waits for nothing."""
        account = Account(self, drop)
        self._accounts[account] = None
        return account

    def changed(self, account: Account, size: int) -> None:
        if account not in self._accounts:  # dropped; what it had is counted no more
            return
        self.total += size
        while self.total > self._most:
            worst = max(self._accounts, key=lambda each: each.bytes)
            self.forget(worst)
            worst.drop()

    def forget(self, account: Account) -> None:
        if account in self._accounts:
            del self._accounts[account]
            self.total -= account.bytes
