"""Private events: per user one stream, numbered by the journal, to every session of that user.

A session joins in the same synchronous moment in which its number is taken (a fresh one) or in
which its replay has caught up (a resumed one), so it sees neither gap nor overlap.  Events are in
the journal before :meth:`PrivateFeed.publish` is called, so a client that was disconnected reads
the rest there, also after a crash.  They are never dropped: a client that cannot take one is
disconnected.

Where other processes write the journal too, :meth:`PrivateFeed.follow` reads what they wrote for
users who are here; what this process wrote behind such an event waits until that was read.
"""

from collections.abc import Callable, Collection, Sequence
from hashlib import sha256
from typing import Never, Protocol

import structlog
import trio
from attrs import define, field

from ...errors import JournalError
from ...metrics import Metrics
from ...model import PrivateMessage
from ...store import EventJournal, OtherWriters
from ...store.pending import Complaint
from .. import messages
from ..protocol import HISTORY_FAILED, SLOW_CLIENT, Since

log = structlog.get_logger()

_PAGE = 100
"""Events read from the journal at a time while a client catches up."""
_EPOCH_BYTES = 6
"""Every JSON reader keeps numbers of 48 bits exactly."""


class Client(Protocol):
    """What a session offers.  ``deliver`` never waits: the client takes the message or is dropped;
    ``reply`` takes an answer in any case, and ``wait_capacity`` until there is room for more."""

    client_id: str

    def deliver(self, text: str) -> None: ...
    def reply(self, text: str) -> None: ...
    async def wait_capacity(self) -> None: ...
    def leave(self, code: int, reason: str, last_message: str) -> None: ...


@define(eq=False)
class _Stream:
    """One user's events as far as they have been published."""

    user_id: int
    offset: int | None = None
    """Of the last event; None until it has been looked up."""
    subscriptions: set["UserSubscription"] = field(factory=set)


@define(eq=False)
class UserSubscription:
    """A session's subscription to one user's events.  ``live`` once it has caught up, ``active``
    until it is given up."""

    client: Client
    stream: _Stream
    live: bool = False
    active: bool = True

    @property
    def offset(self) -> int:
        assert self.stream.offset is not None, "PrivateFeed.subscribe looked it up"
        return self.stream.offset


class PrivateFeed:
    """All users with a session.  Synchronous but for looking things up in the journal.
    ``others``: the journal's, where other processes write it too."""

    def __init__(
        self,
        journal: EventJournal,
        now_ms: Callable[[], float],
        metrics: Metrics,
        others: OtherWriters | None = None,
    ) -> None:
        self._epoch, self._shared_epoch = journal.epoch, journal.shared_epoch
        self._journal, self._now_ms, self._metrics = journal, now_ms, metrics
        self._streams: dict[int, _Stream] = {}
        self._others, self._complaint = others, Complaint()

    def epoch_of(self, user_id: int) -> int:
        """The epoch of a user's offsets.  Each user has another, so that a ``since`` from one
        user's events is never taken for a place in another's."""
        digest = sha256(f"{self._epoch}:{user_id}".encode()).digest()
        return int.from_bytes(digest[:_EPOCH_BYTES]) + 1

    def publish(self, fresh: Sequence[PrivateMessage]) -> None:
        """Hand out what has just become durable; per user in the order of the offsets."""
        now = self._now_ms()
        for message in fresh:
            stream = self._streams.get(message.user_id)
            if stream is not None:
                self._fan_out(stream, message, now)

    def _fan_out(self, stream: _Stream, message: PrivateMessage, now: float) -> None:
        last = stream.offset
        if last is not None and message.offset <= last:
            return  # it was there when the stream's end was looked up
        if last is not None and message.offset > last + 1 and self._others is not None:
            self._others.look_again(stream.user_id)  # another process wrote what is between
            return
        stream.offset = message.offset
        live = [subscription for subscription in stream.subscriptions if subscription.live]
        if not live:
            return
        text = messages.private_event(message, self.epoch_of(message.user_id), now)
        for subscription in live:
            if message.offset == (last or 0) + 1:
                subscription.client.deliver(text)
            else:  # a batch whose writing failed was on the disk all the same
                self._cut_off(subscription, "private events were missed; resume with since", now)
        self._metrics.private_messages.inc(len(live))
        self._metrics.private_latency.observe(max(0.0, now - message.received_ms) / 1000)

    async def follow(self) -> Never:
        """Hand out what the other processes write, until cancelled."""
        assert self._others is not None, "there are others"
        while True:
            users = await self._others.news()
            here = self._streams.keys() if users is None else self._streams.keys() & users
            if not here:
                continue
            try:
                await self._read_on(self._others, list(here))
            except JournalError as error:
                # Everybody is looked at again in a second, so nothing is lost.
                if self._complaint.is_news(str(error), trio.current_time()):
                    log.error("journal.read_failed", problem=str(error), advice=error.advice)
            else:
                self._complaint.over()

    async def _read_on(self, others: OtherWriters, users: Collection[int]) -> None:
        for user_id, head in (await others.heads(users)).items():
            while (stream := self._streams.get(user_id)) and stream.offset is not None:
                if stream.offset >= head:
                    break
                rows = await self._journal.read(user_id, stream.offset, head, _PAGE)
                if rows:
                    self.publish(rows)
                elif stream.offset < head and self._streams.get(user_id) is stream:
                    stream.offset = head
                    for subscription in [each for each in stream.subscriptions if each.live]:
                        problem = "private events are not kept for so long"
                        self._cut_off(subscription, problem, self._now_ms())

    async def subscribe(self, client: Client, user_id: int) -> UserSubscription:
        """A subscription to the user's events, not live yet; the caller gives it up with
        ``unsubscribe``.  Raises JournalError."""
        stream = self._streams.setdefault(user_id, _Stream(user_id))
        subscription = UserSubscription(client, stream)
        stream.subscriptions.add(subscription)
        try:
            if stream.offset is None:
                head = await self._journal.head(user_id)
                if not head:  # nothing has come for this user yet: broadcasts are to find it
                    self._journal.meet(user_id)
                if stream.offset is None:
                    stream.offset = head
        except BaseException:
            self.unsubscribe(subscription)
            raise
        return subscription

    def unsubscribe(self, subscription: UserSubscription) -> None:
        """Give it up; nothing more comes."""
        subscription.active = subscription.live = False
        subscription.stream.subscriptions.discard(subscription)
        if (
            not subscription.stream.subscriptions
            and self._streams.get(subscription.stream.user_id) is subscription.stream
        ):
            del self._streams[subscription.stream.user_id]

    async def first_page(
        self, subscription: UserSubscription, since: Since
    ) -> list[PrivateMessage] | None:
        """The beginning of what came after ``since``; None: not all of it is there any more.
        Raises JournalError."""
        if since.epoch not in (self.epoch_of(subscription.stream.user_id), self._shared_epoch):
            return None
        if since.offset > subscription.offset:
            return None
        if since.offset == subscription.offset:
            return []
        return await self._page(subscription, since.offset) or None

    async def catch_up(
        self, subscription: UserSubscription, page: list[PrivateMessage], offset: int
    ) -> None:
        """Replay ``page``, then everything after it, then go live.  ``offset``: the client has
        all up to it.  Raises JournalError."""
        epoch = self.epoch_of(subscription.stream.user_id)
        while subscription.active:
            now = self._now_ms()
            for message in page:
                subscription.client.reply(messages.private_event(message, epoch, now))
                offset = message.offset
            self._metrics.private_messages.inc(len(page))
            if offset == subscription.offset:
                subscription.live = True  # and nothing has waited since the comparison
                return
            await subscription.client.wait_capacity()
            page = await self._page(subscription, offset)
            if not page:
                self._cut_off(
                    subscription, "private events are not kept for so long", self._now_ms()
                )
                return

    def _cut_off(self, subscription: UserSubscription, problem: str, now: float) -> None:
        subscription.live = False
        subscription.client.leave(
            SLOW_CLIENT, problem, messages.error(HISTORY_FAILED, problem, now)
        )

    async def _page(self, subscription: UserSubscription, after: int) -> list[PrivateMessage]:
        return await self._journal.read(
            subscription.stream.user_id, after, subscription.offset, _PAGE
        )
