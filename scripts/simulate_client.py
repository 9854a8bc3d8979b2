"""The client of a simulated service: what it was told, and whether its books were right."""

import json
from typing import Any

import trio
import trio_websocket
from attrs import define, field

from trio_feed.simulator.books import STEP_MS, BookPath

_VALUES = ("open", "high", "low", "close", "volume", "quote_volume")
"""Without the number of trades: OKX does not give it."""
_IDS_PER_STEP = 8

Values = tuple[float, ...]


def values_of(row: Any) -> Values:
    """Of a candle in a message, or of one of ours."""
    read = row.__getitem__ if isinstance(row, dict) else lambda name: getattr(row, name)
    return tuple(float(read(name)) for name in _VALUES)


@define
class BookCheck:
    """Compares each book that is not stale with the one that stood at its update."""

    path: BookPath
    by_id: bool
    """Update ids say the step (Binance); else the event's time does (OKX)."""
    checked: int = 0
    mismatches: int = 0

    def note(self, message: dict[str, Any]) -> None:
        book = message["data"]
        if book["stale"]:
            return
        self.checked += 1
        step = book["update_id"] // _IDS_PER_STEP
        if not self.by_id:
            step = message["event_time"] // STEP_MS
        most = max(len(book["bids"]), len(book["asks"]))
        bids, asks = self.path.levels(step, most)
        self.mismatches += not (_begins(bids, book["bids"]) and _begins(asks, book["asks"]))


def _begins(levels: Any, told: list[list[float]]) -> bool:
    """A book shows no more levels than it knows exactly, which may be few for a while."""
    return told == [[float(price), float(size)] for price, size in levels[: len(told)]]


@define
class Record:
    """Everything that a client was told.  ``finals``: (open ms, values) of each closed candle in
    the order in which they came; ``revised``: what was said later, by open time; ids of trades."""

    books: BookCheck
    finals: list[tuple[int, Values]] = field(factory=list)
    revised: dict[int, Values] = field(factory=dict)
    trades: set[int] = field(factory=set)
    last_ms: int = 0

    def note(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "history_data":
            self._rows(message["data"]["data"])
        elif kind == "kline_data":
            self._rows([message["data"]["data"]])
        elif kind == "trade_data":
            trade = message["data"]["data"]
            self.trades.update(range(trade["first_id"], trade["last_id"] + 1))
        elif kind == "book_data":
            self.books.note(message["data"])

    def _rows(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            open_ms = row["time"] * 1000
            if row["update_type"] == "revision":
                self.revised[open_ms] = values_of(row)
            elif row["is_final"]:
                self.finals.append((open_ms, values_of(row)))
                self.last_ms = max(self.last_ms, open_ms)


async def listen(
    stream: trio.abc.Stream,
    requests: list[dict[str, Any]],
    record: Record,
    *,
    last_ms: int,
    complete: trio.Event,
) -> str:
    """Subscribe and note until the connection ends; returns why it did.  ``complete`` is set with
    the candle that opens at ``last_ms``."""
    async with trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, stream, "push", "/ws", message_queue_size=1000
        )
        try:
            for request in requests:
                await connection.send_message(json.dumps({"type": "subscribe", **request}))
            while True:
                record.note(json.loads(await connection.get_message()))
                if record.last_ms >= last_ms:
                    complete.set()
        except trio_websocket.ConnectionClosed as error:
            return str(error.reason)
    raise AssertionError("reading ends with an exception")
