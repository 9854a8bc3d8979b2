"""The queue of one client: order, bounds, and what gives way to newer news."""

import json
from typing import Any

import pytest
from attrs import evolve
from support.make import MINUTE, T0, kline, message

from trio_feed.model import Channel, Interval
from trio_feed.push.fanout.encoded import Parcel, words, wrap
from trio_feed.push.fanout.frames import payload_of, text_frame
from trio_feed.push.fanout.send_queue import BURST_MS, Entry, Outbox
from trio_feed.push.protocol import Target

WORDS = words(Target("BTCUSDT", Channel.KLINE, Interval.M1, "m1", None), "s", deflated=False)


def parcel(offset: int, candle: int = 0, *, closed: bool = False, revision: bool = False) -> Parcel:
    row = message(kline(T0 + candle * MINUTE, closed=closed), offset=offset)
    return wrap(evolve(row, revision=revision), T0)


def push(key: object, content: Parcel) -> Entry:
    return Entry(WORDS.frame(content), 0, True, key, content)


def offer(outbox: Outbox, key: object, content: Parcel) -> bool:
    return outbox.conflate(key, content, WORDS) or outbox.put(push(key, content))


def contents(outbox: Outbox) -> list[dict[str, Any]]:
    return [json.loads(payload_of(frame))["data"] for frame in outbox.first(1000, 10**9)]


def numbers(outbox: Outbox) -> list[tuple[int, int]]:
    return [(data["offset"], data.get("conflated", 0)) for data in contents(outbox)]


def make(max_messages: int = 100, max_bytes: int = 100_000) -> Outbox:
    return Outbox(max_messages, max_bytes)


def test_in_order_and_out_in_batches() -> None:
    outbox = make()
    for n in range(5):
        assert outbox.put(Entry(text_frame(b"%d" % n), n))
    assert outbox.first(2, 10**6) == [b"\x81\x010", b"\x81\x011"]
    assert outbox.first(100, 7) == [b"\x81\x010", b"\x81\x011"]
    assert len(outbox.first(100, 1)) == 1
    outbox.remove(2)
    assert outbox.first(1, 1) == [b"\x81\x012"]
    assert (outbox.statistics().messages, outbox.statistics().bytes) == (3, 9)
    assert outbox.statistics().at_ms == 2
    outbox.clear()
    assert (bool(outbox), outbox.statistics().bytes) == (False, 0)


def test_pushes_are_bounded_in_bytes_and_number() -> None:
    outbox = make(max_messages=3, max_bytes=100)
    assert [outbox.put(Entry(bytes(10), 0, push=True)) for _ in range(4)] == [True] * 3 + [False]
    outbox = make(max_messages=30, max_bytes=100)
    assert [outbox.put(Entry(bytes(40), 0, push=True)) for _ in range(3)] == [True, True, False]


def test_a_single_push_always_fits() -> None:
    assert make(max_bytes=100).put(Entry(bytes(200), 0, push=True))


def test_replies_are_taken_and_leave_the_pushes_their_room() -> None:
    outbox = make(max_bytes=100)
    assert outbox.put(Entry(bytes(500), 0))
    assert outbox.full
    assert outbox.put(Entry(bytes(60), 0, push=True))
    outbox.remove(2)
    assert not outbox.full


def test_only_the_latest_update_waits() -> None:
    outbox, stream, other = make(), object(), object()
    for offset in (7, 8, 9):
        assert offer(outbox, stream, parcel(offset))
        assert offer(outbox, other, parcel(offset + 100))
    assert numbers(outbox) == [(9, 2), (109, 2)]
    assert contents(outbox)[0]["subscription_id"] == "s"
    assert outbox.statistics().bytes == sum(map(len, outbox.first(9, 10**9)))


def test_a_final_takes_the_place_of_its_own_update() -> None:
    outbox, stream = make(), object()
    for content in (parcel(1), parcel(2, closed=True), parcel(3, 1), parcel(4, 1)):
        assert offer(outbox, stream, content)
    assert numbers(outbox) == [(2, 1), (4, 1)]


def test_finals_and_revisions_never_give_way() -> None:
    outbox, stream = make(), object()
    candles = [parcel(1, closed=True), parcel(2, 1, closed=True), parcel(3, 2)]
    revision = parcel(4, closed=True, revision=True)
    revised_open = parcel(6, 2, closed=True, revision=True)
    for content in (*candles, revision, parcel(5, 2), revised_open, parcel(7, 2)):
        assert offer(outbox, stream, content)
    assert numbers(outbox) == [(n, 0) for n in range(1, 8)]


def test_nothing_moves_past_other_words_of_the_stream() -> None:
    outbox, stream = make(), object()
    offer(outbox, stream, parcel(1))
    outbox.put(Entry(WORDS.frame(parcel(0)), 0, key=stream))
    offer(outbox, stream, parcel(2))
    assert [n for n, _ in numbers(outbox)] == [1, 0, 2]


def test_what_has_gone_is_not_changed_any_more() -> None:
    outbox, stream = make(), object()
    offer(outbox, stream, parcel(1))
    outbox.remove(1)
    offer(outbox, stream, parcel(2))
    assert numbers(outbox) == [(2, 0)]


@pytest.mark.parametrize("deflated", [False, True])
def test_a_message_is_framed_alike_for_alike_words(deflated: bool) -> None:
    target = Target("BTCUSDT", Channel.KLINE, Interval.M1, "m1", None)
    content = parcel(1)
    one = words(target, None, deflated=deflated)
    assert one == words(target, None, deflated=deflated)
    assert content.tail(deflated=deflated) is content.tail(deflated=deflated)
    assert len(one.frame(content)) < len(words(target, "other", deflated=deflated).frame(content))


def test_much_at_once_is_no_slowness_and_the_same_later_is() -> None:
    outbox = Outbox(3, 1_000, burst=4)
    assert all(outbox.put(Entry(b"x", at_ms, True)) for at_ms in range(12))
    assert not outbox.put(Entry(b"x", 12.0, True))
    outbox.remove(8)
    assert not outbox.put(Entry(b"x", 8.0 + BURST_MS, True))
    outbox.remove(2)
    assert outbox.put(Entry(b"x", 10.0 + BURST_MS, True))
