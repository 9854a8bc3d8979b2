"""What may happen between nodes: to the engine, to the database, to the nodes themselves."""

import random
from collections.abc import Iterable, Mapping

from attrs import define, field

from trio_feed.bus.engine.memory import (
    LOST_ANSWER,
    LOST_REQUEST,
    NO_FAULT,
    late_answer,
    late_request,
)
from trio_feed.bus.engine.memory import Fault as CallFault
from trio_feed.simulator.faults.schedule import Fault, Make, drawn

_PER_HOUR = 70.0


def _times(most: int) -> Make:
    return lambda kind, chance: Fault(kind, times=chance.randint(1, most))


def _late(kind: str, chance: random.Random) -> Fault:
    """Some within the client's patience, some beyond the lease."""
    late_s = round(chance.choice((chance.uniform(0.1, 0.9), chance.uniform(1.0, 8.0))), 2)
    return Fault(kind, late_s, times=chance.randint(1, 6))


def _lasting(shortest_s: float, longest_s: float) -> Make:
    return lambda kind, chance: Fault(kind, lasts_s=round(chance.uniform(shortest_s, longest_s), 1))


def _count(most: int) -> Make:
    return lambda kind, chance: Fault(kind, chance.randint(1, most))


def _slow(kind: str, chance: random.Random) -> Fault:
    return Fault(kind, chance.choice((0.3, 1.0, 3.0)), lasts_s=chance.randint(5, 60))


def _plain(kind: str, _chance: random.Random) -> Fault:
    return Fault(kind)


ENGINE_KINDS: Mapping[str, Make] = {
    "append_lost": _times(4),
    "append_unheard": _times(4),
    "answer_late": _late,
    "request_late": _late,
    "calls_fail": _lasting(2, 20),
    "failover": _count(30),
    "engine_emptied": _plain,
    "log_trimmed": _count(12),
    "engine_away": _lasting(1, 40),
    "owner_paused": _lasting(1, 30),
    "reader_cut": _lasting(1, 40),
    "database_lags": _slow,
    "commit_slow": _slow,
    "database_away": _lasting(1, 40),
    "database_unheard": _times(3),
    "ingest_killed": _lasting(0.5, 60),
    "push_killed": _lasting(0.5, 60),
    "ingest_leaves": _lasting(0.5, 60),
    "push_leaves": _lasting(0.5, 60),
}
"""``append_lost`` never arrive, of ``append_unheard`` only the answer is lost; an ``owner_paused``
reaches neither engine nor database while its feed runs on, as one does that was stopped and comes
back with everything it had taken; who is killed or leaves is started again after ``lasts_s``."""


def parse_engine_kinds(text: str) -> tuple[str, tuple[str, ...]]:
    """What of ``--faults`` is between nodes, and what is left for the exchange: ``engine`` stands
    for all of them."""
    names = [name.strip() for name in text.split(",")]
    kinds = tuple(ENGINE_KINDS) if "engine" in names else ()
    kinds += tuple(name for name in names if name in ENGINE_KINDS and name not in kinds)
    left = [name for name in names if name != "engine" and name not in ENGINE_KINDS]
    return ",".join(left) or "none", kinds


def write_engine_schedule(
    seed: int, hours: float, kinds: Iterable[str], *, start_ms: int
) -> tuple[tuple[float, Fault], ...]:
    """As :func:`.write_schedule` does it, and more often."""
    makers = {kind: ENGINE_KINDS[kind] for kind in kinds}
    chance = random.Random(f"engine {seed}")
    return tuple(drawn(chance, hours, makers, start_ms=start_ms, per_hour=_PER_HOUR))


@define(eq=False)
class Reach:
    """What becomes of a node's calls of the engine."""

    chance: random.Random
    is_cut: bool = False
    is_shaky: bool = False
    next_appends: list[CallFault] = field(factory=list)
    next_calls: list[CallFault] = field(factory=list)

    def __call__(self, call: str) -> CallFault:
        if self.is_cut:
            return LOST_REQUEST
        if call == "append" and self.next_appends:
            return self.next_appends.pop(0)
        if self.next_calls:
            return self.next_calls.pop(0)
        if self.is_shaky and self.chance.random() < 0.3:
            late_s = self.chance.uniform(0, 5)
            faults = LOST_REQUEST, LOST_ANSWER, late_answer(late_s), late_request(late_s)
            return self.chance.choice(faults)
        return NO_FAULT

    def note(self, fault: Fault) -> None:
        """Of a kind that is about single calls; half of those that are late are appends."""
        match fault.kind:
            case "append_lost":
                self.next_appends += [LOST_REQUEST] * fault.times
            case "append_unheard":
                self.next_appends += [LOST_ANSWER] * fault.times
            case "answer_late" | "request_late":
                make = late_answer if fault.kind == "answer_late" else late_request
                there = self.chance.choice((self.next_appends, self.next_calls))
                there += [make(fault.value)] * fault.times


SINGLE_CALLS = ("append_lost", "append_unheard", "answer_late", "request_late")
