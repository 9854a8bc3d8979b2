"""A seed becomes a script: which fault happens when.  Pure; :mod:`.context` plays it.

Every kind comes at least once before any comes twice, as long as there is room.  Half of the
faults are put within seconds of a minute's end, because that is where a candle can be lost; the
rest fall anywhere.  Several may be under way at once, as in life.
"""

import random
from collections.abc import Callable, Iterable, Mapping

from attrs import frozen

FAULTS_PER_HOUR = 5.0
_MINUTE_S = 60.0
_NEAR_S = 3.0
_FIRST_S = 60.0
"""The service gets a minute to start in peace: what it cannot know then is another test's."""


@frozen
class Fault:
    """``value`` is what the kind makes of it: a status, a close code, seconds.  ``times``: so many
    who ask next are given it.  ``lasts_s`` seconds it goes on."""

    kind: str
    value: float = 0.0
    times: int = 0
    lasts_s: float = 0.0

    def __str__(self) -> str:
        value = f" {self.value:g}" if self.value else ""
        times = f" x{self.times}" if self.times else ""
        lasts = f" for {self.lasts_s:g} s" if self.lasts_s else ""
        return f"{self.kind}{value}{times}{lasts}"


Make = Callable[[str, random.Random], Fault]


def _plain(kind: str, _chance: random.Random) -> Fault:
    return Fault(kind)


def _one_of(*values: int) -> Make:
    return lambda kind, chance: Fault(kind, chance.choice(values))


def _status(*statuses: int) -> Make:
    return lambda kind, chance: Fault(kind, chance.choice(statuses), times=chance.randint(1, 4))


def _lasting(shortest_s: int, longest_s: int) -> Make:
    return lambda kind, chance: Fault(kind, lasts_s=chance.randint(shortest_s, longest_s))


def _seconds(shortest: float, longest: float, *, most: int = 0) -> Make:
    def make(kind: str, chance: random.Random) -> Fault:
        value = round(chance.uniform(shortest, longest), 1)
        return Fault(kind, value, times=chance.randint(1, most) if most else 0)

    return make


def _several(most: int) -> Make:
    return lambda kind, chance: Fault(kind, times=chance.randint(1, most))


def _late(kind: str, chance: random.Random) -> Fault:
    return Fault(kind, round(chance.uniform(0.5, 10.0), 1), lasts_s=chance.randint(60, 300))


def _skew(kind: str, chance: random.Random) -> Fault:
    return Fault(kind, round(chance.uniform(-5.0, 5.0), 1), lasts_s=chance.randint(600, 3600))


_CLOSE_CODES = (1000, 1001, 1008, 1009, 1011, 1012, 4001, 4002, 4003, 4004, 4005, 4006, 4008, 4009)
"""What Binance and OKX close with (exchanges.md 1.2, 5.2), and what any server may."""


def _stall(kind: str, chance: random.Random) -> Fault:
    return Fault(kind, chance.choice((2.5, 8.0, round(chance.uniform(1.5, 25.0), 1))))


def _suspend(kind: str, chance: random.Random) -> Fault:
    return Fault(kind, chance.randint(60, 2400), times=chance.randint(0, 1))


def _step(kind: str, chance: random.Random) -> Fault:
    """Both ways, of seconds and of hours."""
    size_s = chance.choice((1.5, 5.0, 30.0, 600.0, 7200.0))
    return Fault(kind, chance.choice((-size_s, size_s)), lasts_s=chance.randint(120, 1800))


def _drift(kind: str, chance: random.Random) -> Fault:
    rate = round(chance.uniform(0.2, 20.0), 1)
    return Fault(kind, chance.choice((-rate, rate)), lasts_s=chance.randint(600, 3600))


def _hours_wrong(kind: str, chance: random.Random) -> Fault:
    hours = chance.choice((-8, -3, 2, 5, 12))
    return Fault(kind, hours * 3600, lasts_s=chance.randint(300, 1200))


def _late_feed(kind: str, chance: random.Random) -> Fault:
    return Fault(kind, chance.choice((1.0, 4.0, 12.0)), lasts_s=60)


def _odd(kind: str, chance: random.Random) -> Fault:
    return Fault(kind, chance.randint(0, 3), times=chance.randint(1, 2))


def _absurd(kind: str, chance: random.Random) -> Fault:
    return Fault(kind, chance.choice((1990, 2090, 2)), lasts_s=chance.randint(10, 60))


KINDS: Mapping[str, Make] = {
    "tcp_reset": _plain,
    "half_open": _plain,
    "server_close": _one_of(*_CLOSE_CODES),
    "server_shutdown": _plain,
    "day_cut": _several(2),
    "refuse_upgrade": _status(429, 503, 451, 418),
    "ack_lost": _several(2),
    "rest_status": _status(500, 429, 418, 403),
    "rest_down": _lasting(30, 300),
    "rest_slow": _seconds(5.0, 30.0, most=4),
    "rest_timeout": _several(3),
    "rest_stale": _seconds(5.0, 90.0, most=2),
    "rest_missing_row": _several(2),
    "dial_refused": _lasting(10, 600),
    "proxy_down": _lasting(5, 300),
    "proxy_refuses": _status(403, 407, 502, 503, 504),
    "proxy_hangs": _several(3),
    "proxy_dies": _several(3),
    "proxy_splits": _several(6),
    "tls_failure": _several(4),
    "garbage_before_101": _several(4),
    "slow_handshake": _seconds(1.0, 40.0, most=3),
    "malformed_json": _lasting(10, 120),
    "truncated_json": _lasting(10, 120),
    "unknown_frames": _lasting(30, 300),
    "duplicated_frames": _lasting(60, 600),
    "reordered_frames": _lasting(60, 600),
    "trickle": _lasting(120, 600),
    "missing_close": _lasting(60, 300),
    "late_close": _late,
    "correction": _seconds(2.0, 50.0),
    "book_gap": _several(2),
    "book_reset": _plain,
    "listing": _lasting(3600, 7200),
    "clock_skew": _skew,
}
"""Every kind and how it is drawn.  ``clock_skew`` steps the service's clock, not the exchange's,
and puts it right later: the difference is the same, and a machine's clock is what NTP sets."""


TRUTH_KINDS: Mapping[str, Make] = {
    "stall": _stall,
    "late_feed": _late_feed,
    "process_pause": _seconds(3.0, 40.0),
    "suspend": _suspend,
    "clock_step": _step,
    "clock_drift": _drift,
    "wrong_clock_at_start": _hours_wrong,
    "absurd_time": _absurd,
    "trade_disorder": _lasting(30, 180),
    "id_restart": _plain,
    "late_correction": _seconds(5.0, 50.0),
    "rest_behind": lambda kind, chance: Fault(
        kind, round(chance.uniform(1.0, 20.0), 1), lasts_s=chance.randint(60, 600)
    ),
    "odd_rows": _odd,
    "halt": _lasting(90, 900),
    "halt_all": _lasting(90, 900),
    "off_grid": _lasting(90, 900),
    "new_listing": _plain,
    "quiet": _lasting(180, 1500),
}
"""Kinds at which clocks, grids and other assumptions go wrong.  ``clock_drift`` is in ms a second,
``absurd_time`` a year, or 2 for two hours ahead."""
ALL_KINDS: Mapping[str, Make] = {**KINDS, **TRUTH_KINDS}
SOLANA_KINDS: Mapping[str, Make] = {
    "fork": _several(6),
    "log_truncated": _several(6),
    "lost_notifications": _several(6),
    "quiet_program": _lasting(120, 1200),
}
"""What only happens to a program on a chain (:mod:`.solana`)."""
_MAKERS: Mapping[str, Make] = {**ALL_KINDS, **SOLANA_KINDS}
_AT_START = frozenset({"wrong_clock_at_start"})
"""They happen before the service starts."""


def parse_kinds(text: str) -> tuple[str, ...]:
    """``all`` (those of :data:`KINDS`), ``everything``, ``none`` or names with commas between.
    Raises ValueError."""
    if text == "all":
        return tuple(KINDS)
    if text == "everything":
        return tuple(ALL_KINDS)
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    if unknown := sorted(set(names) - _MAKERS.keys()):
        raise ValueError(f"no such fault: {', '.join(unknown)}; there are {', '.join(_MAKERS)}")
    return tuple(dict.fromkeys(names))


def write_schedule(
    seed: int, hours: float, kinds: Iterable[str], *, start_ms: int = 0
) -> list[tuple[float, Fault]]:
    """(seconds after the start, fault), ascending.  ``start_ms`` is unix time at second 0.

    Raises KeyError for a kind that there is not.
    """
    makers = {kind: _MAKERS[kind] for kind in kinds}
    return drawn(random.Random(f"faults {seed}"), hours, makers, start_ms=start_ms)


def drawn(
    chance: random.Random,
    hours: float,
    makers: Mapping[str, Make],
    *,
    start_ms: int = 0,
    per_hour: float = FAULTS_PER_HOUR,
) -> list[tuple[float, Fault]]:
    """The same of kinds that somebody else has."""
    number = max(len(makers), round(hours * per_hour)) if makers else 0
    deck: list[str] = []
    script = []
    for _ in range(number):
        if not deck:
            deck = chance.sample([*makers], len(makers))
        kind = deck.pop()
        fault = makers[kind](kind, chance)
        at_s = _moment(chance, hours * 3600, start_ms)
        script.append((0.0 if kind in _AT_START else at_s, fault))
    return sorted(script, key=lambda item: item[0])


def _moment(chance: random.Random, length_s: float, start_ms: int) -> float:
    at_s = chance.uniform(min(_FIRST_S, length_s / 2), length_s)
    if chance.random() < 0.5:
        offset_s = start_ms % 60_000 / 1000
        boundary_s = round((at_s + offset_s) / _MINUTE_S) * _MINUTE_S - offset_s
        near_s = boundary_s + chance.uniform(-_NEAR_S, _NEAR_S)
        at_s = min(max(near_s, min(_FIRST_S, length_s / 2)), length_s)
    return round(at_s, 3)
