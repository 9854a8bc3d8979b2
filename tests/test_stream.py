"""ClientStream over memory streams, on virtual time."""

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from support.memory import MemoryStream

from trio_feed.push.edge.endpoint import bound_address, join_address
from trio_feed.push.edge.stream import ClientStream, accept

Pair = tuple[ClientStream, MemoryStream, MemoryStream]


def make_pair(send_timeout_s: float = 10.0) -> Pair:
    """(ours, the transport under it, the peer's end)."""
    transport, peer = trio.testing.memory_stream_pair()
    return ClientStream(transport, send_timeout_s=send_timeout_s), transport, peer


def freeze(transport: MemoryStream) -> None:
    """From now on a send never completes, and not even closing wakes it."""
    transport.send_stream.send_all_hook = trio.sleep_forever


async def test_both_ways_half_closed_and_closed_twice() -> None:
    one, _, other = make_pair()
    await one.send_all(b"there")
    await other.send_all(b"back")
    assert await other.receive_some() == b"there"
    assert await one.receive_some() == b"back"
    await one.send_eof()
    assert await other.receive_some() == b""
    await other.send_all(b"still open this way")
    assert await one.receive_some(5) == b"still"
    await one.aclose()
    await one.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await one.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await one.receive_some()


async def test_counts_and_remembers_when_the_peer_was_heard(autojump_clock: object) -> None:
    ours, _, peer = make_pair()
    began = ours.last_received
    await trio.sleep(7)
    await peer.send_all(b"pong")
    await ours.receive_some()
    await ours.send_all(bytes(40_000))
    await peer.send_eof()
    await trio.sleep(1)
    await ours.receive_some()
    assert (ours.bytes_in, ours.bytes_out) == (4, 40_000)
    assert ours.last_received == began + 7  # the end of the stream is not a sign of life
    assert "in=4 out=40000 open" in repr(ours)


async def test_what_many_tasks_send_is_not_interleaved() -> None:
    ours, transport, peer = make_pair()
    pump = transport.send_stream.send_all_hook
    assert pump is not None

    async def slowly() -> None:
        await trio.testing.wait_all_tasks_blocked()
        await pump()

    transport.send_stream.send_all_hook = slowly
    async with trio.open_nursery() as nursery:
        for letter in b"abcd":
            nursery.start_soon(ours.send_all, bytes([letter]) * 50_000)
    received = bytes(await peer.receive_some())
    while len(received) < 200_000:
        received += await peer.receive_some()
    runs = [received[i] for i in range(0, 200_000, 50_000)]
    assert received == b"".join(bytes([letter]) * 50_000 for letter in runs)


async def test_send_to_a_frozen_peer_ends_at_its_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, transport, _ = make_pair(send_timeout_s=10)
    freeze(transport)
    with trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"x")
    assert trio.current_time() == 10
    with pytest.raises(trio.BrokenResourceError):
        await ours.receive_some()


async def test_every_byte_taken_moves_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    ours, transport, _ = make_pair(send_timeout_s=10)

    async def nine_seconds() -> None:
        await trio.sleep(9)

    transport.send_stream.send_all_hook = nine_seconds
    await ours.send_all(bytes(5 * 16 * 1024))
    assert trio.current_time() == 45


@pytest.mark.parametrize("shielded", [False, True])
async def test_abort_ends_pending_and_waiting_operations_at_once(
    shielded: bool, autojump_clock: trio.testing.MockClock
) -> None:
    ours, transport, peer = make_pair()
    freeze(transport)
    broken: list[str] = []

    async def expect_broken(name: str, operation: Callable[[], Awaitable[object]]) -> None:
        with trio.CancelScope(shield=shielded):
            try:
                await operation()
            except trio.BrokenResourceError:
                broken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, "sending", lambda: ours.send_all(b"x"))
        nursery.start_soon(expect_broken, "waiting", lambda: ours.send_all(b"y"))
        nursery.start_soon(expect_broken, "receiving", ours.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        if shielded:
            nursery.cancel_scope.cancel()
        ours.abort()
        ours.abort()
    assert sorted(broken) == ["receiving", "sending", "waiting"]
    assert trio.current_time() == 0
    for later in (ours.receive_some, ours.send_eof, lambda: ours.send_all(b"z")):
        with pytest.raises(trio.BrokenResourceError):
            await later()
    with pytest.raises(trio.BrokenResourceError):
        await peer.send_all(b"to nobody")


async def test_close_ends_what_is_pending() -> None:
    ours, transport, _ = make_pair()
    freeze(transport)
    with pytest.RaisesGroup(trio.ClosedResourceError, trio.ClosedResourceError):
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(_shielded, lambda: ours.send_all(b"x"))
            nursery.start_soon(_shielded, ours.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            await ours.aclose()


async def _shielded(operation: Callable[[], Awaitable[object]]) -> None:
    with trio.CancelScope(shield=True):
        await operation()


async def test_half_a_frame_is_never_followed_by_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, transport, _ = make_pair()
    freeze(transport)
    with trio.move_on_after(1):
        await ours.send_all(b"half a frame")
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"another")


async def test_waiting_for_ones_turn_can_be_cancelled_without_harm(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, transport, peer = make_pair()
    pump = transport.send_stream.send_all_hook
    assert pump is not None
    go = trio.Event()

    async def when_told() -> None:
        await go.wait()
        await pump()

    transport.send_stream.send_all_hook = when_told
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"first")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await ours.send_all(b"never sent")
        go.set()
    await ours.send_all(b" second")
    assert await peer.receive_some() == b"first second"


async def test_after_finish_input_is_thrown_away_until_the_peer_closes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, _, peer = make_pair()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            assert await ours.receive_some() == b""

        await trio.testing.wait_all_tasks_blocked()
        ours.finish(within_s=5)
        await peer.send_all(b"unheard")
        await ours.send_all(b"last word")
        await trio.sleep(1)
        await peer.send_eof()
    assert trio.current_time() == 1
    assert ours.bytes_in == 7


@pytest.mark.parametrize("noisy", [False, True])
async def test_after_finish_the_end_comes_in_time(
    noisy: bool, autojump_clock: trio.testing.MockClock
) -> None:
    ours, _, peer = make_pair()

    async def never_stop() -> None:
        while noisy:
            await peer.send_all(bytes(1000))
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            with trio.fail_after(100):
                assert await ours.receive_some() == b""
            nursery.cancel_scope.cancel()

        await trio.testing.wait_all_tasks_blocked()
        ours.finish(within_s=5)
        nursery.start_soon(never_stop)
    assert trio.current_time() == pytest.approx(5)


class _Full(trio.abc.Listener[trio.abc.Stream]):
    """``accept`` fails with these errors, then gives a stream."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise OSError(self.errors.pop(0), "said the kernel")
        return trio.testing.memory_stream_pair()[0]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_accept_outlasts_a_shortage(autojump_clock: trio.testing.MockClock) -> None:
    listener = _Full(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
    stream = await accept(listener, send_timeout_s=1)
    assert stream.peer == "memory"


async def test_accept_passes_on_what_will_not_mend() -> None:
    with pytest.raises(OSError, match="said the kernel"):
        await accept(_Full(errno.EINVAL), send_timeout_s=1)


def test_addresses() -> None:
    class Memory:
        host, port = "::1", 80

    assert join_address("127.0.0.1", 80) == "127.0.0.1:80"
    assert bound_address(Memory()) == "[::1]:80"  # type: ignore[arg-type]


def test_hypercorn_takes_it_for_a_plain_stream() -> None:
    assert not hasattr(ClientStream, "do_handshake")
