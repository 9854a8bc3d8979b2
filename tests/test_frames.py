"""Frames, checked with wsproto, which others wrote."""

import zlib

import pytest
from wsproto import Connection, ConnectionType
from wsproto.events import Ping, TextMessage
from wsproto.extensions import PerMessageDeflate

from trio_feed.push.fanout.frames import PING, deflate, payload_of, reply_frame, text_frame

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]


def read(*frames: bytes, deflated: bool = False) -> list[str]:
    extension = PerMessageDeflate(client_no_context_takeover=True, server_no_context_takeover=True)
    extension._enabled = deflated
    client = Connection(ConnectionType.CLIENT, [extension] if deflated else [])
    client.receive_data(b"".join(frames))
    texts = [""]
    for event in client.events():
        assert isinstance(event, TextMessage)
        texts[-1] += event.data
        if event.message_finished:
            texts.append("")
    return texts[:-1]


@pytest.mark.parametrize("size", SIZES)
def test_pieces_become_one_frame(size: int) -> None:
    text = "é" * (size // 2) + "x" * (size % 2)
    frame = text_frame(text.encode(), b"", b"!")
    assert read(frame, frame) == [text + "!"] * 2
    assert payload_of(frame) == text.encode() + b"!"


@pytest.mark.parametrize("size", SIZES)
def test_compressed_pieces_become_one_frame(size: int) -> None:
    head, tail = deflate(b'{"type":"kline_data",'), deflate(b'"type"' * size)
    frames = [text_frame(head, tail, deflated=True), text_frame(b"plain between")]
    expected = '{"type":"kline_data",' + '"type"' * size
    assert read(*frames, *frames, deflated=True) == [expected, "plain between"] * 2


def test_pieces_refer_to_nothing_before_them() -> None:
    """Whatever was sent before, or nothing: a client that forgets and one that does not agree."""
    piece = deflate(b"the same words, the same words")
    for before in (b"", piece, deflate(b"other words")):
        reader = zlib.decompressobj(-15)
        reader.decompress(before)
        assert reader.decompress(piece) == b"the same words, the same words"


def test_short_replies_stay_plain() -> None:
    long = "x" * 1000
    assert reply_frame("short", deflated=True) == text_frame(b"short")
    assert reply_frame(long, deflated=False) == text_frame(long.encode())
    assert len(reply_frame(long, deflated=True)) < 100
    assert read(reply_frame(long, deflated=True), deflated=True) == [long]


def test_ping() -> None:
    client = Connection(ConnectionType.CLIENT, [])
    client.receive_data(PING)
    assert list(client.events()) == [Ping()]
