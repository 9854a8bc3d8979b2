"""What the feeds of this node publish goes into the logs of the shards that it owns.  Synchronous.

A listener of the local bus: :class:`..outgoing.Outgoing` makes items of what is published, and each
goes to the :class:`.owner.Owner` of its shard.  What is published of other shards goes nowhere.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from attrs import define, field

from ...model import ChannelKey, KlineMessage, Series, StreamKey
from .. import wire
from ..base import EVENTS, Numbered
from ..local import LocalBus, LocalStream
from ..outgoing import Outgoing
from .base import EntryId
from .heads import Heads
from .owner import Owner
from .shadow import Shadow

ShardOf = Callable[[str, str], str]
"""(venue, symbol) -> shard."""
Pending = Callable[[], Mapping[Series, int]]
"""Of each series of which something is not on the disk: the open time of the oldest such candle."""


@define
class Follow:
    """What follows the end of a log.  ``cut``: series whose candles of ``messages`` are behind the
    opening checkpoint; ``lost``: event streams of which something may be missing."""

    messages: list[Numbered] = field(factory=list)
    cut: set[Series] = field(factory=set)
    lost: set[StreamKey] = field(factory=set)


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
        self.shadow: Shadow | None = None
        """In hot standby."""
        self._outgoing = Outgoing(self._put, past=False)
        bus.listen(self._outgoing)

    def __repr__(self) -> str:
        return f"<Writing {' '.join(self.owners)}>"

    def begin(self, shard: str, epoch: int, previous: EntryId) -> Owner:
        """This node owns the shard: streams that are opened from now on are numbered in its epoch.
        Nothing is said of it before :meth:`start`."""
        before = self.owners.get(shard)
        owner = self.owners[shard] = Owner(
            shard,
            epoch,
            previous,
            lambda: self._checkpoint(shard),
            keep_s=self._keep_s,
            buffer_bytes=self._buffer_bytes,
        )
        owner.follow(before)
        return owner

    def start(self, shard: str, heads: Heads, ends: Mapping[Series, int]) -> Follow:
        """All its streams are numbered anew, and the opening checkpoint says how they stand.

        ``heads``: where the log ends; ``ends``: open times of the last closed candles in the
        database.  What the shadow has behind these is said next.  Returns what follows, a message
        for the store among them; of events that the shadow lacks readers are told."""
        owner, streams_of = self.owners[shard], self._streams_of(shard)
        unsaid = self._unsaid(owner, streams_of, heads)
        follow = self._follow(streams_of, heads, ends, owner.epoch, unsaid)
        self._bus.begin(streams_of, owner.epoch)
        for key, stream in streams_of.items():
            if isinstance(key, Series):
                stream.revised = max(stream.revised, heads.revised.get(key, (0, 0)))
        opening = self._checkpoint(shard)
        before, lost, streams = dict[int, tuple[int, int]](), list[int](), list[wire.Opened]()
        for opened in opening.streams:
            key = opened.stream_key
            before[opened.stream] = heads.numbers.get(key, (0, 0))
            if key in heads.numbers and key in follow.lost:
                lost.append(opened.stream)
            if isinstance(key, Series) and key in follow.cut:
                opened = self._cut(opened, ends[key])
            streams.append(opened)
        owner.start(
            msgspec.structs.replace(
                opening, opening=True, streams=streams, before=before, lost=lost
            )
        )
        self.wake()
        return follow

    def _unsaid(
        self, owner: Owner, streams: Mapping[StreamKey, LocalStream], heads: Heads
    ) -> dict[StreamKey, list[Numbered]]:
        """By event stream what this node has to say behind the last that it said, where it goes on
        in a log that lost its end; and that last one's number is noted in ``heads``."""
        held, found = owner.take_held(), dict[StreamKey, list[Numbered]]()
        if held is None:
            return {}
        by_number = defaultdict[int, list[wire.Sent]](list)
        for item in held:  # of which there may be as many as engine.buffer_bytes has room for
            if isinstance(item, wire.Candle | wire.Line) and not item.flags & wire.Flags.EPHEMERAL:
                by_number[item.stream].append(item)
        for key, stream in streams.items():
            if stream.epoch == owner.epoch:
                continue  # it was opened since
            items = by_number.get(self._outgoing.number_of(stream), [])
            said = stream.epoch, stream.offset
            if items:
                said = items[0].epoch, items[0].offset - 1
            if heads.numbers.get(key, (0, 0)) > said:
                continue  # another node wrote meanwhile
            heads.numbers[key] = said
            if isinstance(key, ChannelKey) and key.channel in EVENTS:
                found[key] = [wire.message_of(key, item) for item in items]
        return found

    def _follow(
        self,
        streams: Mapping[StreamKey, LocalStream],
        heads: Heads,
        ends: Mapping[Series, int],
        epoch: int,
        unsaid: Mapping[StreamKey, list[Numbered]],
    ) -> Follow:
        follow = Follow()
        for key, stream in streams.items():
            if isinstance(key, Series):
                found = self._shadowed(key, stream, ends)
                if key in ends and found:
                    follow.messages += found
                    follow.cut.add(key)
            elif key in unsaid:
                follow.messages += unsaid[key]
            elif key.channel in EVENTS:
                last = heads.last_trade(key)
                trades: Sequence[Numbered] | None = None
                is_new = (stream.epoch, stream.offset) == (epoch, 0)
                if last is not None and is_new:
                    trades = ()  # it was opened for us, and its feed goes on behind that one
                elif last is not None and self.shadow is not None:
                    trades = self.shadow.trades_after(key, last)
                if trades is None:
                    follow.lost.add(key)
                else:
                    follow.messages += trades
        return follow

    def _cut(self, opened: wire.Opened, end_ms: int) -> wire.Opened:
        """As it stood when the log ended; what followed is said behind it."""
        stream = self._outgoing.numbered[opened.stream]
        there = [pair for pair in stream.recent if pair[0].open_ms <= end_ms]
        recent = [(wire.candle_bytes(kline), count) for kline, count in there[-1:]]
        return msgspec.structs.replace(opened, recent=recent, latest=None)

    def seal(self, shard: str) -> None:
        """It is about to be given up: what the feed says when it ends is nobody's concern."""
        if (owner := self.owners.get(shard)) is not None:
            owner.seal()

    def end(self, shard: str) -> None:
        """It is not ours any more."""
        self.owners.pop(shard, None)
        self._bus.begin(
            self._streams_of(shard), 0
        )  # what is published on has no number that counts
        for series in [s for s in self._unsaved if self.shard_of(s.venue, s.symbol) == shard]:
            del self._unsaved[series]

    def epoch_of(self, stream_key: StreamKey) -> int:
        """That of new streams."""
        owner = self.owners.get(self.shard_of(stream_key.venue, stream_key.symbol))
        return 0 if owner is None else owner.epoch

    def say_again(self, message: Numbered) -> Numbered:
        """See :meth:`..local.LocalBus.say_again`."""
        return self._bus.say_again(message)

    def torn(self, shard: str, ends: Mapping[Series, int]) -> set[str]:
        """Symbols that are fed already and do not go on where the database ends: what is published
        next is not the candle behind it, and the shadow lacks those between; or it is one that has
        got its number from an earlier owner."""
        return {
            key.symbol
            for key, stream in self._streams_of(shard).items()
            if isinstance(key, Series) and self._shadowed(key, stream, ends) is None
        }

    def _shadowed(
        self, series: Series, stream: LocalStream, ends: Mapping[Series, int]
    ) -> Sequence[Numbered] | None:
        """What the shadow has behind the database's end; None: not all of it."""
        until_ms = stream.recent[-1][0].open_ms if stream.recent else -1
        end_ms = ends.get(series, -1)
        if until_ms < end_ms:
            return None
        return () if self.shadow is None else self.shadow.candles_after(series, end_ms, until_ms)

    def corrections(self, shard: str) -> list[KlineMessage]:
        """What the shadow has heard of closed candles lately; in hot standby."""
        if self.shadow is None:
            return []
        series = [key for key in self._streams_of(shard) if isinstance(key, Series)]
        return [message for key in series for message in self.shadow.corrections(key)]

    def follow_shadow(self, shadow: Shadow) -> None:
        """Hot standby: it keeps what is published of the shards of others."""
        self.shadow = shadow
        self._bus.listen(shadow)

    def _streams_of(self, shard: str) -> dict[StreamKey, LocalStream]:
        streams = ((stream.stream_key, stream) for stream in self._outgoing.numbered.values())
        return {
            key: stream for key, stream in streams if self.shard_of(key.venue, key.symbol) == shard
        }

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

    def _checkpoint(self, shard: str) -> wire.Checkpoint:
        pending = self._pending()
        streams, unsaved = list[wire.Opened](), list[wire.Candle]()
        for number, stream in self._outgoing.numbered.items():
            key = stream.stream_key
            if self.shard_of(key.venue, key.symbol) != shard:
                continue
            found = self._outgoing.snapshot(number)
            assert found is not None, "it is open"
            streams.append(found)
            if isinstance(key, Series):
                unsaved += self._still_unsaved(key, pending)
        aliases = list(self._outgoing.aliases())
        return wire.Checkpoint(False, streams, aliases, {}, [], unsaved)
