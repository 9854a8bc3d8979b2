"""One message on its way to all subscribers of its topic."""

from collections import deque
from collections.abc import Iterable
from operator import attrgetter
from os import write
from typing import TYPE_CHECKING

from attrs import define, field

from .coalescing import WriteCoalescer
from .encoded import EncodedMessage, StreamForm
from .send_queue import QueuedFrame
from .transport import Transport

if TYPE_CHECKING:
    from .topics import Subscriber, Subscription


_ready_fd = attrgetter("ready_fd")


@define(eq=False)
class Audience:
    """The subscribers of a topic with one form, each once, in columns: what a delivery has to look
    at lies side by side.  It serves until somebody comes or leaves, then it is ``stale``.

    ``waiting``: what is in the send queue of each.  ``left_out``: so many messages before this one
    none of them gets.
    """

    form: StreamForm
    subscriptions: "list[Subscription]" = field(factory=list)
    subscribers: "list[Subscriber]" = field(factory=list)
    transports: list[Transport] = field(factory=list)
    waiting: list[list[QueuedFrame]] = field(factory=list)
    stale: bool = False
    left_out: int = 0


def audiences(subscriptions: "Iterable[Subscription]") -> list[Audience]:
    """One for each form, and for each name: a client may have the topic under several."""
    made: dict[tuple[StreamForm, str], Audience] = {}
    for subscription in subscriptions:
        form, subscriber = subscription.form, subscription.subscriber
        audience = made.get((form, subscription.name))
        if audience is None:
            audience = made[form, subscription.name] = Audience(form)
        audience.subscriptions.append(subscription)
        audience.subscribers.append(subscriber)
        audience.transports.append(subscriber.transport)
        audience.waiting.append(subscriber.waiting)
    return list(made.values())


def audiences_after_gap(
    subscriptions: "Iterable[Subscription]", message: EncodedMessage, left_out: int
) -> list[Audience]:
    """For the one message before which ``left_out`` are missing: who subscribed behind some of them
    is told of the others only.  Nobody keeps these audiences up to date, so they are stale."""
    made: dict[tuple[StreamForm, int], list[Subscription]] = {}
    for subscription in subscriptions:
        epoch, offset = subscription.number
        own = left_out
        if epoch == message.epoch:
            own = min(left_out, max(0, message.offset - offset - 1))
        made.setdefault((subscription.form, own), []).append(subscription)
    several = []
    for (_, own), there in made.items():
        for audience in audiences(there):
            audience.stale, audience.left_out = True, own
            several.append(audience)
    return several


class FanOut:
    """One message for the subscribers of its topic.  One that leaves meanwhile is left out; one
    that joins has the message in its snapshot.  ``timed``: how long it takes is measured.
    ``number_left``: of those who have not been given it."""

    __slots__ = ("_at", "_audiences", "_entry", "message", "number_left", "timed")

    def __init__(
        self, message: EncodedMessage, audiences: Iterable[Audience], *, timed: bool
    ) -> None:
        self.message, self.timed = message, timed
        self.number_left = 0
        self._audiences = deque(audiences)
        for audience in self._audiences:
            self.number_left += len(audience.subscriptions)
        self._at = 0
        self._entry: QueuedFrame | None = None

    def left_out_of(self, subscription: "Subscription") -> int | None:
        """How many before it the subscription does not get; None: it has been given it, or is not
        to get it."""
        at = self._at
        for audience in self._audiences:
            if subscription in audience.subscriptions[at:]:
                return audience.left_out
            at = 0
        return None

    def step(self, most: int, coalescer: WriteCoalescer) -> bool:
        """Hand it to ``most`` more of them.  True: that was the last."""
        while most and self._audiences:
            audience, at = self._audiences[0], self._at
            if not at:
                self._entry = self._entry_for(audience)
            end = min(at + most, len(audience.subscriptions))
            if self._entry is not None:
                deliver(self._entry, audience, at, end, coalescer)
            # Afterwards: who is sent away meanwhile has not been given it.
            most -= end - at
            self.number_left -= end - at
            self._at = end
            if end == len(audience.subscriptions):
                self._audiences.popleft()
                self._at = 0
        return not self._audiences

    def _entry_for(self, audience: Audience) -> QueuedFrame | None:
        """The one entry of all in this audience, in whose send queues it may wait.
        None: such clients do not get this message."""
        form, message, left_out = audience.form, self.message, audience.left_out
        frame = form.frame(message, left_out)
        if frame is None:
            return None
        return QueuedFrame(frame, message.sent_ms, True, form, message, left_out)


def deliver(
    entry: QueuedFrame, audience: Audience, at: int, end: int, coalescer: WriteCoalescer
) -> None:
    """Give ``entry`` to those of ``audience`` from ``at`` to before ``end``.

    Each message to each client passes here.  A system call leaves cold caches behind, so that each
    object that is touched next and each bytecode counts several times.  So all clients are looked
    at, and the bytes counted, before the first call; behind each call there are two numbers to
    look at.  A client is in an audience once, so nobody but itself makes its descriptor another's
    or its queue longer meanwhile; one that is dropped for others has a closed one, which is an
    error like a full one.  All else is its writer's.
    """
    direct = at if audience.stale else at + coalescer.take(end - at)
    frame = entry.frame
    size = len(frame)
    transports, waiting = audience.transports[at:direct], audience.waiting[at:direct]
    columns = zip(
        range(at, direct), list(map(_ready_fd, transports)), list(map(len, waiting)), strict=True
    )
    for transport in transports:
        transport.bytes_out += size
    for place, fd, before in columns:
        taken = 0
        if fd >= 0 and not before:
            try:
                taken = write(fd, frame)
            except OSError:
                taken = 0  # it is full or broken: the writer finds that out
            if taken == size:
                continue
        audience.transports[place].bytes_out -= size
        if taken:
            audience.subscribers[place].begun(frame, taken)
            continue
        coalescer.spare += 1  # it was not used here
        if audience.subscriptions[place].active:
            audience.subscribers[place].push(entry)
    coalescer.gathered += size * (end - direct)
    if audience.stale:
        for subscription in audience.subscriptions[direct:end]:
            if subscription.active:
                subscription.subscriber.enqueue(entry)
        return
    for subscriber in audience.subscribers[direct:end]:
        subscriber.enqueue(entry)
