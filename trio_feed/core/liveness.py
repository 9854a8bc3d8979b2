"""Does it deliver?  The one owner of that question, for the streams of one symbol.  Pure.

A dead stream is distinguished from a quiet market by asking the exchange, never by a clock alone:

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

from attrs import define, field

from ..instants import NEVER, Mono
from ..model import (
    Interval,
)
from .cadence import Cadence
from .monitored import (
    ROTATE_AGAIN_S,
    ROTATE_LATEST_S,
    SAME_MOMENT_S,
    Action,
    Check,
    Flows,
    Key,
    MonitoredStream,
    Probe,
    Rotate,
    Settled,
    Stale,
    Told,
    cost_of,
    key_of,
    newer,
)
from .streams import SPORADIC, Data, Kind, KlineUpdate, Stream


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
    _monitors: dict[Stream, MonitoredStream] = field(factory=dict)
    _by_key: dict[Key, MonitoredStream] = field(factory=dict)
    _check: Check | None = None

    def statistics(self, now: Mono) -> dict[str, dict[str, object]]:
        """By stream name: its state, the gap that is expected, how long it has been silent."""
        return {
            monitor.stream.name: {
                "state": monitor.state,
                "expected_gap_s": round(monitor.cadence.gap_s, 3),
                "silent_s": round(float(now) - monitor.cadence.last, 3),
            }
            for monitor in self._monitors.values()
        }

    def states(self) -> Iterable[str]:
        return (monitor.state for monitor in self._monitors.values())

    def is_up(self, kind: Kind, interval: Interval | None = None) -> bool:
        """A stream of this kind is up and not proven dead."""
        return any(
            w.up and not w.stale
            for s, w in self._monitors.items()
            if s.kind is kind and s.interval == interval
        )

    def is_quiet(self, stream: Stream, now: Mono) -> bool:
        """The exchange has confirmed that there is nothing to tell, and nothing speaks against it
        since."""
        monitor = self._monitors.get(stream)
        if monitor is None:
            return False
        return monitor.sporadic or monitor.cadence.is_confirmed(float(now))

    def keep(self, streams: Iterable[Stream]) -> None:
        """Forget the others."""
        wanted = set(streams)
        for stream in [s for s in self._monitors if s not in wanted]:
            monitor = self._monitors.pop(stream)
            monitor.up = False
            self._by_key.pop(key_of(stream), None)
            if self._check is not None and monitor in (
                self._check.asked,
                self._check.monitor,
            ):
                self._check = None
        self._plan()

    def up(self, stream: Stream, now: Mono) -> None:
        """Its connection delivers from now on."""
        monitor = self._monitors.get(stream) or self._add(stream)
        monitor.up = monitor.waiting = True
        monitor.stale = False
        if monitor.sporadic:
            monitor.waiting = False  # it delivers by being subscribed
            return
        monitor.cadence.begin(float(now))
        self._want(monitor.cadence.suspect_at)

    def lost(self, stream: Stream) -> None:
        """Nothing carries it any more."""
        monitor = self._monitors.get(stream)
        if monitor is None:
            return
        if not monitor.waiting and monitor.gap_from is None:
            monitor.gap_from = monitor.cadence.last
        monitor.up, monitor.waiting = False, True

    def heard(self, event: Data, now: Mono) -> Flows | None:
        """What a message said."""
        kind = type(event)
        monitor = self._by_key.get(event.interval if kind is KlineUpdate else kind)  # type: ignore[union-attr]
        if monitor is None:
            return None
        monitor.last = event
        if monitor.sporadic:
            return None
        if monitor.waiting:
            return self._revive(monitor, float(now))
        trickles = monitor.cadence.arrived(float(now))
        if trickles is None:
            return None
        if trickles:
            monitor.trickles, monitor.cadence.suspect_at = True, float(now)
        if monitor.cadence.suspect_at < float(self.wake_at):
            self.wake_at = Mono(monitor.cadence.suspect_at)
        return None

    def wake(self, now: Mono, *, held: bool) -> list[Action]:
        """What is to be done by now.  ``held``: messages wait for us, so that a silence is our own
        doing."""
        at = float(now)
        actions: list[Action] = []
        check = self._check
        if check is not None and at >= check.until:
            actions += self._go_on(check, at)
        for monitor in self._monitors.values():
            if not monitor.up or at < monitor.cadence.suspect_at:
                continue
            if held:
                monitor.cadence.suspect_at = at + SAME_MOMENT_S
            elif monitor.stale:
                actions += self._replace(monitor, at)
            elif self._check is None:  # one question at a time; the other doubts stand
                actions += self._suspect(monitor, at)
        self._plan()
        return actions

    def answered(self, stream: Stream, latest: Told | None, now: Mono) -> list[Action]:
        """The exchange's newest of that stream; None: it has none."""
        check = self._check
        if check is None or check.step != "ask" or check.asked.stream != stream:
            return []
        if latest is None:
            return self.not_answered(stream, now)
        at = float(now)
        asked = check.asked
        if asked.told is None:
            asked.baseline = latest
        if not newer(asked.told, latest, asked.stream.interval):
            self._check = None
            self.quiet_at = now
            self._confirm_quiet(asked, check.monitor, at)
            self._plan()
            return [Settled("quiet")]
        # It may be on its way: what was asked for just now was said just now.
        check.step, check.latest = "grace", latest
        check.until = at + max(asked.cadence.grace_s, check.monitor.cadence.grace_s)
        self._plan()
        return []

    def not_answered(self, stream: Stream, now: Mono) -> list[Action]:
        """The exchange could not be asked: nothing is proven."""
        check = self._check
        if check is None or check.step != "ask" or check.asked.stream != stream:
            return []
        self._check = None
        check.monitor.cadence.unproven(float(now))
        self._plan()
        return [Settled("failed")]

    def _suspect(self, monitor: MonitoredStream, at: float) -> list[Action]:
        """How to find out about one stream."""
        trickles, monitor.trickles = monitor.trickles, False
        reference = self._reference()
        if reference is None:
            monitor.cadence.unproven(at)
            return []
        askable = monitor.stream.kind in self.askable
        if trickles and askable:
            return self._ask(monitor, monitor, at)
        if reference.silent_as_long_as(monitor):
            return self._ask(reference, monitor, at)
        if askable:
            return self._ask(monitor, monitor, at)
        return self._compare(monitor, reference, at)

    def _ask(self, asked: MonitoredStream, monitor: MonitoredStream, at: float) -> list[Action]:
        self._check = Check(asked, monitor, "ask", at)
        return [Probe(asked.stream)]

    def _compare(
        self, monitor: MonitoredStream, reference: MonitoredStream, at: float
    ) -> list[Action]:
        """Of a kind that cannot be asked about: does the market move while it is silent?"""
        until = at + max(monitor.cadence.grace_s, monitor.cadence.gap_s)
        self._check = Check(reference, monitor, "move", at, until, told=reference.told)
        return []

    def _go_on(self, check: Check, at: float) -> list[Action]:
        """The time of the check's step is over."""
        self._check = None
        asked, monitor = check.asked, check.monitor
        if check.step == "grace":
            assert check.latest is not None, "a grace begins with an answer"
            if newer(asked.told, check.latest, asked.stream.interval):
                return [Settled("news"), *self._mark_dead([asked, monitor], check.began, at)]
            return [Settled("told"), *self._alone(asked, monitor, at)]
        if monitor.cadence.last > check.began or not monitor.up:
            return []
        if check.step == "move":
            now_told = asked.told
            moved = now_told is not None and newer(check.told, now_told, asked.stream.interval)
            if not moved:
                monitor.cadence.confirm_quiet(at)
                return []
            check.step, check.until = "moved", at + monitor.cadence.grace_s
            self._check = check
            return []
        return self._mark_dead([monitor], at, at)

    def _alone(self, asked: MonitoredStream, monitor: MonitoredStream, at: float) -> list[Action]:
        """The reference spoke after all: what about the stream for which it was asked?"""
        if monitor is asked or not monitor.suspected(at):
            monitor.cadence.unproven(at)
            return []
        if monitor.stream.kind in self.askable:
            return self._ask(monitor, monitor, at)
        return self._compare(monitor, asked, at)

    def _confirm_quiet(self, asked: MonitoredStream, monitor: MonitoredStream, at: float) -> None:
        """The market is quiet since ``asked`` fell silent."""
        for each in self._monitors.values():
            if each.up and not each.stale and asked.silent_as_long_as(each):
                each.cadence.confirm_quiet(at)
        if not asked.silent_as_long_as(monitor):
            monitor.cadence.unproven(at)

    def _mark_dead(
        self, found: Iterable[MonitoredStream], asked_at: float, at: float
    ) -> list[Action]:
        """Proven dead, with whatever of the symbol is as silent."""
        candidates = [w for w in dict.fromkeys(found) if w.up]
        dead = dict.fromkeys(w for w in candidates if w.cadence.last <= asked_at)
        if not dead:
            dead = dict.fromkeys(candidates)  # it trickles
        first = next(iter(dead), None)
        if first is None:
            return []
        for each in self._monitors.values():
            if each.up and not each.stale and each.silent_as_long_as(first):
                dead[each] = None
        actions: list[Action] = []
        for each in dead:
            each.stale = each.waiting = True
            each.gap_from = each.cadence.last
            if each.gap_from - each.alive_from > ROTATE_LATEST_S:
                each.rotate_from, each.rotate_wait_s = at, ROTATE_AGAIN_S
            actions.append(Stale(each.stream, at - each.cadence.last))
        for each in dead:
            actions += self._replace(each, at)
        return actions

    def _replace(self, monitor: MonitoredStream, at: float) -> list[Action]:
        """Another connection; and again later and later, should that be as dead."""
        actions: list[Action] = []
        if at >= monitor.rotate_from:
            actions.append(Rotate(monitor.stream))
            monitor.rotate_from = at + monitor.rotate_wait_s
            monitor.rotate_wait_s = min(2 * monitor.rotate_wait_s, ROTATE_LATEST_S)
        monitor.cadence.suspect_at = monitor.rotate_from
        return actions

    def _revive(self, monitor: MonitoredStream, at: float) -> Flows:
        """The first data since it is up, or since it was proven dead."""
        monitor.waiting = monitor.stale = False
        monitor.alive_from = at
        missed_s = 0.0
        if monitor.gap_from is not None:
            missed_s = at - monitor.gap_from
            monitor.gap_from = None
        monitor.cadence.begin(at)
        self._want(monitor.cadence.suspect_at)
        return Flows(monitor.stream, missed_s)

    def _reference(self) -> MonitoredStream | None:
        """The stream that is cheapest to ask about: the shortest candle, or the trades."""
        found = [w for w in self._monitors.values() if w.up and w.stream.kind in self.askable]
        return min(found, key=cost_of, default=None)

    def _add(self, stream: Stream) -> MonitoredStream:
        # Before the silence timeout, so that a quiet market is proven when it strikes.
        most_s = 0.75 * self.silence_s
        cadence = Cadence(self.factor, self.floor_s, unknown_s=most_s, most_s=most_s)
        monitor = self._monitors[stream] = MonitoredStream(stream, cadence, stream.kind in SPORADIC)
        self._by_key[key_of(stream)] = monitor
        return monitor

    def _want(self, at: float) -> None:
        if at < float(self.wake_at):
            self.wake_at = Mono(at)

    def _plan(self) -> None:
        check = self._check
        waiting = (w for w in self._monitors.values() if w.up and (check is None or w.stale))
        times = [w.cadence.suspect_at for w in waiting]
        if check is not None:
            times.append(check.until)
        self.wake_at = Mono(min(times, default=float("inf")))
