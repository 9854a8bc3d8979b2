"""What the local bus says, as items of the wire for nodes in other processes."""

from collections.abc import Callable, Iterator, Mapping
from itertools import count

from ..model import Channel, StatusMessage
from . import wire
from .base import Published, Stream
from .local import LocalStream


class Outgoing:
    """A listener of the :class:`.local.LocalBus`.  ``put`` gets each item in the synchronous moment
    of its event, in order.  ``past`` False: nodes know where to find what was published before;
    of it they get the last closed candle only, and no ring."""

    def __init__(self, put: Callable[[wire.Item], None], *, past: bool = True) -> None:
        self._put, self._past = put, past
        self._next = count(1)
        self._numbers: dict[Stream, int] = {}
        self._streams: dict[int, LocalStream] = {}
        self._aliases: dict[str, str] = {}

    @property
    def streams(self) -> list[int]:
        """The numbers of those that are open."""
        return list(self._streams)

    @property
    def numbered(self) -> Mapping[int, LocalStream]:
        """Those that are open, by number."""
        return self._streams

    def number_of(self, stream: LocalStream) -> int:
        """Of one that is open."""
        return self._numbers[stream]

    def aliases(self) -> Iterator[wire.Aliased]:
        """All of them, for a node that knows nothing yet."""
        return (wire.Aliased(native, symbol) for native, symbol in self._aliases.items())

    def snapshot(self, number: int) -> wire.Opened | None:
        """A stream as it stands now; None: it is closed."""
        stream = self._streams.get(number)
        if stream is None:
            return None
        ring = None
        recent = list(stream.recent) if self._past else [*stream.recent][-1:]
        if self._past and stream.ring is not None:
            ring = [self._sent(number, stream, published) for published in stream.ring]
        return wire.opened(
            number,
            stream.stream_key,
            epoch=stream.epoch,
            offset=stream.offset,
            first_ms=stream.first_ms,
            sparse=stream.sparse,
            revisions=stream.revisions,
            connected=stream.connected,
            waiting=stream.waiting,
            recent=recent,
            latest=self._perhaps(number, stream, stream.latest),
            provisional=self._perhaps(number, stream, stream.provisional),
            status=None if stream.status is None else wire.status_item(number, stream.status),
            ring=ring,
            revised=stream.revised,
        )

    def keep(self, number: int) -> None:
        """Somebody subscribed at one node: all keep the stream's messages from now on."""
        stream = self._streams.get(number)
        if stream is not None and stream.ring is None:
            stream.keep()
            self._put(wire.Kept(number))

    # From the bus

    def opened(self, stream: Stream) -> None:
        assert isinstance(stream, LocalStream), "it listens to the local bus"
        # Of trades that nobody wants only the last is handed out, and that somebody wants them is
        # known here later than at the node.
        if getattr(stream.stream_key, "channel", None) is Channel.TRADE:
            stream.keep()
        number = self._numbers[stream] = next(self._next)
        self._streams[number] = stream
        item = self.snapshot(number)
        assert item is not None, "it was opened just now"
        self._put(item)

    def closed(self, stream: Stream) -> None:
        number = self._numbers.pop(stream)
        self._put(wire.Closed(number))
        del self._streams[number]

    def aliased(self, native: str, symbol: str) -> None:
        self._aliases[native] = symbol
        self._put(wire.Aliased(native, symbol))

    def published(self, stream: Stream, published: Published) -> None:
        assert isinstance(stream, LocalStream), "it listens to the local bus"
        self._put(self._sent(self._numbers[stream], stream, published))

    def status_changed(self, stream: Stream, status: StatusMessage) -> None:
        self._put(wire.status_item(self._numbers[stream], status))

    def described(self, stream: Stream) -> None:
        assert isinstance(stream, LocalStream), "it listens to the local bus"
        self._put(wire.Described(self._numbers[stream], stream.first_ms, stream.waiting))

    def _perhaps(
        self, number: int, stream: LocalStream, published: Published | None
    ) -> wire.Sent | None:
        return None if published is None else self._sent(number, stream, published)

    def _sent(self, number: int, stream: LocalStream, published: Published) -> wire.Sent:
        return wire.sent(
            number,
            published.message,
            published.sent_ms,
            ephemeral=published.ephemeral,
            provisional=published.provisional,
            remembered=published is stream.provisional,
        )
