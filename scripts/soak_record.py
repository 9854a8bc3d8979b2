"""What is asked of a soak and what it saw: the plan, the client's record, the rows of the store."""

import sqlite3
from collections import Counter
from collections.abc import Container
from contextlib import closing
from pathlib import Path
from typing import Any

import trio
from attrs import define, field, frozen

from trio_feed.model import Interval

SERIES = {
    "binance_usdm": ((Interval.M1,), (Interval.S1, Interval.S30)),
    "binance": ((Interval.S1, Interval.M1), (Interval.S30,)),
}
"""By venue: intervals taken from the exchange, intervals built from trades."""
VALUES = ("open", "high", "low", "close", "volume")

Key = tuple[str, Interval]
Values = tuple[float, ...]


@frozen
class Plan:
    """What is asked for.  ``built``: take the intervals that are made of trades, too."""

    minutes: float = 60.0
    kill_every_s: float = 30.0
    seed: int = 1
    venue: str = "binance_usdm"
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT")
    built: bool = True
    pause_s: float = 0.0
    """Each process is stopped once for up to so long; 0: never."""
    trades_per_minute: int = 600

    @property
    def intervals(self) -> tuple[tuple[Interval, ...], tuple[Interval, ...]]:
        """Taken from the exchange, built from trades."""
        supplied, built = SERIES[self.venue]
        return supplied, built if self.built else ()

    @property
    def keys(self) -> list[Key]:
        return [(s, i) for s in self.symbols for i in sum(self.intervals, ())]

    def supplied(self, key: Key) -> bool:
        """Whether the exchange has this series itself."""
        return key[1] in SERIES[self.venue][0]


@define
class Record:
    """What the client received, over all its connections."""

    told: dict[Key, dict[int, Values]] = field(factory=dict)
    finals: Counter[tuple[Key, int, int]] = field(factory=Counter)
    """How often as final, by (series, epoch, open ms)."""
    out_of_order: int = 0
    contradicted: int = 0
    """Candles that were told again, complete both times, with other values."""
    connections: int = 0
    _newest: dict[Key, int] = field(factory=dict)
    _latest: Key | None = None
    _told_one: trio.Event = field(factory=trio.Event)

    async def next_final(self, wanted: Container[Key]) -> None:
        """Wait until the client has received a closed candle of one of these."""
        self._latest = None
        while self._latest not in wanted:
            await self._told_one.wait()

    def connected(self) -> None:
        self.connections += 1
        self._newest.clear()

    def note(self, message: dict[str, Any]) -> None:
        if message["type"] not in ("history_data", "kline_data"):
            return
        data = message["data"]
        key = (data["symbol"], Interval(data["interval"]))
        if message["type"] == "history_data":
            for row in data["data"]:
                self._closed(key, row)
        elif (row := data["data"])["update_type"] == "final":
            self.finals[key, data["epoch"], row["time"]] += 1
            self._closed(key, row)
            self._latest = key
            self._told_one.set()
            self._told_one = trio.Event()

    def _closed(self, key: Key, row: dict[str, Any]) -> None:
        open_ms = row["time"] * 1000
        self.out_of_order += open_ms <= self._newest.get(key, 0)
        self._newest[key] = open_ms
        told = self.told.setdefault(key, {})
        if row["complete"]:
            values = tuple(float(row[name]) for name in VALUES)
            self.contradicted += (told.get(open_ms) or values) != values
            told[open_ms] = values
        else:
            told.setdefault(open_ms, ())


Stored = dict[Key, dict[int, Values]]
"""Values of complete candles; () for those that say themselves that they are not."""


def read_store(path: Path) -> tuple[Stored, int]:
    """Everything in the file, read beside the service, and what SQLite finds damaged in it."""
    question = (
        "SELECT symbol, interval, open_ms, complete, open, high, low, close, volume"
        " FROM klines JOIN series ON series.id = series_id ORDER BY series_id, klines.open_ms"
    )
    stored: Stored = {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        damage = connection.execute("PRAGMA integrity_check").fetchall()
        for symbol, interval, open_ms, complete, *values in connection.execute(question):
            rows = stored.setdefault((symbol, Interval(interval)), {})
            assert open_ms not in rows, "the table has a unique index"
            rows[open_ms] = tuple(map(float, values)) if complete else ()
    return stored, 0 if damage == [("ok",)] else len(damage)
