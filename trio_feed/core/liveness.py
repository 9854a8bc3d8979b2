"""Does it deliver?  The one owner of that question, for the streams of one symbol.  Pure.

A dead stream is told from a quiet market by asking the exchange, never by a clock alone:

- every message teaches the stream's cadence (:mod:`.cadence`), which says when a silence or a
  trickle is *suspicious*;
- the exchange is asked by REST for its newest candle or trade.  It has nothing newer than the
  stream told: the market is *quiet*, and so is every stream of the symbol that was not silent for
  longer.  It has, and the stream does not tell it within its grace either: the stream is *dead*,
  whatever else its connection delivers, pongs included;
- it cannot be asked: nothing is proven, and the silence timeout of the connection decides.

Only what a stream told is compared with what the exchange has.  Kinds that REST cannot be asked
about (tickers, books) are measured by the candles or trades of the same symbol: does the market
move while they are silent?

:meth:`Liveness.wake` returns what to do; the driver performs it and comes back with
:meth:`Liveness.answered` or :meth:`Liveness.not_answered`.
"""

from collections.abc import Iterable

from attrs import define, field, frozen

from ..instants import NEVER, Mono
from ..model import (
    BookTop,
    BookUpdate,
    Interval,
    Kline,
    Liquidation,
    MarkPrice,
    Price,
    StreamState,
    Ticker,
    Trade,
)
from . import calendar
from .cadence import Cadence
from .streams import SPORADIC, Data, Kind, KlineUpdate, Stream

ROTATE_AGAIN_S, ROTATE_LATEST_S = 15.0, 60.0
"""A connection that was rotated for a stream is not again before this; doubles while it does not
help: a stream that then lives for longer has been helped."""
SAME_MOMENT_S = 1.0
"""Streams of a symbol that fell silent within this time fell silent together."""
_TYPES: dict[Kind, type] = {
    Kind.TICKER: Ticker,
    Kind.TOP: BookTop,
    Kind.BOOK: BookUpdate,
    Kind.PRICE: Price,
    Kind.MARK_PRICE: MarkPrice,
    Kind.LIQUIDATION: Liquidation,
}
Told = Kline | Trade
Key = tuple[type, Interval | None]


@frozen
class Probe:
    """Ask the exchange for the newest candle or trade of this stream."""

    stream: Stream


@frozen
class Stale:
    """The stream is dead.  ``rotate``: replace the connection that carries it."""

    stream: Stream
    silent_s: float


@frozen
class Rotate:
    """Replace the connection that carries the stream, make before break."""

    stream: Stream


@frozen
class Flows:
    """The stream delivered for the first time (again).  ``missed_s``: how long it had not."""

    stream: Stream
    missed_s: float


@frozen
class Settled:
    """A question was settled: news (dead), told (it spoke meanwhile), quiet or failed."""

    result: str


Action = Probe | Stale | Rotate | Flows | Settled


@define(eq=False)
class _Watched:
    """One stream.  ``waiting``: nothing came yet since it is up, or since it was proven dead."""

    stream: Stream
    cadence: Cadence
    up: bool = False
    waiting: bool = True
    stale: bool = False
    last: Data | None = None
    baseline: Told | None = None
    """What the exchange had when it was asked first, for a stream that never said anything."""
    gap_from: float | None = None
    trickles: bool = False
    alive_from: float = 0.0
    rotate_from: float = 0.0
    rotate_wait_s: float = ROTATE_AGAIN_S

    @property
    def told(self) -> Told | None:
        last = self.last
        if isinstance(last, KlineUpdate):
            return last.kline
        return last if isinstance(last, Trade) else self.baseline

    @property
    def state(self) -> str:
        if self.stale or not self.up:
            return StreamState.STALE
        return "new" if self.waiting else StreamState.LIVE

    def silent_as_long_as(self, other: "_Watched") -> bool:
        return self.cadence.last <= other.cadence.last + SAME_MOMENT_S

    def doubted(self, now: float) -> bool:
        return self.up and not self.stale and now >= self.cadence.doubt_at


@define(eq=False)
class _Inquiry:
    """A doubt that is being settled.  ``step``: ask (an answer is awaited), grace (the exchange
    has news, the stream may still tell them), move (does the witness move?), moved (it did)."""

    asked: _Watched
    watched: _Watched
    step: str
    began: float
    until: float = float("inf")
    latest: Told | None = None
    told: Told | None = None


@define(eq=False)
class Liveness:
    """The streams of one symbol.  ``askable`` are the kinds that REST can be asked about.

    ``wake_at``: when :meth:`wake` has something to do; it only becomes earlier between two wakes.
    """

    askable: frozenset[Kind]
    factor: float
    floor_s: float
    silence_s: float
    """So long without data, unless the exchange confirms it, and the connection is lost."""
    wake_at: Mono = NEVER
    quiet_at: Mono | None = None
    """When the exchange last said that the market of the symbol is quiet."""
    _watched: dict[Stream, _Watched] = field(factory=dict)
    _by_key: dict[Key, _Watched] = field(factory=dict)
    _inquiry: _Inquiry | None = None

    def statistics(self, now: Mono) -> dict[str, dict[str, object]]:
        """By stream name: its state, the gap that is expected, how long it has been silent."""
        return {
            watched.stream.name: {
                "state": watched.state,
                "expected_gap_s": round(watched.cadence.gap_s, 3),
                "silent_s": round(float(now) - watched.cadence.last, 3),
            }
            for watched in self._watched.values()
        }

    def states(self) -> Iterable[str]:
        return (watched.state for watched in self._watched.values())

    def is_up(self, kind: Kind, interval: Interval | None = None) -> bool:
        """A stream of this kind is up and not proven dead."""
        return any(
            w.up and not w.stale
            for s, w in self._watched.items()
            if s.kind is kind and s.interval == interval
        )

    def is_quiet(self, stream: Stream, now: Mono) -> bool:
        """The exchange has confirmed that there is nothing to tell, and nothing speaks against it
        since."""
        watched = self._watched.get(stream)
        if watched is None:
            return False
        return stream.kind in SPORADIC or watched.cadence.calm_at(float(now))

    def keep(self, streams: Iterable[Stream]) -> None:
        """Forget the others."""
        wanted = set(streams)
        for stream in [s for s in self._watched if s not in wanted]:
            watched = self._watched.pop(stream)
            watched.up = False
            self._by_key.pop(_key_of(stream), None)
            if self._inquiry is not None and watched in (
                self._inquiry.asked,
                self._inquiry.watched,
            ):
                self._inquiry = None
        self._plan()

    def up(self, stream: Stream, now: Mono) -> None:
        """Its connection delivers from now on."""
        watched = self._watched.get(stream) or self._add(stream)
        watched.up = watched.waiting = True
        watched.stale = False
        if stream.kind in SPORADIC:
            watched.waiting = False  # it delivers by being subscribed
            return
        watched.cadence.begin(float(now))
        self._want(watched.cadence.doubt_at)

    def lost(self, stream: Stream) -> None:
        """Nothing carries it any more."""
        watched = self._watched.get(stream)
        if watched is None:
            return
        if not watched.waiting and watched.gap_from is None:
            watched.gap_from = watched.cadence.last
        watched.up, watched.waiting = False, True
        watched.cadence.pause()

    def heard(self, event: Data, now: Mono) -> Flows | None:
        """What a message said."""
        kind = type(event)
        interval = event.interval if kind is KlineUpdate else None  # type: ignore[union-attr]
        watched = self._by_key.get((kind, interval))
        if watched is None:
            return None
        watched.last = event
        if watched.stream.kind in SPORADIC:
            return None
        if watched.waiting:
            return self._revive(watched, float(now))
        if watched.cadence.arrived(float(now)):
            watched.trickles, watched.cadence.doubt_at = True, float(now)
        if watched.cadence.doubt_at < float(self.wake_at):
            self.wake_at = Mono(watched.cadence.doubt_at)
        return None

    def wake(self, now: Mono, *, held: bool) -> list[Action]:
        """What is to be done by now.  ``held``: messages wait for us, so that a silence is our own
        doing."""
        at = float(now)
        actions: list[Action] = []
        inquiry = self._inquiry
        if inquiry is not None and at >= inquiry.until:
            actions += self._go_on(inquiry, at)
        for watched in self._watched.values():
            if not watched.up or at < watched.cadence.doubt_at:
                continue
            if held:
                watched.cadence.doubt_at = at + SAME_MOMENT_S
            elif watched.stale:
                actions += self._replace(watched, at)
            elif self._inquiry is None:  # one question at a time; the other doubts stand
                actions += self._doubt(watched, at)
        self._plan()
        return actions

    def answered(self, stream: Stream, latest: Told | None, now: Mono) -> list[Action]:
        """The exchange's newest of that stream; None: it has none."""
        inquiry = self._inquiry
        if inquiry is None or inquiry.step != "ask" or inquiry.asked.stream != stream:
            return []
        if latest is None:
            return self.not_answered(stream, now)
        at = float(now)
        asked = inquiry.asked
        if asked.told is None:
            asked.baseline = latest
        if not newer(asked.told, latest, asked.stream.interval):
            self._inquiry = None
            self.quiet_at = now
            self._calm(asked, inquiry.watched, at)
            self._plan()
            return [Settled("quiet")]
        # It may be on its way: what was asked for just now was said just now.
        inquiry.step, inquiry.latest = "grace", latest
        inquiry.until = at + max(asked.cadence.grace_s, inquiry.watched.cadence.grace_s)
        self._plan()
        return []

    def not_answered(self, stream: Stream, now: Mono) -> list[Action]:
        """The exchange could not be asked: nothing is proven."""
        inquiry = self._inquiry
        if inquiry is None or inquiry.step != "ask" or inquiry.asked.stream != stream:
            return []
        self._inquiry = None
        inquiry.watched.cadence.unproven(float(now))
        self._plan()
        return [Settled("failed")]

    def _doubt(self, watched: _Watched, at: float) -> list[Action]:
        """How to find out about one stream."""
        trickles, watched.trickles = watched.trickles, False
        witness = self._witness()
        if witness is None:
            watched.cadence.unproven(at)
            return []
        askable = watched.stream.kind in self.askable
        if trickles and askable:
            return self._ask(watched, watched, at)
        if witness.silent_as_long_as(watched):
            return self._ask(witness, watched, at)
        if askable:
            return self._ask(watched, watched, at)
        return self._compare(watched, witness, at)

    def _ask(self, asked: _Watched, watched: _Watched, at: float) -> list[Action]:
        self._inquiry = _Inquiry(asked, watched, "ask", at)
        return [Probe(asked.stream)]

    def _compare(self, watched: _Watched, witness: _Watched, at: float) -> list[Action]:
        """Of a kind that cannot be asked about: does the market move while it is silent?"""
        until = at + max(watched.cadence.grace_s, watched.cadence.gap_s)
        self._inquiry = _Inquiry(witness, watched, "move", at, until, told=witness.told)
        return []

    def _go_on(self, inquiry: _Inquiry, at: float) -> list[Action]:
        """The time of the inquiry's step is over."""
        self._inquiry = None
        asked, watched = inquiry.asked, inquiry.watched
        if inquiry.step == "grace":
            assert inquiry.latest is not None, "a grace begins with an answer"
            if newer(asked.told, inquiry.latest, asked.stream.interval):
                return [Settled("news"), *self._condemn([asked, watched], inquiry.began, at)]
            return [Settled("told"), *self._alone(asked, watched, at)]
        if watched.cadence.last > inquiry.began or not watched.up:
            return []
        if inquiry.step == "move":
            now_told = asked.told
            moved = now_told is not None and newer(inquiry.told, now_told, asked.stream.interval)
            if not moved:
                watched.cadence.calm(at)
                return []
            inquiry.step, inquiry.until = "moved", at + watched.cadence.grace_s
            self._inquiry = inquiry
            return []
        return self._condemn([watched], at, at)

    def _alone(self, asked: _Watched, watched: _Watched, at: float) -> list[Action]:
        """The witness spoke after all: what about the stream for which it was asked?"""
        if watched is asked or not watched.doubted(at):
            watched.cadence.unproven(at)
            return []
        if watched.stream.kind in self.askable:
            return self._ask(watched, watched, at)
        return self._compare(watched, asked, at)

    def _calm(self, asked: _Watched, watched: _Watched, at: float) -> None:
        """The market is quiet since ``asked`` fell silent."""
        for each in self._watched.values():
            if each.up and not each.stale and asked.silent_as_long_as(each):
                each.cadence.calm(at)
        if not asked.silent_as_long_as(watched):
            watched.cadence.unproven(at)

    def _condemn(self, found: Iterable[_Watched], asked_at: float, at: float) -> list[Action]:
        """Proven dead, with whatever of the symbol is as silent."""
        candidates = [w for w in dict.fromkeys(found) if w.up]
        dead = dict.fromkeys(w for w in candidates if w.cadence.last <= asked_at)
        if not dead:
            dead = dict.fromkeys(candidates)  # it trickles
        first = next(iter(dead), None)
        if first is None:
            return []
        for each in self._watched.values():
            if each.up and not each.stale and each.silent_as_long_as(first):
                dead[each] = None
        actions: list[Action] = []
        for each in dead:
            each.stale = each.waiting = True
            each.gap_from = each.cadence.last
            if each.gap_from - each.alive_from > ROTATE_LATEST_S:
                each.rotate_from, each.rotate_wait_s = 0.0, ROTATE_AGAIN_S
            actions.append(Stale(each.stream, at - each.cadence.last))
        for each in dead:
            actions += self._replace(each, at)
        return actions

    def _replace(self, watched: _Watched, at: float) -> list[Action]:
        """Another connection; and again later and later, should that be as dead."""
        actions: list[Action] = []
        if at >= watched.rotate_from:
            actions.append(Rotate(watched.stream))
            watched.rotate_from = at + watched.rotate_wait_s
            watched.rotate_wait_s = min(2 * watched.rotate_wait_s, ROTATE_LATEST_S)
        watched.cadence.doubt_at = watched.rotate_from
        return actions

    def _revive(self, watched: _Watched, at: float) -> Flows:
        """The first data since it is up, or since it was proven dead."""
        watched.waiting = watched.stale = False
        watched.alive_from = at
        missed_s = 0.0
        if watched.gap_from is not None:
            missed_s = at - watched.gap_from
            watched.gap_from = None
        watched.cadence.begin(at)
        self._want(watched.cadence.doubt_at)
        return Flows(watched.stream, missed_s)

    def _witness(self) -> _Watched | None:
        """The stream that is cheapest to ask about: the shortest candle, or the trades."""
        found = [w for w in self._watched.values() if w.up and w.stream.kind in self.askable]
        return min(found, key=_cost, default=None)

    def _add(self, stream: Stream) -> _Watched:
        # Before the silence timeout, so that a quiet market is proven when it strikes.
        most_s = 0.75 * self.silence_s
        cadence = Cadence(self.factor, self.floor_s, unknown_s=most_s, most_s=most_s)
        watched = self._watched[stream] = _Watched(stream, cadence)
        self._by_key[_key_of(stream)] = watched
        return watched

    def _want(self, at: float) -> None:
        if at < float(self.wake_at):
            self.wake_at = Mono(at)

    def _plan(self) -> None:
        inquiry = self._inquiry
        waiting = (w for w in self._watched.values() if w.up and (inquiry is None or w.stale))
        times = [w.cadence.doubt_at for w in waiting]
        if inquiry is not None:
            times.append(inquiry.until)
        self.wake_at = Mono(min(times, default=float("inf")))


def _key_of(stream: Stream) -> Key:
    """Under what a stream's events are found: their type, and the interval of candles."""
    if stream.kind is Kind.KLINE:
        return KlineUpdate, stream.interval
    return _TYPES.get(stream.kind, Trade), None


def _cost(watched: _Watched) -> float:
    """Orders by how cheaply the exchange can be asked: candles before trades."""
    interval = watched.stream.interval
    return float("inf") if interval is None else calendar.length_ms(interval)


def newer(told: Told | None, latest: Told, interval: Interval | None) -> bool:
    """Does the exchange have something that was not told?  A candle without a trade is nothing to
    tell; the close of the one before it is."""
    if isinstance(told, Trade) and isinstance(latest, Trade):
        return latest.trade_id > told.trade_id
    if not (isinstance(told, Kline) and isinstance(latest, Kline)):
        return False
    if latest.open_ms == told.open_ms:
        return latest.volume > told.volume and not told.closed
    if latest.open_ms < told.open_ms or interval is None:
        return False
    follows = calendar.next_open(interval, told.open_ms) == latest.open_ms
    return latest.volume > 0 or not told.closed or not follows
