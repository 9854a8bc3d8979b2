"""What the feeds of this node publish goes into the logs of the shards that it owns.  Synchronous.

A listener of the local bus: :class:`..outgoing.Outgoing` makes items of what is published, and each
goes to the :class:`.owner.Owner` of its shard.  What is published of other shards goes nowhere.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from ...model import Channel, ChannelKey, Series, StreamKey
from .. import wire
from ..local import LocalBus
from ..outgoing import Outgoing
from .base import EntryId
from .heads import Heads
from .owner import Owner

_EVENTS = (Channel.TRADE, Channel.LIQUIDATION)

ShardOf = Callable[[str, str], str]
"""(venue, symbol) -> shard."""
Pending = Callable[[], Mapping[Series, int]]
"""Of each series of which something is not on the disk: the open time of the oldest such candle."""


class Writing:
    """``oldest_pending``: see :data:`Pending`."""

    def __init__(
        self,
        bus: LocalBus,
        shard_of: ShardOf,
        oldest_pending: Pending,
        *,
        keep_s: float,
        buffer_bytes: int,
    ) -> None:
        self._bus, self.shard_of, self._pending = bus, shard_of, oldest_pending
        self._keep_s, self._buffer_bytes = keep_s, buffer_bytes
        self.wake: Callable[[], None] = lambda: None
        """Called when something is to be appended."""
        self.owners: dict[str, Owner] = {}
        self._shards: dict[int, str] = {}
        """By number of a stream."""
        self._unsaved: dict[Series, deque[wire.Candle]] = {}
        self._heads: dict[str, Heads] = {}
        self._outgoing = Outgoing(self._put, past=False)
        bus.listen(self._outgoing)

    def __repr__(self) -> str:
        return f"<Writing {' '.join(self.owners)}>"

    def begin(self, shard: str, epoch: int, previous: EntryId, heads: Heads) -> Owner:
        """This node owns the shard: its streams are numbered anew, and an opening checkpoint comes
        first.  ``heads``: where the log ends."""
        self._heads[shard] = heads
        self._bus.begin(self._keys_of(shard), epoch)
        owner = self.owners[shard] = Owner(
            shard,
            epoch,
            previous,
            lambda opening: self._checkpoint(shard, opening=opening),
            keep_s=self._keep_s,
            buffer_bytes=self._buffer_bytes,
        )
        self.wake()
        return owner

    def seal(self, shard: str) -> None:
        """It is about to be given up: what the feed says when it ends is nobody's concern."""
        if (owner := self.owners.get(shard)) is not None:
            owner.seal()

    def end(self, shard: str) -> None:
        """It is not ours any more."""
        self.owners.pop(shard, None)
        self._heads.pop(shard, None)
        for series in [s for s in self._unsaved if self.shard_of(s.venue, s.symbol) == shard]:
            del self._unsaved[series]

    def epoch_of(self, stream_key: StreamKey) -> int:
        """That of new streams."""
        owner = self.owners.get(self.shard_of(stream_key.venue, stream_key.symbol))
        return 0 if owner is None else owner.epoch

    def _keys_of(self, shard: str) -> list[StreamKey]:
        streams = self._outgoing.numbered.values()
        keys = (stream.stream_key for stream in streams)
        return [key for key in keys if self.shard_of(key.venue, key.symbol) == shard]

    def _put(self, item: wire.Item) -> None:
        if isinstance(item, wire.Aliased):
            for owner in self.owners.values():
                owner.put(item)
            return
        if isinstance(item, wire.Checkpoint):
            return
        number = item.stream
        shard = self._shards.get(number)
        if shard is None:
            key = self._outgoing.numbered[number].stream_key
            shard = self._shards[number] = self.shard_of(key.venue, key.symbol)
        if isinstance(item, wire.Closed):
            del self._shards[number]
        if (owned := self.owners.get(shard)) is None:
            return
        if isinstance(item, wire.Candle):
            self._note_closed(item)
        owned.put(item)
        self.wake()

    def _note_closed(self, item: wire.Candle) -> None:
        if item.flags & wire.Flags.CLOSED and not item.flags & wire.Flags.EPHEMERAL:
            series = self._outgoing.numbered[item.stream].stream_key
            assert isinstance(series, Series), "a candle is of a series"
            self._unsaved.setdefault(series, deque()).append(item)

    def _still_unsaved(
        self, series: Series, pending: Mapping[Series, int]
    ) -> Iterable[wire.Candle]:
        """Those that the store may not have yet; what it has is forgotten here."""
        candles = self._unsaved.get(series)
        if candles is None:
            return ()
        oldest_ms = pending.get(series)
        while candles and (oldest_ms is None or candles[0].open_ms < oldest_ms):
            candles.popleft()
        if not candles:
            del self._unsaved[series]
        return candles

    def _checkpoint(self, shard: str, *, opening: bool) -> wire.Checkpoint:
        pending, heads = self._pending(), self._heads[shard]
        streams, unsaved = list[wire.Opened](), list[wire.Candle]()
        before, lost = dict[int, tuple[int, int]](), list[int]()
        for number, stream in self._outgoing.numbered.items():
            key = stream.stream_key
            if self.shard_of(key.venue, key.symbol) != shard:
                continue
            found = self._outgoing.snapshot(number)
            assert found is not None, "it is open"
            streams.append(found)
            if isinstance(key, Series):
                unsaved += self._still_unsaved(key, pending)
            if opening:
                head = heads.numbers.get(key)
                before[number] = head or (0, 0)
                if isinstance(key, ChannelKey) and key.channel in _EVENTS and head is not None:
                    lost.append(number)
        aliases = list(self._outgoing.aliases())
        return wire.Checkpoint(opening, streams, aliases, before, lost, unsaved)
