"""Client frames, checked and inflated (RFC 6455, RFC 7692)."""

import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_feed.push.edge.inflate import Control, FrameRefused, InboundFrames, unmasked
from trio_feed.push.edge.throttle import TokenBucket

MASK = b"\x01\x02\x03\x04"
RSV1, FIN = 0x40, 0x80
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(first: int, payload: bytes = b"", mask: bytes = MASK, announced: int = -1) -> bytes:
    """A client's frame; ``announced``: the length that it claims."""
    size = len(payload) if announced < 0 else announced
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2)
    else:
        length = b"\xff" + size.to_bytes(8)
    return bytes([first]) + length + mask + unmasked(payload, mask)


def deflated(payload: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(
        b"\x00\x00\xff\xff"
    )


def inbound(most: int, *, deflate: bool = False, burst: int = 10_000) -> InboundFrames:
    buckets = [TokenBucket(per_s=10, burst=burst) for _ in range(2)]
    return InboundFrames(most, *buckets, deflate=deflate)


def code_of(data: bytes, *, most: int = 1000, deflate: bool = True) -> int:
    with pytest.raises(FrameRefused) as caught:
        inbound(most, deflate=deflate).feed(data, 0.0)
    return caught.value.code


def test_messages_come_out_whole_and_control_frames_at_once() -> None:
    frames = inbound(1000)
    ping = frame(FIN | PING, b"hey")
    sent = frame(TEXT, b"he") + ping + frame(FIN, b"llo") + frame(FIN | BINARY, bytes(300))
    assert frames.feed(sent, 0.0) == [Control(PING, b"hey"), "hello", bytes(300)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
def test_every_length(size: int) -> None:
    payload = bytes(size)
    assert inbound(size).feed(frame(FIN | BINARY, payload), 0.0) == [payload]
    if size:
        assert code_of(frame(FIN | BINARY, payload), most=size - 1) == 1009


def test_a_bound_in_bytes_not_characters() -> None:
    text = "\u20ac".encode() * 334  # 1002 bytes, 334 characters
    assert code_of(frame(FIN | TEXT, text)) == 1009


def test_too_big_is_known_from_the_head_alone() -> None:
    head = frame(FIN | TEXT, announced=2**40)[:10]
    assert code_of(head) == 1009
    first = frame(TEXT, bytes(600))
    assert code_of(first + frame(0, announced=401)[:4]) == 1009
    assert code_of(frame(FIN | RSV1 | TEXT, announced=1066)[:4]) == 1009


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_where_the_bytes_are_cut_makes_no_difference(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text(max_size=200), min_size=1, max_size=5))
    wire = b""
    for text in texts:
        compressed = data.draw(st.booleans())
        payload = deflated(text.encode()) if compressed else text.encode()
        cut = data.draw(st.integers(0, len(payload)))
        first = TEXT | (RSV1 if compressed else 0)
        wire += frame(first, payload[:cut]) + frame(FIN | PONG, b"x") + frame(FIN, payload[cut:])
    whole = inbound(10_000, deflate=True).feed(wire, 0.0)
    assert [item for item in whole if not isinstance(item, Control)] == texts
    frames, at = inbound(10_000, deflate=True), 0
    pieces: list[str | bytes | Control] = []
    while at < len(wire):
        step = data.draw(st.integers(1, 50))
        pieces += frames.feed(wire[at : at + step], 0.0)
        at += step
    assert pieces == whole


def said(frames: InboundFrames, payload: bytes, *, cut: int | None = None) -> bytes:
    """What comes out of one compressed message."""
    if cut is None:
        [message] = frames.feed(frame(FIN | RSV1 | TEXT, payload), 0.0)
    else:
        assert frames.feed(frame(RSV1 | TEXT, payload[:cut]), 0.0) == []
        [message] = frames.feed(frame(FIN, payload[cut:]), 0.0)
    assert isinstance(message, str)
    return message.encode()


def test_inflated_in_one_piece_in_two_and_again() -> None:
    frames = inbound(1000, deflate=True)
    payload = deflated(b'{"type":"ping"}')
    assert said(frames, payload) == b'{"type":"ping"}'
    for cut in range(len(payload) + 1):
        assert said(frames, payload, cut=cut) == b'{"type":"ping"}'
    assert said(frames, deflated(b"")) == b""
    assert said(frames, b"\x00") == b""  # an empty message as RFC 7692, 7.2.3.6 has it
    assert said(frames, deflated(bytes(1000))) == bytes(1000)


def test_a_last_block_that_is_marked_as_such() -> None:
    packer = zlib.compressobj(wbits=-15)
    final = packer.compress(b"Hello") + packer.flush(zlib.Z_FINISH)  # BFINAL; RFC 7692, 7.2.3.4
    assert said(inbound(1000, deflate=True), final + b"\x00") == b"Hello"
    assert code_of(frame(FIN | RSV1 | TEXT, final + b"\x00more")) == 1007


def test_a_zip_bomb_ends_at_the_bound() -> None:
    bomb = deflated(bytes(50_000_000))
    tracemalloc.start()
    try:
        assert code_of(frame(FIN | RSV1 | BINARY, bomb), most=65_536) == 1009
        pieces = [bomb[start : start + 1000] for start in range(0, len(bomb), 1000)]
        first, *others = pieces
        in_pieces = frame(RSV1 | BINARY, first) + b"".join(frame(0, piece) for piece in others)
        assert code_of(in_pieces, most=65_536) == 1009
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_exactly_the_bound_and_one_more() -> None:
    frames = inbound(1000, deflate=True)
    assert said(frames, deflated(b"a" * 1000)) == b"a" * 1000
    assert code_of(frame(FIN | RSV1 | TEXT, deflated(b"a" * 1001))) == 1009


HEAD_TOO_LONG = bytes([FIN | TEXT, 0xFE, 0, 5]) + MASK + b"hello"
BROKEN = {
    "deflate that is none": (frame(FIN | RSV1 | TEXT, b"\xff\xff\xff"), 1007),
    "text that is not UTF-8": (frame(FIN | TEXT, b"\xff\xfe"), 1007),
    "half a character at the end": (frame(FIN | TEXT, "\u20ac".encode()[:2]), 1007),
    "inflated text not UTF-8": (frame(FIN | RSV1 | TEXT, deflated(b"\xff")), 1007),
    "close reason not UTF-8": (frame(FIN | CLOSE, b"\x03\xe8\xff"), 1007),
    "not masked": (b"\x81\x05hello", 1002),
    "opcode 3": (frame(FIN | 3), 1002),
    "opcode 11": (frame(FIN | 11), 1002),
    "rsv2": (frame(FIN | 0x20 | TEXT), 1002),
    "rsv3": (frame(FIN | 0x10 | TEXT), 1002),
    "rsv1 on a ping": (frame(FIN | RSV1 | PING), 1002),
    "rsv1 on a continuation": (frame(TEXT, b"a") + frame(FIN | RSV1, b"b"), 1002),
    "ping in pieces": (frame(PING), 1002),
    "long ping": (frame(FIN | PING, bytes(126)), 1002),
    "continuation of nothing": (frame(FIN, b"a"), 1002),
    "text inside a text": (frame(TEXT, b"a") + frame(FIN | TEXT, b"b"), 1002),
    "length in too many bytes": (HEAD_TOO_LONG, 1002),
    "length beyond 63 bits": (bytes([FIN | TEXT, 0xFF]) + b"\xff" * 8 + MASK, 1009),
    "close of one byte": (frame(FIN | CLOSE, b"\x03"), 1002),
    "close 999": (frame(FIN | CLOSE, (999).to_bytes(2)), 1002),
    **{
        f"close {code}": (frame(FIN | CLOSE, code.to_bytes(2)), 1002)
        for code in (1004, 1005, 1006, 1015, 1016, 2999, 5000)
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_rule_has_its_code(name: str) -> None:
    data, code = BROKEN[name]
    assert code_of(data) == code
    frames = inbound(1000, deflate=True)
    with pytest.raises(FrameRefused):
        any(frames.feed(bytes([byte]), 0.0) is None for byte in data)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1014, 3000, 4999])
def test_a_close_may_have_these_codes(code: int) -> None:
    """RFC 6455, 7.4."""
    any(inbound(1000).feed(frame(FIN | CLOSE, code.to_bytes(2)), 0.0))


def test_compression_that_was_not_agreed_to() -> None:
    data = frame(FIN | RSV1 | TEXT, deflated(b"hello"))
    assert code_of(data, deflate=False) == 1002


def test_what_follows_a_close_is_not_looked_at() -> None:
    frames = inbound(1000)
    close = frame(FIN | CLOSE, b"\x03\xe8bye")
    assert frames.feed(close + b"\xff" * 50, 0.0) == [Control(CLOSE, b"\x03\xe8bye")]
    assert frames.closed
    assert frames.feed(b"\xff" * 50, 0.0) == []


@pytest.mark.parametrize("name", BROKEN)
def test_after_a_refusal_the_clients_close_is_still_found(name: str) -> None:
    data, _ = BROKEN[name]
    frames = inbound(1000, deflate=True)
    with pytest.raises(FrameRefused):
        frames.feed(data, 0.0)
    if name == "length beyond 63 bits":
        return  # nothing can come behind that
    rest = frame(FIN | BINARY, bytes(70_000)) + frame(TEXT, b"a") + b"\x89\x00"
    for start in range(0, len(rest), 1000):
        frames.skip(rest[start : start + 1000])
        assert frames.closed is ("close" in name)
    frames.skip(frame(FIN | CLOSE, b"\x03\xe8"))
    assert frames.closed


@pytest.mark.parametrize("kind", [FIN | PING, FIN | TEXT])
def test_frames_beyond_the_rate_are_a_flood(kind: int) -> None:
    frames = inbound(1000, burst=100)
    frames.feed(frame(kind) * 100, 0.0)
    frames.feed(frame(kind) * 10, 1.0)
    frames.feed(frame(kind ^ (PING ^ TEXT)) * 100, 1.0)  # the other kind has its own rate
    with pytest.raises(FrameRefused) as caught:
        frames.feed(frame(kind), 1.0)
    assert caught.value.code == 1008
