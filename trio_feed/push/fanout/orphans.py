"""A client's subscriptions whose topics were closed, for they may be opened again.

A client that knows nothing of that would wait for ever: no message would say that there is a stream
again, and on the numbers that it has the new one does not simply go on.  So it is sent away to
resume, once for all that is opened about the same time.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from ...model import StreamKey
from ..protocol import Target

if TYPE_CHECKING:
    from .hub import Hub
    from .topics import Subscription

SETTLE_S = 5.0
"""What is opened within it after the first one is waited for."""


def _key(subscription: "Subscription") -> tuple[StreamKey, str]:
    return subscription.topic.stream_key, subscription.name


@define
class Orphans:
    """Of one client.  Those that it gave up, or asked for again, are forgotten; the last message
    that it was given of each is :attr:`.Subscription.number`."""

    _there: "dict[tuple[StreamKey, str], Subscription]" = field(factory=dict)
    _openings: int = -1
    """Of the hub, as far as they were looked at."""
    _since: float | None = None
    """When the first was seen to be back."""

    def __bool__(self) -> bool:
        return bool(self._there)

    def note(self, subscription: "Subscription") -> None:
        """Its topic is being closed."""
        if subscription.asks:  # parts of a stream of the whole market join by themselves
            self._there[_key(subscription)] = subscription

    def forget(self, subscription: "Subscription") -> bool:
        """The client has another one instead, or none.  False: nothing is known of it."""
        return self._there.pop(_key(subscription), None) is not None

    def clear(self) -> None:
        self._there.clear()

    def __iter__(self) -> "Iterator[Subscription]":
        return iter(self._there.values())

    def named(self, name: object) -> "Subscription | None":
        """The one that its client calls so."""
        return next((each for each in self if each.name and each.name == name), None)

    def of(self, target: Target) -> "Subscription | None":
        """The one that a request is about: no topic has its symbol's other names any more, so it is
        named as it was, or by its own name."""
        for each in self:
            key, asked = each.topic.stream_key, each.request.target
            same = (target.channel, target.interval) == (asked.channel, asked.interval)
            named = target.symbol in (asked.symbol, key.symbol)
            if same and named and target.exchange in (None, key.venue):
                return each
        return None

    def back(self, hub: "Hub") -> "Sequence[Subscription]":
        """Those whose streams are open again."""
        return [each for each in self if hub.topic(each.topic.stream_key) is not None]

    def are_back(self, hub: "Hub", now: float) -> bool:
        """Whether the client has to come back now; ``now``: monotonic seconds."""
        if not self or (self._since is None and self._openings == hub.openings):
            return False
        self._openings = hub.openings
        back = len(self.back(hub))
        if not back:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return back == len(self._there) or now - self._since >= SETTLE_S
