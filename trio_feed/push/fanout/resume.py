"""Resuming: every message after the last one that a client has, or none at all.

First the topic's ring, which has every message but does not reach far.  For candles then the
store, which has the closed ones and the revisions, also those of earlier runs of the service: the
updates of open candles in between are left out, and the messages say how many.
"""

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Any

import trio
from attrs import frozen

from ...bus.base import Stream
from ...errors import StoreError
from ...model import Series
from ...store import CandleReader
from ..portions import in_portions
from ..protocol import Since
from .encoded import EncodedMessage, encoded, encoded_once
from .history import BEHIND_S
from .send_queue import QueuedFrame
from .topics import Subscription, Topic

_MOST_ROWS = 1500
_LOOK_S = 0.01
AHEAD_S = 1.0
"""Nodes differ by milliseconds: a client that comes from another may know more than this one."""
_TRIES = 5


@frozen
class Missed:
    """What a client missed, oldest first, each with how many messages before it are left out.
    ``source`` is ``ring`` or ``store``."""

    messages: list[tuple[EncodedMessage, int]]
    source: str


async def caught_up(stream: Stream, since: Since) -> None:
    """Wait for a moment where ``since`` is ahead of this node.  It holds no turn meanwhile, so
    that invented numbers cost nobody but their client.

    Raises StoreError where the node cannot know whether they are invented: it would hand out once
    more what the client has."""
    asked = trio.current_time()
    while (since.epoch, since.offset) > (stream.epoch, stream.offset):
        waited_s, heard_at = trio.current_time() - asked, stream.heard_at
        if waited_s >= AHEAD_S and (heard_at is None or heard_at > asked):
            return
        if waited_s >= BEHIND_S:
            raise StoreError("this node is behind what you have; ask again, or another node")
        await trio.sleep(_LOOK_S)


async def missed(store: CandleReader, topic: Topic, since: Since, now_ms: float) -> Missed | None:
    """What was published after ``since``; None where that is not known exactly.

    Up to date at the moment of return, as :func:`.history.latest` is; the stream's
    messages have to be kept already.  Raises StoreError.
    """
    stream = topic.stream
    if stream.continues(since.epoch, since.offset):
        kept = [encoded_once(each) for each in stream.after(since.epoch, since.offset)]
        return Missed(_counted(kept, since), "ring")
    stream_key, ahead = stream.stream_key, (stream.epoch, stream.offset)
    if not isinstance(stream_key, Series) or (since.epoch, since.offset) > ahead:
        return None
    for _ in range(_TRIES):
        mark = stream.offset  # what was published up to here is in the store
        rows = await store.after(
            stream_key, since.epoch, since.offset, closed_ms=since.closed_ms, limit=_MOST_ROWS
        )
        if rows is None:
            return None
        ready = {}
        async with aclosing(in_portions(rows)) as portions:
            async for row in portions:
                ready[row.epoch, row.offset] = message = encoded(row, now_ms)
                message.tail(deflated=False)  # written here, and not all of them in one go later
        if stream.continues(stream.epoch, mark):
            known = [row for row in rows if row.epoch < stream.epoch or row.offset <= mark]
            last = since.offset if since.epoch == stream.epoch else 0
            if known and known[-1].epoch == stream.epoch:
                last = known[-1].offset
            messages = [ready[row.epoch, row.offset] for row in known]
            if (open_candle := _before_the_ring(stream, last)) is not None:
                messages.append(open_candle)
            messages += [encoded_once(kept) for kept in stream.after(stream.epoch, last)]
            return Missed(_counted(messages, since), "store")
    return None


def _before_the_ring(stream: Stream, last: int) -> EncodedMessage | None:
    """The last update of the open candle, where it came after ``last`` and before the ring began:
    it stands for those before it, so that the next message follows what was sent."""
    if stream.latest is None:
        return None
    message = stream.latest.message
    kept = stream.after(stream.epoch, last)
    first = kept[0].message.offset if kept else stream.offset + 1
    if message.epoch != stream.epoch or not last < message.offset < first:
        return None
    return encoded_once(stream.latest)


def _counted(messages: list[EncodedMessage], since: Since) -> list[tuple[EncodedMessage, int]]:
    """Each with the distance to the one before; the numbers of an epoch begin with 1."""
    counted, epoch, offset = [], since.epoch, since.offset
    for message in messages:
        if message.epoch != epoch:
            epoch, offset = message.epoch, 0
        counted.append((message, message.offset - offset - 1))
        offset = message.offset
    return counted


def resume_points(
    subscriptions: Iterable[Subscription], unwritten: Iterable[QueuedFrame]
) -> list[dict[str, Any]]:
    """Where a disconnected client may resume: for each subscription, also one whose topic was
    closed (:mod:`.orphans`), the last message before those that are ``unwritten`` (in order).  One
    whose history has not been written has none."""
    first: dict[object, tuple[int, QueuedFrame]] = {}
    for place, waiting in enumerate(unwritten):
        numbered = waiting.message is not None and not waiting.message.ephemeral
        if waiting.key is not None and (numbered or (waiting.message is None and not waiting.push)):
            first.setdefault(waiting.key, (place, waiting))
    points = []
    for subscription in subscriptions:
        topic, entry = subscription.topic, _first_of(subscription, first)
        number = last_given(subscription) if subscription.active else subscription.number
        if entry is not None:
            if entry.message is None:
                continue
            number = entry.message.epoch, entry.message.offset - entry.left_out - 1
        names = {**subscription.request.target.about, "exchange": topic.stream_key.venue}
        points.append({**names, "epoch": number[0], "offset": number[1]})
    return points


def last_given(subscription: Subscription) -> tuple[int, int]:
    """The number of the last message that was written or queued for it."""
    topic = subscription.topic
    for fan_out in topic.under_way:  # from the oldest on, and of them the first
        left_out = fan_out.left_out_of(subscription)
        if left_out is not None and not fan_out.message.ephemeral:
            return fan_out.message.epoch, fan_out.message.offset - left_out - 1
    return topic.stream.epoch, topic.stream.offset


def _first_of(
    subscription: Subscription, first: Mapping[object, tuple[int, QueuedFrame]]
) -> QueuedFrame | None:
    """Replies belong to the subscription, published messages to its form."""
    there = [first[key] for key in (subscription, subscription.form) if key in first]
    return min(there)[1] if there else None
