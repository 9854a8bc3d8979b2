"""Candles as text: one column each, half a line of resolution, volumes and times below.  Pure."""

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_EVEN, Decimal

from ..client import Stream
from ..model import Interval, Kline, Source
from .terminal import iso

_HALVES = {
    "  ": " ", "ww": "│", "bb": "┃", " w": "╷", "w ": "╵", " b": "╻", "b ": "╹", "wb": "╽",
    "bw": "╿",
}  # fmt: skip
"""What the upper and the lower half of a cell hold: nothing, wick, body."""
_BARS = " ▁▂▃▄▅▆▇█"
_UP, _DOWN, _RESET = "\x1b[32m", "\x1b[31m", "\x1b[0m"
_LEAST_HEIGHT = 4
_LABEL_EVERY = 4
_TIME_WIDTH = 12
_DAYS = frozenset({Interval.D1, Interval.D3, Interval.W1, Interval.MO1})
_SECONDS = frozenset({Interval.S1, Interval.S30})
_ROOM = 14
"""Columns beside the candles: a price and its axis."""


def room(width: int) -> int:
    """How many candles fit into so many columns."""
    return max(width - _ROOM, 1)


def draw(
    stream: Stream,
    klines: Sequence[Kline],
    *,
    width: int,
    height: int,
    colours: bool = False,
) -> str:
    """The last candles that fit; those of a simulated market are marked so."""
    shown = klines[-room(width) :]
    if not shown:
        return f"{stream.symbol} {stream.interval}: no candles yet"
    lines = max(height - 5, _LEAST_HEIGHT)
    top, bottom = max(k.high for k in shown), min(k.low for k in shown)
    columns = [_column(k, top, bottom, 2 * lines) for k in shown]
    paint = [(_UP if k.close >= k.open else _DOWN) if colours else "" for k in shown]
    digits = _digits(shown)
    out = [_title(stream, shown)[:width]]
    for line in range(lines):
        cells = _painted((_HALVES[c[2 * line : 2 * line + 2]] for c in columns), paint)
        label = ""
        if line % _LABEL_EVERY == 0 or line == lines - 1:
            label = _plain(top - (top - bottom) * line / (lines - 1), digits)
        out.append(f"{cells} ┤ {label}" if label else f"{cells} │")
    most = max(k.volume for k in shown) or Decimal(1)
    bars = (_BARS[int((k.volume * 8 / most).to_integral_value())] for k in shown)
    out.append(f"{_painted(bars, paint)} │ vol {_short(most)}")
    out += _times(shown, stream.interval)
    return "\n".join(out)


def _column(kline: Kline, top: Decimal, bottom: Decimal, halves: int) -> str:
    """From above: ``w`` wick, ``b`` body, a letter for each half of a line."""
    span = top - bottom

    def place(price: Decimal) -> int:
        if not span:
            return halves // 2
        share = (top - price) / span * (halves - 1)
        return int(share.to_integral_value(ROUND_HALF_EVEN))

    high, low = place(kline.high), place(kline.low)
    body = sorted((place(kline.open), place(kline.close)))
    cells = [" "] * halves
    cells[high : low + 1] = "w" * (low + 1 - high)
    cells[body[0] : body[1] + 1] = "b" * (body[1] + 1 - body[0])
    return "".join(cells)


def _painted(cells: Iterable[str], paint: Sequence[str]) -> str:
    """Neighbours of one colour share its escape."""
    out, before = "", ""
    for cell, colour in zip(cells, paint, strict=True):
        if colour != before and cell != " ":
            out, before = out + colour, colour
        out += cell
    return out + _RESET if before else out


def _title(stream: Stream, shown: Sequence[Kline]) -> str:
    first, last = shown[0], shown[-1]
    change = (last.close - first.open) / first.open * 100 if first.open else Decimal(0)
    where = f"{stream.exchange}:" if stream.exchange else ""
    high, low = max(k.high for k in shown), min(k.low for k in shown)
    words = [
        f"{where}{stream.symbol} {stream.interval}",
        f"last {last.close:f}",
        f"{change:+.2f} %",
        f"high {high:f}",
        f"low {low:f}",
        f"from {iso(first.open_ms)[:16].replace('T', ' ')} UTC",
    ]
    if any(k.source is Source.SIMULATED for k in shown):
        words.insert(1, "SIMULATED")
    return "  ".join(words)


def _times(shown: Sequence[Kline], interval: Interval | None) -> list[str]:
    """The axis and its labels: the open time of every so many candles."""
    axis, labels = "", ""
    for at, kline in enumerate(shown):
        marked = at % _TIME_WIDTH == 0
        axis += "┴" if marked else "─"
        if marked and at + 5 <= len(shown) + _ROOM:
            text = iso(kline.open_ms)
            day, short = interval in _DAYS, interval in _SECONDS
            labels = labels.ljust(at) + (
                text[5:10] if day else text[11:19] if short else text[11:16]
            )
    return [f"{axis}─┘", labels]


def _digits(shown: Sequence[Kline]) -> int:
    """Decimal places of the prices, as the exchange writes them."""
    exponents = [k.close.as_tuple().exponent for k in shown]
    return max(-int(e) if isinstance(e, int) else 0 for e in exponents)


def _plain(price: Decimal, digits: int) -> str:
    return f"{price:.{max(digits, 0)}f}"


def _short(volume: Decimal) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if volume >= size:
            return f"{volume / size:.1f}{letter}"
    return f"{volume:.3g}"
