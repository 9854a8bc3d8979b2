"""One venue's instrument table: fetched, kept on disk with its age, refreshed while running.

The copy on disk is the venue's own answer, byte for byte, so that it is read by the same parser.
It is used when the venue cannot be asked at start, however old it is, and replaced as soon as it
can.
"""

import json
from collections.abc import Callable
from pathlib import Path

import structlog
import trio
from attrs import define, frozen

from ..environment import Environment
from ..errors import BadMessage, NetworkError
from ..model import Instrument
from ..net.rest import Answer, RestClient
from ..supervise import Backoff
from ..venues import Instruments, Venue
from .troubles import Troubles

_SOON_S, _SOON_MAX_S = 5.0, 60.0
"""5, 10, 20, 40, 60, 60 s and so on."""


@frozen
class Copy:
    """Answers of a venue and when (unix ms) they came."""

    fetched_ms: float
    bodies: list[str]


async def fetch(
    venue: Venue,
    rest: RestClient,
    now_ms: Callable[[], float],
    note_date: Callable[[Answer], None],
) -> Copy:
    """Ask the venue.  Raises NetworkError."""
    bodies = []
    for question in venue.instruments_questions():
        answer = await rest.get(question.path, question.params, weight=question.weight)
        note_date(answer)
        bodies.append(answer.body.decode(errors="replace"))
    return Copy(now_ms(), bodies)


def parse(venue: Venue, copy: Copy, before: Instruments | None = None) -> Instruments:
    """Raises BadMessage.  Rows that cannot be read are logged and left out.

    To believe an answer gone wrong would end streams: an answer that lists nothing is none, where
    it listed something ``before``, and while rows cannot be read, what is absent proves nothing.
    """
    found: list[Instrument] = []
    empty = odd = False
    log = structlog.get_logger().bind(venue=venue.NAME)
    for body in copy.bodies:
        rows = venue.parse_instruments(body.encode())
        found += rows.good
        empty |= not rows.good and not rows.bad
        if rows.bad:
            odd = True
            first = rows.bad[0]
            log.warning(
                "instruments.bad", rows=len(rows.bad), problem=str(first), sample=first.sample
            )
    table = Instruments(found)
    absent = [old for old in before or () if table.of_symbol(old.symbol) is None]
    if not found or (empty and absent):
        raise BadMessage("the list names no instrument" + f" ({len(absent)} less)" * bool(absent))
    return Instruments([*absent, *found]) if odd else table


async def load(
    venue: Venue,
    rest: RestClient,
    environment: Environment,
    cache: Path | None,
    backoff: Backoff,
    note_date: Callable[[Answer], None],
    troubles: Troubles,
) -> tuple[Instruments, bool]:
    """The table at start, and whether it is the venue's of now: from ``cache`` while the venue is
    out of reach; without both, tried until it succeeds."""
    log = structlog.get_logger().bind(venue=venue.NAME)
    first = True
    while True:
        try:
            copy = await fetch(venue, rest, environment.now_ms, note_date)
            table = parse(venue, copy)
        except (NetworkError, BadMessage) as error:
            delay_s = backoff.next_delay_s(environment.random)
            troubles.say(error, retry_s=round(delay_s, 3))
            old = await _read(venue, cache, is_news=first)
            first = False
            if old is not None:
                return old, False
            await trio.sleep(delay_s)
        else:
            troubles.over()
            log.info("instruments.loaded", instruments=len(table))
            await write(cache, copy)
            return table, True


@define
class Refresh:
    """When to ask for the table again.  Pure.

    A symbol that is halted or not listed yet may trade again at any moment, and a table from the
    disk or from before a failed refresh may be wrong: then it is asked for soon, with backoff.
    """

    every_s: float
    _hurries: int = 0

    def delay_s(self, *, settled: bool) -> float:
        """How long to wait now.  ``settled``: the table is the venue's, and all that is wanted
        trades."""
        if settled:
            self._hurries = 0
            return self.every_s
        wait_s = min(_SOON_S * 2 ** min(self._hurries, 10), _SOON_MAX_S)
        self._hurries += 1
        return float(min(wait_s, self.every_s))


async def write(cache: Path | None, copy: Copy) -> None:
    """Replace the copy on disk; a disk that does not take it is logged, no more."""
    if cache is None:
        return
    text = json.dumps({"fetched_ms": copy.fetched_ms, "bodies": copy.bodies})
    new = trio.Path(cache.with_suffix(".new"))
    try:
        await new.parent.mkdir(parents=True, exist_ok=True)  # the store may be a database
        await new.write_text(text, encoding="utf-8")
        await new.replace(cache)
    except OSError as error:
        structlog.get_logger().warning("instruments.not_kept", path=str(cache), problem=str(error))


async def _read(venue: Venue, cache: Path | None, *, is_news: bool) -> Instruments | None:
    """``is_news``: a copy of no use has not been said yet."""
    log = structlog.get_logger().bind(venue=venue.NAME)
    if cache is None:
        return None
    try:
        kept = json.loads(await trio.Path(cache).read_text(encoding="utf-8"))
        copy = Copy(float(kept["fetched_ms"]), [str(body) for body in kept["bodies"]])
        table = parse(venue, copy)
    except FileNotFoundError as error:  # a first start
        log.debug("instruments.no_copy", path=str(cache), problem=str(error))
        return None
    except (OSError, ValueError, KeyError, TypeError, BadMessage) as error:
        if is_news:
            log.info("instruments.no_copy", path=str(cache), problem=str(error))
        return None
    log.warning("instruments.from_disk", instruments=len(table), fetched_ms=copy.fetched_ms)
    return table
