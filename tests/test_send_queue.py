"""The queue of one client: order, bounds, and what gives way to newer news."""

import json
from typing import Any

import pytest
from attrs import evolve
from support.make import MINUTE, T0, kline, message
from support.wire import payload_of

from trio_feed.model import Channel, Interval
from trio_feed.push.fanout.encoded import EncodedMessage, encoded, prefix_of
from trio_feed.push.fanout.frames import text_frame
from trio_feed.push.fanout.send_queue import QueuedFrame, SendQueue
from trio_feed.push.protocol import Target

PREFIX = prefix_of(Target("BTCUSDT", Channel.KLINE, Interval.M1, "m1", None), "s", deflated=False)


def candle_message(
    offset: int, candle: int = 0, *, closed: bool = False, revision: bool = False
) -> EncodedMessage:
    row = message(kline(T0 + candle * MINUTE, closed=closed), offset=offset)
    return encoded(evolve(row, revision=revision), T0)


def push(key: object, content: EncodedMessage) -> QueuedFrame:
    return QueuedFrame(PREFIX.frame(content), 0, True, key, content)


def offer(send_queue: SendQueue, key: object, content: EncodedMessage) -> bool:
    entry = push(key, content)
    return send_queue.conflate(entry, PREFIX) or send_queue.put(entry)


def contents(send_queue: SendQueue) -> list[dict[str, Any]]:
    return [json.loads(payload_of(frame))["data"] for frame in send_queue.first(1000, 10**9)]


def numbers(send_queue: SendQueue) -> list[tuple[int, int]]:
    return [(data["offset"], data.get("conflated", 0)) for data in contents(send_queue)]


def make(max_messages: int = 100, max_bytes: int = 100_000) -> SendQueue:
    return SendQueue(max_messages, max_bytes)


def test_in_order_and_out_in_batches() -> None:
    send_queue = make()
    for n in range(5):
        assert send_queue.put(QueuedFrame(text_frame(b"%d" % n), n))
    assert send_queue.first(2, 10**6) == [b"\x81\x010", b"\x81\x011"]
    assert send_queue.first(100, 7) == [b"\x81\x010", b"\x81\x011"]
    assert len(send_queue.first(100, 1)) == 1
    send_queue.remove(2)
    assert send_queue.first(1, 1) == [b"\x81\x012"]
    assert (send_queue.statistics().messages, send_queue.statistics().bytes) == (3, 9)
    assert send_queue.statistics().at_ms == 2
    send_queue.clear()
    assert (bool(send_queue), send_queue.statistics().bytes) == (False, 0)


def test_pushes_are_bounded_in_bytes_and_number() -> None:
    send_queue = make(max_messages=3, max_bytes=100)
    assert [send_queue.put(QueuedFrame(bytes(10), 0, push=True)) for _ in range(4)] == [
        True
    ] * 3 + [False]
    send_queue = make(max_messages=30, max_bytes=100)
    assert [send_queue.put(QueuedFrame(bytes(40), 0, push=True)) for _ in range(3)] == [
        True,
        True,
        False,
    ]


def test_a_single_push_always_fits() -> None:
    assert make(max_bytes=100).put(QueuedFrame(bytes(200), 0, push=True))


def test_replies_are_taken_and_leave_the_pushes_their_room() -> None:
    send_queue = make(max_bytes=100)
    assert send_queue.put(QueuedFrame(bytes(500), 0))
    assert send_queue.full
    assert send_queue.put(QueuedFrame(bytes(60), 0, push=True))
    send_queue.remove(2)
    assert not send_queue.full


def test_only_the_latest_update_waits() -> None:
    send_queue, stream, other = make(), object(), object()
    for offset in (7, 8, 9):
        assert offer(send_queue, stream, candle_message(offset))
        assert offer(send_queue, other, candle_message(offset + 100))
    assert numbers(send_queue) == [(9, 2), (109, 2)]
    assert contents(send_queue)[0]["subscription_id"] == "s"
    assert send_queue.statistics().bytes == sum(map(len, send_queue.first(9, 10**9)))


def test_a_final_takes_the_place_of_its_own_update() -> None:
    send_queue, stream = make(), object()
    for content in (
        candle_message(1),
        candle_message(2, closed=True),
        candle_message(3, 1),
        candle_message(4, 1),
    ):
        assert offer(send_queue, stream, content)
    assert numbers(send_queue) == [(2, 1), (4, 1)]


def test_finals_and_revisions_never_give_way() -> None:
    send_queue, stream = make(), object()
    candles = [
        candle_message(1, closed=True),
        candle_message(2, 1, closed=True),
        candle_message(3, 2),
    ]
    revision = candle_message(4, closed=True, revision=True)
    revised_open = candle_message(6, 2, closed=True, revision=True)
    for content in (*candles, revision, candle_message(5, 2), revised_open, candle_message(7, 2)):
        assert offer(send_queue, stream, content)
    assert numbers(send_queue) == [(n, 0) for n in range(1, 8)]


def test_nothing_moves_past_other_words_of_the_stream() -> None:
    send_queue, stream = make(), object()
    offer(send_queue, stream, candle_message(1))
    send_queue.put(QueuedFrame(PREFIX.frame(candle_message(0)), 0, key=stream))
    offer(send_queue, stream, candle_message(2))
    assert [n for n, _ in numbers(send_queue)] == [1, 0, 2]


def test_what_has_gone_is_not_changed_any_more() -> None:
    send_queue, stream = make(), object()
    offer(send_queue, stream, candle_message(1))
    send_queue.remove(1)
    offer(send_queue, stream, candle_message(2))
    assert numbers(send_queue) == [(2, 0)]


@pytest.mark.parametrize("deflated", [False, True])
def test_a_message_is_framed_alike_for_alike_words(deflated: bool) -> None:
    target = Target("BTCUSDT", Channel.KLINE, Interval.M1, "m1", None)
    content = candle_message(1)
    one = prefix_of(target, None, deflated=deflated)
    assert one == prefix_of(target, None, deflated=deflated)
    assert content.tail(deflated=deflated) is content.tail(deflated=deflated)
    assert len(one.frame(content)) < len(
        prefix_of(target, "other", deflated=deflated).frame(content)
    )


def test_much_at_once_is_no_slowness_and_the_same_later_is() -> None:
    send_queue = SendQueue(3, 1_000, burst=4, behind_ms=2_000)
    assert all(send_queue.put(QueuedFrame(b"x", at_ms, True)) for at_ms in range(12))
    assert not send_queue.put(QueuedFrame(b"x", 12.0, True))
    send_queue.remove(8)
    assert not send_queue.put(QueuedFrame(b"x", 2_008.0, True))
    send_queue.remove(2)
    assert send_queue.put(QueuedFrame(b"x", 2_010.0, True))


def test_what_goes_in_place_of_the_same_older_message_is_made_once_for_all() -> None:
    """And for those who wait with another one separately: they miss another number of them."""
    first, second = push(PREFIX, candle_message(1)), push(PREFIX, candle_message(2))
    queues, newest = [make(), make(), make()], push(PREFIX, candle_message(4))
    for send_queue, waiting in zip(queues, (first, first, second), strict=True):
        assert send_queue.put(waiting)
        assert send_queue.conflate(newest, PREFIX)
    assert [numbers(send_queue) for send_queue in queues] == [[(4, 3)], [(4, 3)], [(4, 2)]]
    one, same, other = (send_queue.entries[0] for send_queue in queues)
    assert one is same
    assert one is not other
