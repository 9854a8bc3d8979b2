"""The log as a person reads it on a terminal.  Pure: time is an argument, text comes back.

- History and backfills of the start are summed up (:meth:`Narrator.history`), not listed.
- That a venue cannot be reached is explained once, with the step, the proxy and what to try; what
  repeats after that is counted, and said once a minute.
- Everything else is one line per event: local words first, times in ISO, no dictionaries.
"""

import re
import textwrap
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import define, field

from .advice import advise

REPEAT_S = 60.0
"""What has been said is said again after so long, with how often it came meanwhile."""
_FILLED = ("backfill.filled", "history.filled")
_FAILURES = ("instruments.failed", "connection.lost", "proxy.down", "egress.down")
_AT_START = ("instruments.loaded",)
_BOXED = ("service.ready", "simulator.ready")
_REPEATING = ("warning", "error")
_MOST_REPEATS = 500
_IN_A_ROW = 3
"""A connection that is lost now and then is no venue out of reach."""
_YEAR_2000_MS = 946_684_800_000
_COLOURS = {"warning": "33", "error": "31", "critical": "31"}
_HIDDEN = frozenset({"event", "level", "timestamp", "exc_info", "exception"})


@define
class _Repeat:
    said_s: float
    times: int = 0


@define
class History:
    """What was fetched before everything was there."""

    series: set[str] = field(factory=set)
    candles: int = 0
    last_s: float = 0.0


@define
class Narrator:
    """``box`` makes the text of a service that is ready of that event's URLs and venues; ``every``:
    debug was asked for, nothing is left out."""

    width: int
    box: Callable[[Mapping[str, Any]], str]
    colours: bool = False
    every: bool = False
    began_s: float = 0.0
    idle_proxies: frozenset[str] = frozenset()
    """Venues with a proxy in the settings that is not in force."""
    _history: History | None = field(factory=History)
    _repeats: dict[tuple[str, ...], _Repeat] = field(factory=dict)
    _proxies_down: dict[str, tuple[str, str]] = field(factory=dict)
    """Address -> type of its error, its words."""
    _out_of_reach: dict[str, _Repeat] = field(factory=dict)
    _failures: dict[str, int] = field(factory=dict)
    """By venue that was connected before: failures since then."""

    def take(self, event: Mapping[str, Any], now_s: float) -> str:
        """The lines for one event; empty: none."""
        name = str(event.get("event", ""))
        if name == "service.ready":
            return self.box(event)
        if self.every:
            return self._line(event)
        if name == "service.minute":
            return minute_line(event)
        if name in _BOXED or (name in _AT_START and self._history is not None):
            return ""
        if name in _FILLED and self._history is not None:
            self._count(event, now_s)
            return ""
        if name == "connection.open":
            return self._reached(event, now_s)
        if name in ("proxy.up", "egress.up"):
            self._proxies_down.pop(str(event.get("proxy", "")), None)
        if name in _FAILURES:
            return self._failed(name, event, now_s)
        if event.get("level") in _REPEATING:
            return self._sampled(event, now_s)
        return self._line(event)

    def history(self, series: int) -> str:
        """Everything of the start is there: one line, and from now on each fill has its own."""
        found, self._history = self._history or History(), None
        took_s = max(found.last_s - self.began_s, 0.0)
        text = f"history: {series} series, nothing was missing"
        if found.candles:
            text = f"history: {series} series, {found.candles:,} candles in {took_s:.1f} s"
        down = [self._wrapped(said, 2) for _reason, said in self._proxies_down.values()]
        return "\n".join([text, *down])

    @property
    def filled_s(self) -> float:
        """When the last candles of the start came; 0: none did."""
        return self._history.last_s if self._history else 0.0

    def _count(self, event: Mapping[str, Any], now_s: float) -> None:
        assert self._history is not None
        self._history.series.add(str(event.get("stream")))
        self._history.candles += int(event.get("candles", 0))
        self._history.last_s = now_s

    def _reached(self, event: Mapping[str, Any], now_s: float) -> str:
        venue = str(event.get("venue", ""))
        self._failures[venue] = 0
        if self._out_of_reach.pop(venue, None) is None:
            return "" if self._history is not None else self._line(event)
        return self._coloured("32", f"{venue}: connected")

    def _failed(self, name: str, event: Mapping[str, Any], now_s: float) -> str:
        """A venue's first failure is a block, or the third in a row of one that was connected; the
        rest is counted."""
        problem = str(event.get("problem", ""))
        reason = str(event.get("reason", ""))
        if name == "proxy.down":
            self._proxies_down[str(event.get("proxy", ""))] = (reason, problem)
        venue = str(event.get("venue", ""))
        if not venue:  # at the start the venues that wanted to use it say so
            return "" if self._history is not None else self._sampled(event, now_s)
        known = self._out_of_reach.get(venue)
        if known is None and venue in self._failures:
            self._failures[venue] += 1
            if self._failures[venue] < _IN_A_ROW:
                return self._sampled(event, now_s)
        if known is None:
            self._out_of_reach[venue] = _Repeat(now_s)
            return self._explained(venue, reason, problem)
        known.times += 1
        if now_s - known.said_s < REPEAT_S:
            return ""
        times, known.times, known.said_s = known.times, 0, now_s
        _reason, said = self._causes(reason, problem)[0]
        text = f"{venue}: still out of reach, {times} more tries failed: {said}"
        return self._coloured("33", self._wrapped(text))

    def _causes(self, reason: str, problem: str) -> list[tuple[str, str]]:
        """Where no proxy is left: what each of them said."""
        if reason != "NoProxyAvailable":
            return [(reason, problem)]
        named = [said for address, said in self._proxies_down.items() if address in problem]
        return named or [(reason, problem)]

    def _explained(self, venue: str, reason: str, problem: str) -> str:
        lines = [self._coloured("31", f"{venue} cannot be reached; it is tried again and again")]
        for cause, said in self._causes(reason, problem):
            advice = advise(cause, idle=venue in self.idle_proxies)
            do = advice.do.replace("<venue>", venue).replace("<VENUE>", venue.upper())
            for label, text in (("step", advice.step), ("problem", said), ("try", do)):
                lines.append(self._wrapped(f"  {label:<8} {text}", indent=11))
        lines.append("  more     trio-feed check --connect  (every step, with its time)")
        return "\n".join(lines)

    def _sampled(self, event: Mapping[str, Any], now_s: float) -> str:
        """The same warning of the same venue once a minute, with its count."""
        words = (str(event.get(key, "")) for key in ("event", "venue", "stream", "reason"))
        key = (*words, re.sub(r"\d+", "#", str(event.get("problem", ""))))
        known = self._repeats.get(key)
        if known is not None and now_s - known.said_s < REPEAT_S:
            known.times += 1
            return ""
        if known is None and len(self._repeats) >= _MOST_REPEATS:
            self._repeats.clear()
        self._repeats[key] = _Repeat(now_s)
        more = {"times_more": known.times} if known is not None and known.times else {}
        return self._line({**event, **more})

    def _line(self, event: Mapping[str, Any]) -> str:
        level = str(event.get("level", "info"))
        clock = clock_of(str(event.get("timestamp", "")))
        mark = "" if level == "info" else f"{level} "
        facts = " ".join(f"{key}={value}" for key, value in facts_of(event))
        text = self._wrapped(f"{clock} {mark}{event.get('event', '')}  {facts}".rstrip())
        return self._coloured(_COLOURS.get(level, ""), text)

    def _wrapped(self, text: str, indent: int = 9) -> str:
        """Broken between words only, the rest of it indented."""
        return textwrap.fill(
            text,
            max(self.width, 40),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )

    def _coloured(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if code and self.colours else text


def minute_line(event: Mapping[str, Any]) -> str:
    """``11:03:00 412 messages/s, 24 of 24 streams live, ...``."""
    clients, repaired = event["clients"], event["repaired"]
    parts = [
        f"{event['messages_per_s']:,.0f} messages/s",
        f"{event['streams_live']} of {event['streams']} streams live",
        f"{clients} client{'s' * (clients != 1)}",
        f"{repaired} repaired" if repaired else "nothing to repair",
    ]
    if event["messages_failed"]:
        parts.insert(1, f"{event['messages_failed']} of no use")
    if event["proxies"]:
        parts.append(f"proxies {event['proxies_up']} of {event['proxies']} up")
    return f"{clock_of(str(event.get('timestamp', '')))} " + ", ".join(parts)


def clock_of(timestamp: str) -> str:
    """``2026-11-29T10:54:51.12Z`` -> ``10:54:51``; the rest is the day that everybody knows."""
    return timestamp[11:19] or "--:--:--"


def facts_of(event: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Key and text, tables taken apart, unix milliseconds as ISO times."""
    found: list[tuple[str, str]] = []
    for key, value in event.items():
        if key not in _HIDDEN:
            found += _flat(key, value)
    return found


def _flat(key: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [fact for inner, each in value.items() for fact in _flat(f"{key}.{inner}", each)]
    if isinstance(value, list | tuple):
        return [(key, ",".join(str(each) for each in value))]
    if key.endswith("_ms") and isinstance(value, int | float) and value > _YEAR_2000_MS:
        return [(key.removesuffix("_ms"), iso(value))]
    return [(key, str(value))]


def iso(time_ms: float) -> str:
    """Unix ms -> ``2026-11-29T10:54:00Z``."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")[:19] + "Z"
