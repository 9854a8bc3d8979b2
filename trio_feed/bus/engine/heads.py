"""Where the log of a shard ends, for who takes it over.  Pure."""

from collections.abc import Iterable

from attrs import define, field

from ...model import ChannelMessage, KlineMessage, Series, StreamKey, Trade
from .. import wire
from ..wire import Flags
from .base import EMPTY, Entry, EntryId


@define
class Heads:
    """Of the entries from the last checkpoint on.  ``closed``: closed candles and revisions that
    the store may not have, under the numbers that clients got, in order."""

    tail: EntryId = EMPTY
    numbers: dict[StreamKey, tuple[int, int]] = field(factory=dict)
    closed: list[KlineMessage] = field(factory=list)
    revised: dict[Series, tuple[int, int]] = field(factory=dict)
    """Numbers of the last revisions."""
    problem: str = ""
    """Why an entry cannot be read; empty: all can."""
    _lines: dict[StreamKey, wire.Line] = field(factory=dict)
    """The last one of each."""
    _keys: dict[int, StreamKey] = field(factory=dict)

    def take(self, entry: Entry) -> None:
        """Raises OtherVersion, BadItem."""
        self.tail = entry.entry_id
        for item in wire.read_entry(entry.body):
            match item:
                case wire.Checkpoint():
                    if item.opening:
                        self._keys = {}
                    for opened in item.streams:
                        self._open(opened)
                    for candle in item.unsaved:
                        self._note(candle)
                case wire.Opened():
                    self._open(item)
                case wire.Candle() | wire.Line():
                    self._note(item)

    def _open(self, item: wire.Opened) -> None:
        key = self._keys[item.stream] = item.stream_key
        self.numbers[key] = max(self.numbers.get(key, (0, 0)), (item.epoch, item.offset))
        if isinstance(key, Series):
            self.revised[key] = max(self.revised.get(key, (0, 0)), item.revised)
        if isinstance(item.latest, wire.Line):
            self._lines[key] = item.latest

    def _note(self, item: wire.Sent) -> None:
        key = self._keys.get(item.stream)
        if key is None or item.flags & Flags.EPHEMERAL:
            return
        self.numbers[key] = max(self.numbers.get(key, (0, 0)), (item.epoch, item.offset))
        if isinstance(item, wire.Line):
            self._lines[key] = item
        elif item.flags & Flags.CLOSED:
            message = wire.message_of(key, item)
            assert isinstance(message, KlineMessage), "a candle"
            self.closed.append(message)
            if message.revision:
                number = message.epoch, message.offset
                self.revised[message.series] = max(self.revised.get(message.series, number), number)

    def last_trade(self, key: StreamKey) -> Trade | None:
        """The last one in the log; None: there is none."""
        line = self._lines.get(key)
        message = None if line is None else wire.message_of(key, line)
        if isinstance(message, ChannelMessage) and isinstance(message.data, Trade):
            return message.data
        return None


def heads_of(entries: Iterable[Entry]) -> Heads:
    """Raises OtherVersion.  What no node wrote is passed over: else nobody could take the shard."""
    heads = Heads()
    for entry in entries:
        try:
            heads.take(entry)
        except wire.OtherVersion:
            raise
        except wire.BadItem as error:
            heads.problem = str(error)
    return heads
