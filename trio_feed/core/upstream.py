"""What one symbol gets from the exchange, stream by stream, and how its clients know that to stand.

:mod:`.liveness` decides whether a stream delivers, :mod:`.status` what subscribers of what hangs on
it are to know; here the one is put to the other.  Pure.
"""

from collections.abc import Iterable

from ..instants import Now
from ..model import Channel, Interval, Kline, Series, StreamKey, Trade
from .channels import BY_KIND
from .effects import Effect, Fetch, Report, Resubscribe
from .from_trades import TradeCandles
from .health import Span
from .liveness import Liveness
from .monitored import Action, Flows, Probe, Rotate, Settled, Stale
from .questions import Need
from .scope import Scope
from .streams import SPORADIC, Kind, Stream


class Upstream:
    """The streams of one symbol."""

    __slots__ = ("_intervals", "_scope", "_trades", "liveness")

    def __init__(self, scope: Scope, trades: TradeCandles | None) -> None:
        connection, rules = scope.settings.connection, scope.rules
        self._scope, self._trades = scope, trades
        self.liveness = Liveness(
            frozenset({Kind.KLINE, rules.trade_kind} - {Kind.PRICE}),
            connection.stall_factor,
            connection.stall_min_s,
            connection.silence_timeout_s,
        )
        self._intervals: dict[Stream, list[Interval]] = {}

    def use(self, streams: Iterable[Stream], problem: str) -> list[Effect]:
        """These are its streams from now on.  Where those that it had are gone because of a
        ``problem``, its subscribers hear of it."""
        status, before = self._scope.status, self._scope.status.stream_keys
        self._intervals = {stream: self._intervals_of(stream) for stream in streams}
        self.liveness.keep(self._intervals)
        status.stream_keys = {s: self._stream_keys_of(s) for s in self._intervals}
        gone = (key for s, keys in before.items() if s not in self._intervals for key in keys)
        return [*status.broke_off(dict.fromkeys(gone), problem)] if problem else []

    @property
    def streams(self) -> list[Stream]:
        return list(self._intervals)

    def streams_of(self, kind: Kind) -> list[Stream]:
        return [stream for stream in self._intervals if stream.kind is kind]

    def up(self, stream: Stream, now: Now) -> list[Effect]:
        """Its connection delivers from now on: whatever closed meanwhile is due."""
        self.liveness.up(stream, now.mono)
        if stream.kind in SPORADIC:  # subscribed is all that can be said before something happens
            return [*self._scope.status.flows(stream, {})]
        self._scope.candles.resumed(self._intervals.get(stream, ()), now)
        return [*self._scope.status.up(stream, self._missing(stream, now))]

    def down(self, stream: Stream, reason: str) -> list[Effect]:
        """Nothing carries it any more."""
        self.liveness.lost(stream)
        return [*self._scope.status.lost(stream, reason)]

    def flows(self, flows: Flows, now: Now) -> list[Effect]:
        """A stream delivered for the first time (again), and that has been taken."""
        scope, stream = self._scope, flows.stream
        out: list[Effect] = []
        if flows.missed_s:
            out.append(Report("", "", {}, "gap_seconds", (), flows.missed_s))
        scope.candles.resumed(self._intervals.get(stream, ()), now)
        scope.alarm.want(now.mono)
        return [*out, *scope.status.flows(stream, self._missing(stream, now))]

    def nothing_missing(self) -> list[Effect]:
        """All that its streams told so far is here."""
        out: list[Effect] = []
        for stream in self._intervals:
            if self.liveness.is_up(stream.kind):
                out += self._scope.status.complete(stream)
        return out

    def wake(self, now: Now, *, held: bool) -> tuple[list[Effect], list[Stream]]:
        """What is due, and the streams that were found dead.  ``held``: messages wait for us, so a
        silence is our own doing."""
        if self.liveness.wake_at > now.mono:
            return [], []
        return self._act(self.liveness.wake(now.mono, held=held), now)

    def probed(
        self, fetch: Fetch, latest: Kline | Trade | None, now: Now
    ) -> tuple[list[Effect], list[Stream]]:
        """The exchange's newest candle or trade; None: there was no answer."""
        kind = Kind.KLINE if fetch.interval else self._scope.rules.trade_kind
        found = (s for s in self.streams_of(kind) if s.interval == fetch.interval)
        stream = next(found, None)
        if stream is None:
            return [], []
        return self._act(self.liveness.answered(stream, latest, now.mono), now)

    def _act(self, actions: Iterable[Action], now: Now) -> tuple[list[Effect], list[Stream]]:
        out: list[Effect] = []
        dead: list[Stream] = []
        for action in actions:
            match action:
                case Probe(stream):
                    out.append(Fetch(Need.PROBE, self._scope.symbol, stream.interval))
                case Stale(stream, silent_s):
                    fields = {"stream": stream.name, "silent_s": round(silent_s, 3)}
                    out.append(Report("stream.stale", "warning", fields))
                    reason = f"silent for {silent_s:.1f} s while the market moves"
                    out += self._scope.status.lost(stream, reason)
                    dead.append(stream)
                case Rotate(stream):
                    out.append(Resubscribe(stream, "stale"))
                case Settled(result):
                    out.append(Report("", "", {}, "probes", (result,)))
                case Flows():
                    out += self.flows(action, now)
        return out, dead

    def _missing(self, stream: Stream, now: Now) -> dict[StreamKey, Span | None]:
        """What of its stream keys is fetched now."""
        found: dict[StreamKey, Span | None] = {}
        for stream_key in self._scope.status.stream_keys.get(stream, ()):
            if isinstance(stream_key, Series):
                ledger = self._scope.candles.ledgers[stream_key.interval]
                last = ledger.grid.previous(ledger.grid.open_of(int(now.exchange)))
                found[stream_key] = (ledger.expected, last) if ledger.expected <= last else None
            elif stream_key.channel is Channel.TRADE and self._trades is not None:
                found[stream_key] = self._trades.gap_ms
        return found

    def _intervals_of(self, stream: Stream) -> list[Interval]:
        """The series that are taken or built from this stream."""
        scope = self._scope
        if stream.interval is not None:
            return [stream.interval] if stream.interval in scope.candles.ledgers else []
        if stream.kind is scope.rules.trade_kind:
            return list(scope.settings.trade_intervals)
        return []

    def _stream_keys_of(self, stream: Stream) -> list[StreamKey]:
        """What clients get from this stream."""
        scope = self._scope
        intervals = self._intervals_of(stream)
        if Interval.M1 in intervals:
            intervals += scope.settings.rollup_intervals
        stream_keys: list[StreamKey] = [scope.candles.ledgers[i].series for i in intervals]
        is_trades = stream.kind is scope.rules.trade_kind
        channels = (Channel.TRADE,) if is_trades else BY_KIND.get(stream.kind, ())
        keys = scope.channel_keys
        return stream_keys + [keys[channel] for channel in channels if channel in keys]
