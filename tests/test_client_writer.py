"""The writes to one client: what becomes of them when it has gone."""

import trio

from trio_feed.push.fanout.coalescing import WriteCoalescer
from trio_feed.push.fanout.frames import text_frame
from trio_feed.push.fanout.send_queue import QueuedFrame, SendQueue
from trio_feed.push.fanout.transport import TextTransport
from trio_feed.push.fanout.writer import Writer


async def test_who_has_gone_before_the_coalescers_turn_is_written_no_more() -> None:
    """It is scheduled, and its nursery is closed: nothing of the others may fail by that."""
    coalescer = WriteCoalescer()
    gone, there = [], []

    async def took(texts: list[str], text: str) -> None:
        texts.append(text)

    def writer(texts: list[str]) -> Writer:
        transport = TextTransport(lambda text: took(texts, text))  # takes nothing at once
        return Writer(transport, SendQueue(10, 1000), coalescer, lambda _: None)

    async with trio.open_nursery() as nursery:
        stays = writer(there)
        stays.start(nursery)
        async with trio.open_nursery() as own:
            leaves = writer(gone)
            leaves.start(own)
            assert leaves.push(QueuedFrame(text_frame(b"1"), 0))
            own.cancel_scope.cancel()  # as ClientSender does at the end of a client
        assert stays.push(QueuedFrame(text_frame(b"2"), 0))
        coalescer.turn()
    assert (gone, there) == ([], ["2"])
