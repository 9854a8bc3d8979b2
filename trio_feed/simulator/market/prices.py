"""Prices out of hashes, top-down, in whole ticks and lots.

A walk that is stepped forward has to be run from its beginning to know any later price.  So the
market goes the other way: the price at each midnight is a function of the day's number (value
noise: octaves of hashed lattice points, each octave twice as long and sqrt(2) times as strong,
which has the spectrum of a random walk but bounds), a day's candle lies on two midnights, and a
candle *splits* into the candles inside it: a bridge from its open to its close, kept between its
low and its high and touching both.  Day -> 24 hours -> 60 minutes -> N trades.  What is above
never needs what is below, so years of daily candles cost a few hashes each.

Everything here is integer arithmetic on SHAKE-128 bytes: the same digits on every machine.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_SWINGS_PPM = (8_000, 11_314, 16_000, 22_627, 32_000, 45_255, 64_000, 90_510, 128_000, 181_020)
"""Strength of the octaves of 1, 2, 4 ... 512 days; together below 60 % of the base price."""
_LATTICE = 1 << 20

_DAY_SHAPE = (35, 31, 29, 30, 33, 37, 42, 48, 54, 56, 53, 50, 52, 64, 78, 82, 76, 68, 60, 53, 47,
              43, 41, 38)  # fmt: skip
"""Relative volume of the 24 hours; rotated per day, the sum stays."""
_HOUR_SHAPE = tuple(15 + (37 * i * i + 11 * i) % 31 for i in range(60))
"""Relative volume of the 60 minutes; rotated per hour, the sum stays."""
MEAN_LOTS_PER_UNIT = sum(_DAY_SHAPE) * sum(_HOUR_SHAPE) // (24 * 60)
_FEWEST_LOTS_PER_UNIT = min(_DAY_SHAPE) * min(_HOUR_SHAPE)


class Bar(NamedTuple):
    """A candle in ticks and lots; ``quote`` in ticks x lots; ``trades`` counts them."""

    open: int
    high: int
    low: int
    close: int
    lots: int
    quote: int
    trades: int


class Path(NamedTuple):
    """The n candles inside a candle, by column.  ``points`` has n + 1 entries: opens and close."""

    points: list[int]
    highs: list[int]
    lows: list[int]
    lots: list[int]

    def bar(self, first: int, end: int, *, reference: int, count: int) -> Bar:
        """Candles [first, end) as one; ``count`` is the trades in each."""
        lots = sum(self.lots[first:end])
        return Bar(
            self.points[first], max(self.highs[first:end]), min(self.lows[first:end]),
            self.points[end], lots, lots * reference, (end - first) * count,
        )  # fmt: skip


class Ticks(NamedTuple):
    """The trades of a minute, by column; ``offsets`` are ms after its start, ascending."""

    offsets: list[int]
    prices: list[int]
    lots: list[int]
    sells: list[bool]

    def bar(self, first: int, end: int, *, reference: int) -> Bar:
        """Trades [first, end), at least one, as a candle."""
        prices, lots = self.prices[first:end], sum(self.lots[first:end])
        return Bar(
            prices[0], max(prices), min(prices), prices[-1], lots, lots * reference, end - first
        )


def noise(size: int, *key: object) -> bytes:
    """``size`` bytes that depend on ``key`` only."""
    return hashlib.shake_128("|".join(map(str, key)).encode()).digest(size)


def number(*key: object) -> int:
    """A 32-bit number that depends on ``key`` only."""
    return int.from_bytes(noise(4, *key), "little")


def merge(bars: Sequence[Bar]) -> Bar:
    """Neighbouring candles, in order, at least one, as one."""
    if len(bars) == 1:
        return bars[0]
    opens, highs, lows, closes, lots, quotes, counts = zip(*bars, strict=True)
    return Bar(opens[0], max(highs), min(lows), closes[-1], sum(lots), sum(quotes), sum(counts))


def level(seed: int, symbol: str, day: int, base: int) -> int:
    """The price in ticks at the midnight that begins ``day`` (days since 1970)."""
    ppm = 0
    for octave, swing in enumerate(_SWINGS_PPM):
        width = 1 << octave
        cell, into = divmod(day, width)
        left = _lattice(seed, symbol, octave, cell)
        right = _lattice(seed, symbol, octave, cell + 1)
        ppm += swing * (left * (width - into) + right * into) // (width * _LATTICE)
    return base * (1_000_000 + ppm) // 1_000_000


@lru_cache(maxsize=65_536)
def _lattice(seed: int, symbol: str, octave: int, cell: int) -> int:
    return number(seed, symbol, "lattice", octave, cell) % (2 * _LATTICE + 1) - _LATTICE


def day_volume(units: int) -> int:
    """Lots of a day whose minutes are ``units`` x hour shape x minute shape."""
    return units * sum(_DAY_SHAPE) * sum(_HOUR_SHAPE)


def fewest_units(trades_per_minute: int) -> int:
    """The smallest ``units`` that leave a lot for every trade of every minute."""
    return -(-trades_per_minute // _FEWEST_LOTS_PER_UNIT)


def hours_of(day: Bar, key: bytes, units: int, turning: bool = False) -> Path:
    """A day's 24 hours.  ``key`` is noise of at least 49 bytes."""
    turn = key[48] % 24
    shape = _DAY_SHAPE[turn:] + _DAY_SHAPE[:turn]
    lots = [units * sum(_HOUR_SHAPE) * weight for weight in shape]
    return _split(day, key, lots, turning)


def minutes_of(hour: Bar, key: bytes, turning: bool = False) -> Path:
    """An hour's 60 minutes.  ``key`` is noise of at least 121 bytes."""
    unit = hour.lots // sum(_HOUR_SHAPE)
    turn = key[120] % 60
    shape = _HOUR_SHAPE[turn:] + _HOUR_SHAPE[:turn]
    return _split(hour, key, [unit * weight for weight in shape], turning)


def _split(bar: Bar, key: bytes, lots: list[int], turning: bool) -> Path:
    """Split a candle into ``len(lots)`` candles that roll up to it.  ``turning``: a price beyond a
    bound turns back from it; else it stays at it, which is how recorded runs have it."""
    parts = len(lots)
    walk = list(accumulate(2 * byte - 255 for byte in key[:parts]))
    bridge = [value * parts - walk[-1] * (i + 1) for i, value in enumerate(walk)]
    spread = max(1, max(bridge) - min(bridge)) * 10
    low, high, rise, room = bar.low, bar.high, bar.close - bar.open, 7 * (bar.high - bar.low)
    points = [bar.open]
    for i, value in enumerate(bridge):
        point = bar.open + rise * (i + 1) // parts + value * room // spread
        if turning and not low <= point <= high:
            point = 2 * (low if point < low else high) - point
        points.append(low if point < low else high if point > high else point)
    wicks = [byte * (high - low) // (64 * parts) for byte in key[parts : 2 * parts]]
    pairs = list(zip(points, points[1:], wicks, strict=False))
    highs = [min(high, max(a, b) + wick) for a, b, wick in pairs]
    lows = [max(low, min(a, b) - wick) for a, b, wick in pairs]
    highs[highs.index(max(highs))] = high
    lows[lows.index(min(lows))] = low
    return Path(points, highs, lows, lots)


def trades_of(minute: Bar, key: bytes, count: int) -> Ticks:
    """A minute's ``count`` >= 4 trades.  ``key`` is noise of ``4 * count + 8`` bytes."""
    offsets = []
    for i, byte in enumerate(key[:count]):
        first, end = MINUTE_MS * i // count, MINUTE_MS * (i + 1) // count
        offsets.append(min(first + 1 + byte * (end - first - 1) // 256, MINUTE_MS - 1))
    shares = list(accumulate((byte + 1 for byte in key[count : 2 * count]), initial=0))
    spare = minute.lots - count
    bounds = [spare * share // shares[-1] + i for i, share in enumerate(shares)]
    lots = [b - a for a, b in pairwise(bounds)]
    prices = _zigzag(minute, key[2 * count : 3 * count], key[4 * count :], count)
    sells = [byte > 127 for byte in key[3 * count : 4 * count]]
    return Ticks(offsets, prices, lots, sells)


def _zigzag(minute: Bar, wiggles: bytes, turns: bytes, count: int) -> list[int]:
    """Open -> one extreme -> the other -> close, with small wiggles between the four."""
    first = 1 + int.from_bytes(turns[:4], "little") % (count - 3)
    second = first + 1 + int.from_bytes(turns[4:8], "little") % (count - 2 - first)
    low, high = minute.low, minute.high
    up_first = turns[0] & 64
    tops = (high, low) if up_first else (low, high)
    corners = [(0, minute.open), (first, tops[0]), (second, tops[1]), (count - 1, minute.close)]
    prices = [minute.open]
    for (at, start), (until, stop) in pairwise(corners):
        for i in range(at + 1, until):
            price = start + (stop - start) * (i - at) // (until - at)
            price += (wiggles[i] - 128) * (high - low) // 1024
            prices.append(low if price < low else high if price > high else price)
        prices.append(stop)
    return prices
