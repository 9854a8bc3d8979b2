"""The frame splitter against wsproto, and against the rules of RFC 6455, section 5."""

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from trio_feed.net.frames import (
    FrameSplitter,
    close_frame,
    ping_frame,
    pong_frame,
    text_frame,
)

MASK = b"\x01\x02\x03\x04"


def frame(first: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def split(data: bytes, most: int = 1 << 20) -> tuple[list[str | bytes], int | None]:
    splitter = FrameSplitter(most)
    messages = splitter.feed(data)
    return messages, splitter.failure and splitter.failure.code


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(at)]


@st.composite
def messages_sent(draw: st.DrawFn) -> list[Any]:
    text = st.text(max_size=40) | st.integers(120, 70_000).map(lambda n: "é" * n)
    event = st.one_of(
        st.tuples(text, st.booleans()).map(lambda e: TextMessage(e[0], message_finished=e[1])),
        st.binary(max_size=300).map(BytesMessage),
        st.binary(max_size=125).map(Ping),
        st.binary(max_size=125).map(Pong),
    )
    return draw(st.lists(event, max_size=12))


@given(messages_sent(), st.lists(st.integers(0, 1 << 20), max_size=40))
def test_what_a_server_sends_comes_out_however_it_is_cut(
    events: list[Any], places: list[int]
) -> None:
    server = Connection(ConnectionType.SERVER)
    wire, expected, controls, text = b"", [], [], None
    for event in events:
        if isinstance(event, BytesMessage) and text is not None:
            continue  # wsproto would send it as a part of the text
        wire += server.send(event)
        if isinstance(event, TextMessage):
            text = (text or "") + event.data
            if event.message_finished:
                expected.append(text)
                text = None
        elif isinstance(event, BytesMessage):
            expected.append(bytes(event.data))
        else:
            controls.append((isinstance(event, Ping), bytes(event.payload)))
    splitter = FrameSplitter(1 << 20)
    found = [message for part in cut(wire, places) for message in splitter.feed(part)]
    assert found == expected
    assert [(c.is_ping, c.payload) for c in splitter.controls] == controls
    assert splitter.failure is None


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(0x81, b"\xff"), 1007),
        (frame(0x01, b"\xc3") + frame(0x80, b"\x28"), 1007),
        (frame(0x83), 1002),  # reserved
        (frame(0x8B), 1002),
        (frame(0xC1, b"{}"), 1002),  # compressed, which nobody offered
        (frame(0x80, b"x"), 1002),  # a part of nothing
        (frame(0x01, b"x") + frame(0x81, b"y"), 1002),
        (frame(0x09, b"x"), 1002),  # a ping in parts
        (frame(0x89, b"x" * 126), 1002),
        (b"\x81\x82" + MASK + b"xx", 1002),
        (b"\x81\x7e\x00\x7d" + b"x" * 125, 1002),  # not the shortest form
        (b"\x81\x7f" + (65535).to_bytes(8) + b"x" * 65535, 1002),
        (b"\x81\x7f" + (1 << 63).to_bytes(8), 1002),
        (frame(0x88, b"\x03"), 1002),
        (frame(0x88, (1005).to_bytes(2)), 1002),
        (frame(0x88, (999).to_bytes(2)), 1002),
        (frame(0x88, (5000).to_bytes(2)), 1002),
        (frame(0x88, (1000).to_bytes(2) + b"\xff"), 1007),
        (frame(0x81, b"x" * 1001), 1009),
        (frame(0x01, b"x" * 600) + frame(0x80, b"x" * 401), 1009),
    ],
)
def test_a_breach_ends_it_with_its_code_and_costs_nothing_that_came_before(
    wire: bytes, code: int
) -> None:
    assert split(frame(0x81, b"before") + wire + frame(0x81, b"after"), 1000) == (["before"], code)


def test_a_frame_that_is_too_long_is_refused_before_it_has_come() -> None:
    assert split(b"\x81\x7f" + (1 << 40).to_bytes(8), 1000) == ([], 1009)


def test_a_close_frame_ends_it_with_code_and_reason() -> None:
    splitter = FrameSplitter(1000)
    assert splitter.feed(frame(0x88, (3000).to_bytes(2) + b"bye") + frame(0x81, b"late")) == []
    assert [(c.code, c.reason) for c in splitter.controls] == [(3000, "bye")]
    assert splitter.feed(frame(0x81, b"later")) == []
    without = FrameSplitter(1000)
    without.feed(frame(0x88))
    assert without.controls[0].code == 1005


def test_a_frame_byte_by_byte_and_parts_without_end_take_no_room() -> None:
    splitter = FrameSplitter(100_000)
    wire = frame(0x81, b"x" * 70_000)
    assert [m for n in range(len(wire)) for m in splitter.feed(wire[n : n + 1])] == ["x" * 70_000]
    splitter.feed(frame(0x01, b"a"))
    for _ in range(1000):
        assert splitter.feed(frame(0x00)) == []
    assert splitter.feed(frame(0x80, b"b")) == ["ab"]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=20))
def test_any_bytes_are_read_the_same_however_they_are_cut(data: bytes, places: list[int]) -> None:
    whole, parts = FrameSplitter(200), FrameSplitter(200)
    assert whole.feed(data) == [m for part in cut(data, places) for m in parts.feed(part)]
    assert str(whole.failure) == str(parts.failure)


@given(st.text(max_size=70_000), st.binary(min_size=4, max_size=4))
def test_a_server_reads_what_a_client_writes(text: str, mask: bytes) -> None:
    server = Connection(ConnectionType.SERVER)
    server.receive_data(text_frame(text, mask))
    assert "".join(e.data for e in server.events() if isinstance(e, TextMessage)) == text
    server.receive_data(ping_frame(b"p", mask) + pong_frame(b"q", mask))
    assert [bytes(e.payload) for e in server.events() if isinstance(e, Ping | Pong)] == [b"p", b"q"]
    server.receive_data(close_frame(1000, mask, "done"))
    closed = next(e for e in server.events() if isinstance(e, CloseConnection))
    assert (closed.code, closed.reason) == (1000, "done")
