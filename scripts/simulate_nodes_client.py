"""A client that moves between nodes: it subscribes, notes what it receives, and resumes.

It takes the protocol at its word: what follows a ``since`` that was recovered is all that it
missed, in order; a fresh history ends where the messages go on.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import trio
from attrs import define, field, frozen

from scripts.simulate_nodes_run import endpoint_of
from scripts.simulate_wire import Ended, Wire
from trio_feed.client.numbers import Numbers, OutOfStep
from trio_feed.core.calendar import next_open
from trio_feed.model import Interval
from trio_feed.simulator.machinery.memory_network import MemoryNetwork
from trio_feed.testing.record import Record, SeriesRecord, Word, values_of

_ROWS = 1000
_ASK_AGAIN_S = 1.0
_RETRY_S = (0.2, 2.0)
_OPENS_WITHIN_S = 10.0
_STAY_S = (5.0, 300.0)
_AWAY_S = (0.0, 40.0)

Message = dict[str, Any]


@frozen
class Gap:
    """Trades between two that came one after the other.  ``told``: that something is missing was
    said between them; times of the two, unix ms."""

    after_id: int
    first_id: int
    told: bool
    after_ms: int
    until_ms: int


@define(eq=False)
class Candles:
    """A subscription to candles.  ``given``: by the exchange, else they are made by the nodes, and
    nothing is known of when the next one has to come."""

    symbol: str
    interval: Interval
    given: bool
    record: SeriesRecord
    counts: Counter[str]
    numbers: Numbers = field(init=False)
    last_ms: int = 0
    told_ms: int = 0
    """Up to here it was said that candles are missing."""
    _known: dict[int, Word] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.numbers = Numbers(f"{self.symbol} {self.interval.value}")

    def request(self) -> Message:
        fields: Message = {"symbol": self.symbol, "interval": self.interval.value, "limit": _ROWS}
        if (since := self.numbers.since()) is not None:
            fields["since"] = since | ({"time": self.last_ms // 1000} if self.last_ms else {})
        return fields

    def confirmed(self, data: Message) -> None:
        if "recovered" in data:
            self.counts["recovered" if data["recovered"] else "not_recovered"] += 1

    def history(self, data: Message) -> None:
        self.numbers.begin(data["epoch"], data["offset"])
        rows = [row for row in data["data"] if row["is_final"]]
        for row in rows:
            open_ms, word = row["time"] * 1000, _word(row)
            if open_ms > self.last_ms:
                self._close(row)
            elif self._known.get(open_ms, word).values != word.values:
                self.record.revised.setdefault(open_ms, []).append(word)
                self._known[open_ms] = word

    def update(self, data: Message, now_s: float) -> None:
        row = data["data"]
        open_ms, kind = row["time"] * 1000, row["update_type"]
        _count(data, self.numbers, self.counts)
        self.record.arrived(now_s)
        if kind == "final":
            self._close(row)
            self.record.came[open_ms] = now_s
        elif kind == "revision":
            self.record.rows([row])
            self._known[open_ms] = _word(row)
        else:
            self.record.updates += 1
            due = next_open(self.interval, self.last_ms)
            late = self.given and open_ms > due and open_ms > self.told_ms
            if self.last_ms and (open_ms < due or late):
                self.counts["odd_updates"] += 1

    def _close(self, row: Message) -> None:
        self.record.rows([row])
        self._known[row["time"] * 1000] = _word(row)
        self.last_ms = max(self.last_ms, row["time"] * 1000)

    def status(self, data: Message) -> None:
        self.record.status(data)
        if data["status"] == "unrepairable" and self.given:
            self.counts["told_candles"] += 1
            self.told_ms = max(self.told_ms, next_open(self.interval, data.get("to", 0) * 1000))


@define(eq=False)
class Trades:
    """A subscription to trades."""

    symbol: str
    counts: Counter[str]
    gaps: list[Gap] = field(factory=list)
    told: list[tuple[int, int]] = field(factory=list)
    """Spans, unix ms, of which it was said that trades are missing: for ever, or still."""
    numbers: Numbers = field(init=False)
    _last: tuple[int, int] | None = None
    _is_told: bool = False
    _is_anew: bool = False
    """The server began anew, at a node that may be behind: what is here is passed over."""

    def __attrs_post_init__(self) -> None:
        self.numbers = Numbers(self.symbol)

    def request(self) -> Message:
        since = self.numbers.since()
        about: Message = {"symbol": self.symbol, "channel": "trade"}
        return about if since is None else about | {"since": since}

    def confirmed(self, data: Message) -> None:
        if data.get("recovered") is not True:
            self._is_told |= "recovered" in data
            self._is_anew = True
            self.numbers.begin(data.get("epoch"), data.get("offset"))
        if "recovered" in data:
            self.counts["recovered" if data["recovered"] else "not_recovered"] += 1

    def update(self, data: Message) -> bool:
        """Whether it is new."""
        trade = data["data"]
        _count(data, self.numbers, self.counts)
        if self._is_anew and self._last is not None and trade["last_id"] <= self._last[0]:
            return False
        self._is_anew = False
        if self._last is not None and trade["first_id"] > self._last[0] + 1:
            self.gaps.append(
                Gap(self._last[0], trade["first_id"], self._is_told, self._last[1], trade["time"])
            )
        self._last, self._is_told = (trade["last_id"], trade["time"]), False
        return True

    def status(self, data: Message) -> None:
        span = data.get("from", 0) * 1000, data.get("to", data.get("from", 0)) * 1000 + 999
        match data["status"]:
            case "unrepairable":
                self._is_told = True
                self.counts["told_trades"] += 1
                self.told.append(span)
            case "repairing":
                self.told.append(span)
            case "repaired" if span in self.told:
                self.told.remove(span)

    def silent_gaps(self) -> list[Gap]:
        return [
            gap
            for gap in self.gaps
            if not gap.told
            and not any(a <= gap.until_ms and gap.after_ms <= b for a, b in self.told)
        ]


@define(eq=False)
class Client:
    """``nodes``: where it may sit.  ``symbols``: their candles, of each interval of ``origins`` (in
    the judge's words); ``traded``: of which the trades."""

    name: str
    network: MemoryNetwork
    nodes: Sequence[str]
    symbols: Sequence[str]
    origins: Mapping[Interval, str]
    traded: str
    chance: random.Random
    on_news: Callable[[], object]
    record: Record = field(init=False)
    candles: dict[tuple[str, Interval], Candles] = field(init=False)
    trades: Trades = field(init=False)
    counts: Counter[str] = field(factory=Counter)
    moves: bool = True

    def __attrs_post_init__(self) -> None:
        self.record = Record(None, self.traded)
        self.candles = {
            (symbol, interval): Candles(
                symbol,
                interval,
                origin == "exchange",
                self.record.of(symbol, interval),
                self.counts,
            )
            for symbol in self.symbols
            for interval, origin in self.origins.items()
        }
        self.trades = Trades(self.traded, self.counts)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            node = self.chance.choice(self.nodes)
            with trio.move_on_after(self.chance.uniform(*_STAY_S) if self.moves else 1e9) as stay:
                await self._sit(node)
            if stay.cancelled_caught:
                self.counts["moves"] += 1
                away = self.chance.choice((False, True))
                await trio.sleep(self.chance.uniform(*_AWAY_S) if away else 0)
            else:
                self.counts["dropped"] += 1
                await trio.sleep(self.chance.uniform(*_RETRY_S))

    async def _sit(self, node: str) -> None:
        """At one node until the connection ends."""
        try:
            stream = await self.network.dial(*endpoint_of(node))
        except OSError:
            return
        try:
            async with trio.open_nursery() as nursery:
                with suppress(Ended, trio.TooSlowError):
                    with trio.fail_after(_OPENS_WITHIN_S):
                        wire = await Wire.open(stream, node, "/ws")
                    await self._converse(wire, nursery)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.aclose_forcefully(stream)

    async def _converse(self, wire: Wire, nursery: trio.Nursery) -> None:
        asked: list[Candles | Trades] = [*self.candles.values(), self.trades]

        async def ask(number: int, delay_s: float) -> None:
            await trio.sleep(delay_s)
            request = {"type": "subscribe", "id": number, **asked[number].request()}
            with suppress(Ended):  # who reads is told
                await wire.send(json.dumps(request))

        for number in range(len(asked)):
            await ask(number, 0)
        while True:
            for text in await wire.receive():
                message = json.loads(text)
                if message["type"] == "error" and "id" in message:
                    self.counts["asked_again"] += 1
                    nursery.start_soon(ask, message["id"], _ASK_AGAIN_S)
                else:
                    self._take(message)
                self.on_news()

    def _take(self, message: Message) -> None:
        now_s, data = trio.current_time(), message.get("data", {})
        self.record.messages += 1
        trades = data.get("channel") == "trade" if isinstance(data, dict) else False
        match message["type"]:
            case "history_data":
                self.candles[_series(data)].history(data)
            case "kline_data":
                self.candles[_series(data)].update(data, now_s)
            case "trade_data" if not data.get("snapshot"):
                if self.trades.update(data):
                    self.record.note(message, now_s)
            case "subscription_confirmed":
                (self.trades if trades else self.candles[_series(data)]).confirmed(data)
            case "stream_status":
                (self.trades if trades else self.candles[_series(data)]).status(data)


def _series(data: Message) -> tuple[str, Interval]:
    return data["symbol"], Interval(data["interval"])


def _count(data: Message, numbers: Numbers, counts: Counter[str]) -> None:
    if data.get("snapshot"):
        return  # how things stood: it has the number of the message before
    try:
        if not numbers.take(data["epoch"], data["offset"], data.get("conflated", 0)):
            counts["old_numbers"] += 1
    except OutOfStep:
        counts["out_of_step"] += 1
        numbers.begin(data["epoch"], data["offset"])


def _word(row: Message) -> Word:
    return Word(values_of(row), row.get("complete", True))
