"""The bus: between those who publish news and the nodes that hand it to their clients.

Only the bus gives epoch and offset.  It keeps, per stream key, the last messages and the recent
closed candles; who subscribed to what is the business of each node's hub, its :class:`Listener`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from attrs import define, frozen

from ..core.effects import News
from ..model import (
    Channel,
    ChannelKey,
    ChannelMessage,
    Kline,
    KlineMessage,
    Series,
    StatusMessage,
    StreamKey,
    StreamState,
)

Numbered = KlineMessage | ChannelMessage
_NOTHING_CAME = "nothing has come from its source yet"


class Publisher(Protocol):
    """The side of the drivers, in six calls.  Synchronous; nothing waits.

    ``open``, ``close`` and ``alias``: what there is.  ``deepen`` and ``set_waiting``: what a new
    subscriber is told of it that no message says, how far its history reaches and why nothing
    comes; both ignore what is not open, since answers of the exchange outlive a symbol.
    ``publish``: what is new.
    """

    def open(
        self,
        stream_key: StreamKey,
        history: Iterable[Kline] = (),
        first_ms: int | None = None,
        *,
        sparse: bool = False,
    ) -> None:
        """Make a series or line known; a series with its last closed candles, ascending, and the
        open time of its oldest one anywhere.  One that is open stays as it is.  ``sparse``:
        intervals in which nothing happened have no candle."""

    def close(self, stream_key: StreamKey) -> None:
        """It is not there any more.  Opened again, its numbers go on."""

    def alias(self, native: str, symbol: str) -> None:
        """``native`` is a venue's own name of ``symbol``."""

    def set_waiting(self, venue: str, symbol: str, problem: str) -> None:
        """The symbol's streams wait for the venue to list it, or to send the first of it; empty:
        they do not.  Counts until something comes live, or a status says something else."""

    def deepen(self, series: Series, first_ms: int) -> None:
        """The store has older candles of the series now, from this open time on."""

    def publish(self, news: News, *, ephemeral: bool = False) -> Numbered | None:
        """Number it, keep it, hand it out.  Returns the numbered message, of which a closed candle
        has to be stored in the same synchronous step.  Raises KeyError for a stream key that is
        not open.

        None for what is not to be stored: a status (the last one is remembered), a provisional
        candle, trades, each of which has a number, and what is ``ephemeral``: handed out without a
        trace, in no history; a status goes nowhere then, nor do trades, nor does news of a stream
        key that is not open.
        """


@frozen
class Upstream:
    """How the source of a stream key stands: ``live``, ``stale``, ``never_connected``, or
    ``waiting`` for the venue to list the symbol.  ``problem`` says why in words; empty while
    it is live."""

    state: str
    problem: str = ""


EVENTS = (Channel.TRADE, Channel.LIQUIDATION)
"""Each message of theirs is an event; of the other lines the last one says how things stand."""


def is_torn(status: StatusMessage) -> bool:
    """Whether events are missing here for good.  Who listens is told; who is away and comes back
    with an earlier number is not given what follows as if it were everything."""
    key = status.stream_key
    torn = status.state is StreamState.UNREPAIRABLE
    return torn and isinstance(key, ChannelKey) and key.channel in EVENTS


def upstream_of(status: StatusMessage | None, waiting: str, *, connected: bool) -> Upstream:
    """``connected``: a message came live, or a status other than stale.  ``waiting``: for what."""
    stale = status is not None and status.state is StreamState.STALE
    problem = status.reason if stale and status is not None else ""
    if not connected and waiting:
        return Upstream("waiting", waiting)
    if not connected:
        return Upstream("never_connected", problem or _NOTHING_CAME)
    return Upstream("stale", problem or "it delivers nothing") if stale else Upstream("live")


@define(eq=False)
class Published:
    """A message on its way to the nodes.  ``sent_ms``: unix ms when it was published.

    ``ephemeral``: its epoch and offset are those of the last numbered message before it, so that
    who resumes from it misses nothing.  ``provisional``: only for those who asked for such.
    ``left_out``: so many numbers of its epoch before it were handed out to nobody here; an epoch's
    begin with 1.  ``encoded`` belongs to the hub: what it made of the message, once for all who
    get it.
    """

    _message: Numbered | Callable[[], Numbered]
    """Or what reads it, once."""
    sent_ms: float
    ephemeral: bool = False
    provisional: bool = False
    left_out: int = 0
    encoded: Any = None

    @property
    def message(self) -> Numbered:
        if callable(self._message):
            self._message = self._message()
        return self._message


class Stream(Protocol):
    """One open stream key as readers see it; what is here changes only between two awaits."""

    @property
    def stream_key(self) -> StreamKey: ...

    @property
    def epoch(self) -> int:
        """Of the last message; of the store, before the first."""

    @property
    def offset(self) -> int:
        """Of the last message; 0 before the first."""

    @property
    def heard_at(self) -> float | None:
        """When something last came of the node that publishes it, which is heard at least once in
        a second (of ``trio.current_time()``); None: it is published in this service."""

    @property
    def first_ms(self) -> int | None:
        """Open time of the oldest candle that exists anywhere."""

    @property
    def sparse(self) -> bool:
        """Intervals in which nothing happened have no candle: they are flat."""

    @property
    def recent(self) -> Sequence[tuple[Kline, int]]:
        """The last closed candles with their update_count, ascending."""

    @property
    def revisions(self) -> int:
        """How many revisions there were; with another number than before, what was read of the
        store in between may be outdated."""

    @property
    def latest(self) -> Published | None:
        """What a new subscriber gets at once: the open candle, the last news of a line."""

    @property
    def provisional(self) -> Published | None:
        """The last provisional candle, until a numbered message has caught up with it."""

    @property
    def status(self) -> StatusMessage | None:
        """The last status; None while all is well, or nothing was said."""

    @property
    def upstream(self) -> Upstream: ...

    def keep(self) -> None:
        """Somebody subscribes: from now on keep the messages for those who come back, and hand out
        every one; of trades that come at once to nobody only the last one is."""

    def continues(self, epoch: int, offset: int) -> bool:
        """Whether every message after that number is kept, or there was none."""

    def after(self, epoch: int, offset: int) -> list[Published]:
        """The kept messages after that number, oldest first."""


class Listener(Protocol):
    """A node's hub.  Called synchronously, in the order of events."""

    def opened(self, stream: Stream) -> None: ...

    def closed(self, stream: Stream) -> None: ...

    def aliased(self, native: str, symbol: str) -> None: ...

    def published(self, stream: Stream, published: Published) -> None: ...

    def status_changed(self, stream: Stream, status: StatusMessage) -> None: ...

    def described(self, stream: Stream) -> None:
        """What only new subscribers get has changed: ``first_ms``, or why it waits."""


class Reader(Protocol):
    """The side of the hubs."""

    def listen(self, listener: Listener) -> None:
        """Call it for everything from now on; first with what is open already."""
