"""The watch over every stream of one venue: a dead stream is told from a quiet market.

Every message of a stream teaches its cadence (:mod:`..core.cadence`), which says when a silence
or a trickle is suspicious.  One task sleeps until the earliest doubt (a heap; a message costs no
change of it).  The doubt is settled by asking the exchange by REST for the newest candle or trade:

- it has nothing newer than what the stream told: the market is quiet, and so is every stream of
  the symbol that was not silent for longer;
- it has, and the stream does not tell it within its grace either: the stream is dead, whatever
  else its connection delivers, pongs included.  The connection is rotated, make before break.
- it cannot be asked: nothing is proven, and the connection's silence timeout stays the last word.

No clock is compared with the exchange's, only what it told with what it has.  Kinds that REST
cannot be asked about (tickers, books) are measured by the candles or trades of the same symbol.
"""

import heapq
from collections.abc import Callable, Iterable
from itertools import count

import structlog
import trio

from ..core.cadence import Cadence
from ..errors import BadMessage, NetworkError
from ..metrics import Metrics
from ..model import Interval, Kline, StreamState, Trade
from ..net.rest import RestClient
from ..settings import ConnectionSettings
from ..venues import Data, Instruments, Kind, KlineUpdate, Stream, Venue
from .watched import (
    NEVER,
    ROTATE_AGAIN_S,
    ROTATE_LATEST_S,
    SAME_MOMENT_S,
    Told,
    Watched,
    cost,
    key_of,
    newer,
)

_AT_ONCE = 2
"""Questions of one venue under way."""


class Watch:
    """``flows`` is told of a stream's first data (again), ``stalled`` of those proven dead.
    ``rotate`` asks for another connection for a stream, ``beside`` says which streams share one.
    """

    def __init__(
        self,
        venue: Venue,
        settings: ConnectionSettings,
        *,
        instruments: Callable[[], Instruments],
        flows: Callable[[Stream], None],
        stalled: Callable[[Stream, str], None],
        rotate: Callable[[Stream], None],
        beside: Callable[[Stream], Iterable[Stream]],
        metrics: Metrics,
    ) -> None:
        self._venue, self._settings, self._instruments = venue, settings, instruments
        self._flows, self._stalled = flows, stalled
        self._rotate, self._beside, self._metrics = rotate, beside, metrics
        self._log = structlog.get_logger().bind(venue=venue.NAME)
        self._watched: dict[Stream, Watched] = {}
        self._by_key: dict[tuple[str, Interval | type], Watched] = {}
        self._symbols: dict[str, list[Watched]] = {}
        self._busy: set[str] = set()
        self._heap: list[tuple[float, int, Watched]] = []
        self._numbers = count()
        self._woken = trio.Event()
        self.hold = False
        """True while messages wait for us: silence is then our own doing."""

    def statistics(self) -> dict[str, dict[str, object]]:
        """By stream name: its state, the gap that is expected, how long it has been silent."""
        now = trio.current_time()
        return {
            watched.stream.name: {
                "state": watched.state,
                "expected_gap_s": round(watched.cadence.gap_s, 3),
                "silent_s": round(now - watched.cadence.last, 3),
            }
            for watched in self._watched.values()
        }

    def count(self) -> None:
        """Set the gauges."""
        states = [watched.state for watched in self._watched.values()]
        for state in ("new", StreamState.LIVE, StreamState.STALE):
            gauge = self._metrics.stream_states.labels(self._venue.NAME, state)
            gauge.set(states.count(state))

    def keep(self, streams: Iterable[Stream]) -> None:
        """Forget the others."""
        wanted = set(streams)
        for stream in [s for s in self._watched if s not in wanted]:
            watched = self._watched.pop(stream)
            watched.up = False
            watched.cadence.pause()
            self._by_key.pop(key_of(stream), None)
            self._symbols[stream.symbol].remove(watched)

    def up(self, streams: Iterable[Stream]) -> None:
        """Their connection delivers from now on."""
        now = trio.current_time()
        for stream in streams:
            watched = self._watched.get(stream) or self._add(stream)
            watched.up = watched.waiting = True
            watched.stale = False
            watched.cadence.begin(now)
            self._queue(watched)

    def lost(self, streams: Iterable[Stream]) -> None:
        """Nothing carries them any more."""
        for stream in streams:
            watched = self._watched.get(stream)
            if watched is None:
                continue
            if not watched.waiting and watched.gap_from is None:
                watched.gap_from = watched.cadence.last
            watched.up, watched.waiting = False, True
            watched.cadence.pause()

    def heard(self, events: Iterable[Data]) -> None:
        """What a message said."""
        now = trio.current_time()
        for event in events:
            kind = event.interval if type(event) is KlineUpdate else type(event)
            watched = self._by_key.get((event.symbol, kind)) or self._by_key.get(("", kind))
            if watched is None:
                continue
            watched.last = event
            if watched.waiting:
                self._revive(watched, now)
            elif watched.cadence.arrived(now):
                watched.trickles, watched.cadence.doubt_at = True, now
            if watched.cadence.doubt_at < watched.queued_at:
                self._queue(watched)

    async def run(self, rest: RestClient) -> None:
        """Settle every doubt, until cancelled."""
        limit = trio.CapacityLimiter(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                watched = await self._next_doubt()
                now = trio.current_time()
                if self.hold or watched.stream.symbol in self._busy:
                    watched.cadence.doubt_at = now + SAME_MOMENT_S
                    self._queue(watched)
                elif watched.stale:
                    self._replace(watched)
                else:
                    self._busy.add(watched.stream.symbol)
                    nursery.start_soon(self._settle, watched, rest, limit)

    async def _settle(
        self, watched: Watched, rest: RestClient, limit: trio.CapacityLimiter
    ) -> None:
        """Find out about one stream, and about those of its symbol that are silent as well."""
        try:
            async with limit:
                await self._judge(watched, rest)
        finally:
            self._busy.discard(watched.stream.symbol)
            if watched.up:
                self._queue(watched)

    async def _judge(self, watched: Watched, rest: RestClient) -> None:
        if not watched.doubted(trio.current_time()):
            return  # it spoke, or was lost, while it waited its turn
        trickles, watched.trickles = watched.trickles, False
        witness = self._witness(watched.stream.symbol)
        if witness is None:
            watched.cadence.unproven(trio.current_time())
        elif trickles and self._can_be_asked(watched):
            await self._ask(watched, watched, rest)
        elif witness.silent_as_long_as(watched):
            await self._ask(witness, watched, rest)
        elif self._can_be_asked(watched):
            await self._ask(watched, watched, rest)
        else:
            await self._compare(watched, witness)

    async def _ask(self, asked: Watched, watched: Watched, rest: RestClient) -> None:
        """Ask the exchange about ``asked`` and draw conclusions, for ``watched`` as well."""
        asked_at = trio.current_time()
        latest = await self._latest(asked, rest)
        if latest is None:
            self._note(asked, "failed")
            watched.cadence.unproven(trio.current_time())
            return
        if asked.told is None:
            asked.baseline = latest
        if not newer(asked.told, latest, asked.stream.interval):
            self._note(asked, "quiet")
            self._calm(asked, watched)
            return
        await trio.sleep(max(asked.cadence.grace_s, watched.cadence.grace_s))
        if newer(asked.told, latest, asked.stream.interval):
            self._note(asked, "news")
            self._condemn([asked, watched], asked_at)
        else:
            self._note(asked, "told")
            await self._alone(asked, watched, rest)

    async def _alone(self, asked: Watched, watched: Watched, rest: RestClient) -> None:
        """The witness spoke after all: what about the one it spoke for?"""
        now = trio.current_time()
        if watched is asked or not watched.doubted(now):
            watched.cadence.unproven(now)
        elif self._can_be_asked(watched):
            await self._ask(watched, watched, rest)
        else:
            await self._compare(watched, asked)

    async def _compare(self, watched: Watched, witness: Watched) -> None:
        """Of a kind that cannot be asked about: does the market move while it is silent?"""
        silent_since = watched.cadence.last
        told = witness.told
        await trio.sleep(max(watched.cadence.grace_s, watched.cadence.gap_s))
        moved = witness.told is not None and newer(told, witness.told, witness.stream.interval)
        if moved:
            await trio.sleep(watched.cadence.grace_s)
        now = trio.current_time()
        if watched.cadence.last > silent_since or not watched.up:
            return
        if moved:
            self._condemn([watched], now)
        else:
            watched.cadence.calm(now)

    async def _latest(self, asked: Watched, rest: RestClient) -> Told | None:
        """The exchange's newest candle or trade of a stream; None: it does not say."""
        stream = asked.stream
        instrument = self._instruments().find(stream.symbol)
        if instrument is None:
            return None
        question = self._venue.latest_question(instrument, stream.interval)
        if question is None:
            return None
        parse = self._venue.parse_trades if stream.interval is None else self._venue.parse_klines
        found: list[Kline] | list[Trade] = []
        with trio.move_on_after(self._settings.rest_timeout_s):
            try:
                answer = await rest.get(question.path, question.params, weight=question.weight)
                found = parse(answer.body, instrument)
            except (NetworkError, BadMessage) as error:
                self._log.info("probe.failed", stream=stream.name, problem=str(error))
        return found[-1] if found else None

    def _calm(self, asked: Watched, watched: Watched) -> None:
        """The market of the symbol is quiet since ``asked`` fell silent."""
        now = trio.current_time()
        for each in self._symbols[asked.stream.symbol]:
            if each.up and not each.stale and asked.silent_as_long_as(each):
                each.cadence.calm(now)
                self._queue(each)
        if not asked.silent_as_long_as(watched):
            watched.cadence.unproven(now)

    def _condemn(self, found: Iterable[Watched], asked_at: float) -> None:
        """Proven dead, with whatever is as silent.  A connection on which every stream is in
        doubt is dead as a whole."""
        now = trio.current_time()
        dead = dict.fromkeys(w for w in found if w.up and w.cadence.last <= asked_at)
        if not dead:
            dead = dict.fromkeys(w for w in found if w.up)  # it trickles
        first = next(iter(dead), None)
        if first is None:
            return
        for each in self._symbols[first.stream.symbol]:
            if each.up and not each.stale and each.silent_as_long_as(first):
                dead[each] = None
        beside = [self._watched[s] for s in self._beside(first.stream) if s in self._watched]
        if all(each.stale or each.doubted(now) or each in dead for each in beside):
            dead.update(dict.fromkeys(each for each in beside if each.up and not each.stale))
        for each in dead:
            silent_s = now - each.cadence.last
            self._log.warning("stream.stale", stream=each.stream.name, silent_s=round(silent_s, 3))
            each.stale = each.waiting = True
            each.gap_from = each.cadence.last
            if each.gap_from - each.alive_from > ROTATE_LATEST_S:
                each.rotate_from, each.rotate_wait_s = 0.0, ROTATE_AGAIN_S
            self._stalled(each.stream, f"silent for {silent_s:.1f} s while the market moves")
        for each in dead:
            self._replace(each)

    def _replace(self, watched: Watched) -> None:
        """Ask for another connection; and again later and later, should that be as dead."""
        now = trio.current_time()
        if now >= watched.rotate_from:
            self._rotate(watched.stream)
            watched.rotate_from = now + watched.rotate_wait_s
            watched.rotate_wait_s = min(2 * watched.rotate_wait_s, ROTATE_LATEST_S)
        watched.cadence.doubt_at = watched.rotate_from
        self._queue(watched)

    def _revive(self, watched: Watched, now: float) -> None:
        """The first data since it is up, or since it was proven dead."""
        watched.waiting = watched.stale = False
        watched.alive_from = now
        if watched.gap_from is not None:
            self._metrics.gap_seconds.labels(self._venue.NAME).inc(now - watched.gap_from)
            watched.gap_from = None
        watched.cadence.begin(now)
        self._flows(watched.stream)

    def _witness(self, symbol: str) -> Watched | None:
        """The stream that is cheapest to ask about: the shortest candle, or the trades."""
        found = [w for w in self._symbols[symbol] if w.up and self._can_be_asked(w)]
        return min(found, key=cost, default=None)

    def _can_be_asked(self, watched: Watched) -> bool:
        return watched.stream.kind in (Kind.KLINE, self._venue.TRADE_KIND)

    def _add(self, stream: Stream) -> Watched:
        settings = self._settings
        cadence = Cadence(
            settings.stall_factor, settings.stall_min_s, unknown_s=settings.silence_timeout_s
        )
        watched = self._watched[stream] = Watched(stream, cadence)
        self._by_key[key_of(stream)] = watched
        self._symbols.setdefault(stream.symbol, []).append(watched)
        return watched

    def _note(self, asked: Watched, result: str) -> None:
        self._metrics.probes.labels(self._venue.NAME, result).inc()
        self._log.debug("probe", stream=asked.stream.name, result=result)

    def _queue(self, watched: Watched) -> None:
        at = watched.cadence.doubt_at
        if at >= watched.queued_at:
            return
        watched.queued_at = at
        heapq.heappush(self._heap, (at, next(self._numbers), watched))
        if self._heap[0][2] is watched:
            self._woken.set()

    async def _next_doubt(self) -> Watched:
        """Wait for the earliest.  Entries are put right when their time comes, not before."""
        while True:
            await trio.lowlevel.checkpoint()
            at = self._heap[0][0] if self._heap else NEVER
            if at > trio.current_time():
                self._woken = trio.Event()
                with trio.move_on_at(at):
                    await self._woken.wait()
                continue
            _, _, watched = heapq.heappop(self._heap)
            if at != watched.queued_at:
                continue  # it was queued for an earlier time since
            watched.queued_at = NEVER
            if not watched.up:
                continue
            if watched.cadence.doubt_at > trio.current_time():
                self._queue(watched)
            else:
                return watched
