"""One client's sender at its end: what was scheduled before it went is nobody's business after."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import ChannelNews
from trio_feed.metrics import Metrics
from trio_feed.model import BookTop, Channel, ChannelKey, Source
from trio_feed.push.fanout.encoded import prefix_of
from trio_feed.push.fanout.hub import Hub
from trio_feed.push.fanout.send_queue import SendQueue
from trio_feed.push.fanout.sender import ClientSender
from trio_feed.push.fanout.topics import Subscription
from trio_feed.push.fanout.voice import NativeVoice
from trio_feed.push.protocol import Subscribe, Target

KEY = ChannelKey("okx", "BTCUSDT", Channel.BBO)


class OverTLS:
    """Takes nothing at once."""

    peer, last_received, bytes_out, behind, unsent, ready_fd = "x", 0.0, 0, False, 0, -1

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write_now(self, frames: Sequence[bytes]) -> int:
        return 0

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        self.sent += frames

    def abort(self) -> None: ...


async def test_who_goes_with_messages_waiting_harms_nobody() -> None:
    """Over TLS every message waits for the coalescer's turn, which may come after the end."""
    bus = LocalBus(epoch=1, history_rows=1, resume_messages=5, now_ms=lambda: 0.0)
    hub = Hub(bus, default_venue="okx", now_ms=lambda: 0.0, metrics=Metrics())
    bus.open(KEY)
    transport = OverTLS()

    async def close(code: int, reason: str) -> None:
        raise AssertionError("it went by itself")

    sender = ClientSender(
        hub,
        SendQueue(10, 10_000),
        lambda: 0.0,
        Metrics(),
        transport,
        cast("NativeVoice", SimpleNamespace()),
        deflated=False,
    )
    target = Target("BTCUSDT", Channel.BBO, None, "", "okx")
    topic = hub.topic(KEY)
    assert topic is not None
    request = Subscribe(target, None, None, None)
    async with sender.serving(close):
        form = prefix_of(target, None, deflated=False)
        sender.subscribe(Subscription(sender, topic, request, form))
        bus.publish(
            ChannelNews(KEY, BookTop("BTCUSDT", None, None, None, None), Source.EXCHANGE, 0.0)
        )
        assert hub.coalescer.busy
    while hub.coalescer.busy:
        hub.coalescer.turn()
    assert transport.sent == []
