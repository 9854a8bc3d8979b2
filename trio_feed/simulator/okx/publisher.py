"""Who follows which channel of OKX's box, and the pushing to them.

Lines (:mod:`.okx_channels`) exist while somebody follows them.  A quiet market costs nothing; a
followed book costs a look every 100 ms.
"""

import math
from collections.abc import Callable, Iterable
from typing import Protocol

from attrs import define, field

from ...model import Interval
from ..machinery.scheduler import Timetable
from ..machinery.wire import text_frame
from .channel_sources import CandleLine, Line
from .channels import BUSINESS, PUBLIC, RANKS
from .data import Sources
from .listing import OkxInstrument, find_instrument
from .rows import Channel


class Taker(Protocol):
    """Who gets frames: one connection."""

    def offer(self, frame: bytes) -> None:
        """Take one encoded frame without waiting."""


@define(eq=False)
class _Followed:
    line: Line
    takers: dict[Taker, None] = field(factory=dict)


@define(eq=False)
class Feed:
    """``run()`` pushes to whoever ``follow``s a channel.  ``now_ms`` is unix ms."""

    sources: Sources
    now_ms: Callable[[], float]
    _followed: dict[Channel, _Followed] = field(factory=dict)
    _timetable: Timetable = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._timetable = Timetable(self.now_ms)

    def has(self, channel: Channel) -> bool:
        """Whether such a channel can be followed now."""
        instrument = self._instrument(channel)
        known = channel.name in PUBLIC or channel.name in BUSINESS
        return known and instrument is not None and self._trades(instrument)

    def follow(self, channel: Channel, taker: Taker) -> None:
        """Offer ``taker`` the state of the channel and from then on its news."""
        followed = self._followed.get(channel)
        if followed is None:
            instrument = self._instrument(channel)
            if instrument is None:
                return
            make = PUBLIC.get(channel.name) or BUSINESS[channel.name]
            line = make(channel, instrument, self.sources, math.floor(self.now_ms()))
            followed = self._followed[channel] = _Followed(line)
            self._timetable.changed()
        for message in followed.line.hello():
            taker.offer(text_frame(message))
        followed.takers[taker] = None

    def leave(self, channel: Channel, taker: Taker) -> None:
        """No more of this channel for ``taker``; it need not have followed it."""
        followed = self._followed.get(channel)
        if followed is not None:
            followed.takers.pop(taker, None)
            if not followed.takers:
                del self._followed[channel]

    def tell_again(self, symbol: str, interval: Interval, open_ms: int) -> list[Taker]:
        """The closed candle goes out once more, as the market has it now; returns to whom."""
        now = math.floor(self.now_ms())
        told: list[Taker] = []
        for followed in [*self._followed.values()]:
            line = followed.line
            if not isinstance(line, CandleLine) or line.bar.interval != interval:
                continue
            if line.instrument.symbol == symbol:
                told += followed.takers
                _hand_out(followed, line.state(open_ms, now))
        return told

    def run_ahead(self, until_ms: float) -> None:
        """Push at once what is due up to ``until_ms``, as if each had gone out at its time."""
        self._timetable.run_ahead(until_ms, self._due_ms, self._push_due)

    def clock_changed(self) -> None:
        """``now_ms`` made a leap."""
        self._timetable.changed()

    async def run(self) -> None:
        """Push for ever."""
        await self._timetable.run(self._due_ms, self._push_due)

    def _due_ms(self) -> float:
        return min((f.line.due_ms for f in self._followed.values()), default=math.inf)

    def _push_due(self, now: float) -> None:
        due = [f for f in self._followed.values() if f.line.due_ms <= now]
        for followed in sorted(due, key=lambda f: RANKS[f.line.channel.name]):
            self._push(followed, math.floor(now))

    def _push(self, followed: _Followed, now_ms: int) -> None:
        messages = followed.line.news(now_ms)
        if self._trades(followed.line.instrument):
            _hand_out(followed, messages)

    def _instrument(self, channel: Channel) -> OkxInstrument | None:
        return find_instrument(self.sources.market, channel.inst_id)

    def _trades(self, instrument: OkxInstrument) -> bool:
        return instrument.symbol not in self.sources.market.delisted


def _hand_out(followed: _Followed, messages: Iterable[bytes]) -> None:
    for message in messages:
        frame = text_frame(message)
        for taker in [*followed.takers]:  # one may leave while it is offered a frame
            taker.offer(frame)
