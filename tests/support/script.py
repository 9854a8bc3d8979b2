"""Server messages for the client's state machines, short to write.  Minutes count from M0."""

from decimal import Decimal
from typing import Any

from support.make import MINUTE, T0
from trio_feed.client import wire
from trio_feed.client.messages import UpdateKind

KINDS = {"o": UpdateKind.REALTIME, "f": UpdateKind.FINAL, "r": UpdateKind.REVISION}


def time_s(minute: int) -> int:
    return (T0 + minute * MINUTE) // 1000


def row(minute: int, kind: UpdateKind = UpdateKind.FINAL, close: str = "1.0") -> wire.Row:
    price = Decimal(close)
    closed = kind is not UpdateKind.REALTIME
    return wire.Row(time_s(minute), price, price, price, price, Decimal(1), closed, kind, 1)


def update(
    word: str, epoch: int, offset: int, conflated: int = 0, *, snapshot: bool = False
) -> wire.Numbered[wire.Row]:
    """``f7``: the seventh minute is closed; ``o`` open, ``p`` provisional, ``r`` revision."""
    data = row(int(word[1:]), KINDS["o" if word[0] == "p" else word[0]])
    data.provisional = word[0] == "p"
    return wire.Numbered(
        "BTCUSDT", "venue", epoch, offset, "exchange", 0, 0.0, 0.0, data,
        conflated=conflated, snapshot=snapshot,
    )  # fmt: skip


def page(minutes: "range | list[int]", epoch: int = 1, offset: int = 0) -> wire.Page:
    return wire.Page("venue", epoch, offset, [row(minute) for minute in minutes], False)


def told(events: list[Any]) -> list[str]:
    """Events back to words: ``f7``, ``h0-4`` a history, ``resumed``, ``resumed!`` with a hole."""
    return [_word(event) for event in events]


def _word(event: Any) -> str:
    match type(event).__name__:
        case "CandleUpdate":
            (letter,) = (k for k, v in KINDS.items() if v is event.kind)
            letter = "p" if event.provisional else letter
            return f"{letter}{_minute(event.kline)}"
        case "History":
            minutes = [_minute(kline) for kline in event.candles]
            return f"h{minutes[0]}-{minutes[-1]}" if minutes else "h"
        case "ConnectionChange":
            return event.state.value + ("" if event.recovered else "!")
        case name:
            return name


def _minute(kline: Any) -> int:
    return int(kline.open_ms - T0) // MINUTE
