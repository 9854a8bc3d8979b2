"""One client of a dialect: a sibling of :class:`trio_feed.push.session.Session`.

What it asks and how it is answered is the business of a :class:`Control`, made for each client; the
rest (the one send queue, subscriptions at the hub, farewells) is the same for all dialects.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import frozen

from ..model import StatusMessage
from ..push.context import SessionContext
from ..push.edge.turns import asker_at
from ..push.fanout.encoded import StreamForm
from ..push.fanout.sender import ClientTimeouts, Close
from ..push.fanout.topics import Subscription, Topic
from ..push.fanout.voice import Farewell
from ..push.mounts import Opening
from ..push.protocol import Subscribe, Target
from ..push.session import Receive


class Control(Protocol):
    """The conversation with one client, in its dialect.  Synchronous.

    ``opened`` and ``take`` are called again where they look up a symbol that is fed on demand
    (:class:`trio_feed.push.demand.Desk`): what comes before the look-up has to bear that."""

    def opened(self) -> None:
        """The client is there."""

    def take(self, text: str | bytes) -> None:
        """A message of the client."""

    def too_many(self, text: str | bytes) -> None:
        """The same for one beyond its rate, which is refused."""

    def restarting(self) -> Farewell:
        """The service ends."""

    def gone(self) -> None:
        """The client is no longer there."""


@frozen
class QuietVoice:
    """Exchanges say nothing of their upstreams, and close on who is too slow without a word."""

    code: int
    reason: str

    def status(self, subscription: Subscription, status: StatusMessage) -> str | None:
        return None

    def slow(self, since: Sequence[dict[str, Any]]) -> Farewell:
        return Farewell(self.code, self.reason)

    def back(self, since: Sequence[dict[str, Any]]) -> Farewell:
        return Farewell(self.code, "reconnect")


POLICY = 1008
_PART = "\n"
"""No stream has it in its name."""


def _public(subscription: Subscription) -> str:
    """What the client calls it."""
    return subscription.name.partition(_PART)[0]


class DialectSession:
    """A connected client: see :class:`trio_feed.push.mounts.Conversation`."""

    def __init__(
        self,
        context: SessionContext,
        opening: Opening,
        make_control: Callable[["DialectSession"], Control],
    ) -> None:
        self.context = context
        voice = QuietVoice(POLICY, "slow consumer")
        self._sender = context.sender(
            opening.transport, opening.account, voice, deflated=opening.deflated
        )
        self._keys: dict[str, dict[str, None]] = {}
        """By what the client calls a stream: the names of its subscriptions."""
        self._control = make_control(self)
        self._asker = asker_at(opening.host, self._sender.client_id)

    def __repr__(self) -> str:
        return f"<{type(self._control).__name__} {self.client_id} {len(self.names)} streams>"

    @property
    def client_id(self) -> str:
        return self._sender.client_id

    @property
    def engaged(self) -> bool:
        """Exchanges do not close connections without streams, and clients keep such."""
        return True

    async def run(self, receive: Receive, close: Close) -> None:
        """See :meth:`trio_feed.push.mounts.Conversation.run`."""
        try:
            async with self._sender.serving(close):
                await self._serve(self._control.opened)
                while (text := await receive()) is not None and not self._sender.leaving:
                    await self._serve(partial(self._control.take, text))
                    await self._sender.wait_capacity()
        finally:
            self._control.gone()

    async def _serve(self, work: Callable[[], None]) -> None:
        await self.context.desk.serve(self._asker, work, patient=False)

    def statistics(self) -> dict[str, Any]:
        return {**self._sender.statistics(), "authenticated": False}

    def sweep(self, now: float, timeouts: ClientTimeouts) -> int:
        return self._sender.sweep(now, timeouts)

    def end_if_revoked(self) -> None:
        """Nothing here is private."""

    def too_many(self, problem: str, text: str | bytes) -> None:
        self._control.too_many(text)

    def flooded(self, problem: str, text: str | bytes) -> None:
        self._sender.leave(POLICY, "Too many requests", None)

    def unused(self, problem: str) -> None:
        self._sender.leave(POLICY, problem, None)

    def restarting(self, after_ms: int) -> None:
        farewell = self._control.restarting()
        self._sender.leave(farewell.code, farewell.reason, farewell.text)

    # For the control

    @property
    def names(self) -> list[str]:
        """The streams that the client has, in the order of their subscription."""
        held = self._sender.subscriptions
        return [name for name, keys in self._keys.items() if any(key in held for key in keys)]

    def reply(self, text: str) -> None:
        """An answer, behind what waits already."""
        self._sender.reply(text)

    def subscribe(
        self, name: str, topic: Topic, target: Target, form: StreamForm, part: str = ""
    ) -> None:
        """From now on the client gets the topic's messages in this form; again, in another.
        ``part``: which of the topics that one stream is made of, as far as these are fed.  Nothing
        happens where the client is leaving."""
        if self._sender.leaving:
            return
        request = Subscribe(target, None, None, None)
        own = f"{name}{_PART}{part}" if part else name
        self._keys.setdefault(name, {})[own] = None
        self._sender.subscribe(Subscription(self._sender, topic, request, form, own, asks=not part))

    def has(self, name: str, part: str) -> bool:
        """The stream has this part already."""
        return f"{name}{_PART}{part}" in self._sender.subscriptions

    def unsubscribe(self, name: str) -> bool:
        """False: there was no such stream."""
        found = [self._sender.unsubscribe(key) for key in self._keys.pop(name, ())]
        return any(found)

    def reform(self, change: Callable[[str], StreamForm | None]) -> None:
        """Give streams, by name, another form; None: it stays."""
        for subscription in self._sender.subscriptions.values():
            form = change(_public(subscription)) or subscription.form
            subscription.topic.reform(subscription, form)
