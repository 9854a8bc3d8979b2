"""TLS over memory streams: all that has come is read at once, and every end is seen."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import trustme

from trio_feed.net.tls_stream import TlsStream

AUTHORITY = trustme.CA()


@asynccontextmanager
async def joined(
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> AsyncIterator[tuple[TlsStream, trio.SSLStream[trio.abc.Stream]]]:
    """Our end and trio's own, after the handshake."""
    near, far = trio.testing.memory_stream_pair()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("exchange").configure_cert(server)
    server.maximum_version = version
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    ours = TlsStream(near, client, "exchange")
    theirs = trio.SSLStream(far, server, server_side=True, https_compatible=True)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.do_handshake)
            nursery.start_soon(theirs.do_handshake)
        yield ours, theirs


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_records_that_have_come_are_read_at_once(
    version: ssl.TLSVersion, autojump_clock: trio.abc.Clock
) -> None:
    async with joined(version) as (ours, theirs):
        for n in range(50):
            await theirs.send_all(b"%02d" % n)
        assert await ours.receive_some() == b"".join(b"%02d" % n for n in range(50))
        await ours.send_all(b"back")
        assert await theirs.receive_some() == b"back"


async def test_no_more_is_read_than_asked_for(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ours, theirs):
        await theirs.send_all(b"x" * 50_000)
        await theirs.send_all(b"y" * 10)
        sizes, read = [], b""
        while len(read) < 50_010:
            read += (part := await ours.receive_some(7000))
            sizes.append(len(part))
        assert max(sizes) == 7000
        assert read == b"x" * 50_000 + b"y" * 10


async def test_what_lies_below_can_be_found(autojump_clock: trio.abc.Clock) -> None:
    """:mod:`.net.http` looks for the socket, to see whether a kept connection has ended."""
    async with joined() as (ours, _):
        below = ours.transport_stream
        assert below is not ours
        assert isinstance(below, trio.StapledStream)


async def test_a_cancelled_read_loses_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ours, theirs):
        with trio.move_on_after(1) as scope:
            await ours.receive_some()
        assert scope.cancelled_caught
        await theirs.send_all(b"later")
        assert await ours.receive_some() == b"later"


@pytest.mark.parametrize("how", ["alert", "without an alert"])
async def test_the_end_comes_after_what_was_sent(how: str, autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ours, theirs):
        await theirs.send_all(b"last")
        await (theirs if how == "alert" else theirs.transport_stream).aclose()
        assert await ours.receive_some() == b"last"
        for _ in range(2):
            assert await ours.receive_some() == b""


async def test_a_broken_record_breaks_it_after_what_was_right(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with joined() as (ours, theirs):
        await theirs.send_all(b"right")
        await theirs.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        assert await ours.receive_some() == b"right"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError) as caught:
                await ours.receive_some()
            assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_closing_says_goodbye_and_waits_for_nobody(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ours, theirs):
        began = trio.current_time()
        await ours.aclose()
        assert trio.current_time() == began
        assert await theirs.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")


async def test_large_data_passes_both_ways_at_once(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ours, theirs):
        data = bytes(range(256)) * 8192  # 2 MiB
        found = {}

        async def read(name: str, stream: trio.abc.Stream) -> None:
            got = bytearray()
            while len(got) < len(data):
                got += await stream.receive_some()
            found[name] = bytes(got)

        async with trio.open_nursery() as nursery:
            for name, stream in (("ours", ours), ("theirs", theirs)):
                nursery.start_soon(stream.send_all, data)
                nursery.start_soon(read, name, stream)
        assert found == {"ours": data, "theirs": data}
