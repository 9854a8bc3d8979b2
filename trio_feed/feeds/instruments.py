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
from attrs import frozen

from ..environment import Environment
from ..errors import BadMessage, NetworkError
from ..net.rest import RestClient
from ..supervise import Backoff
from ..venues import Instruments, Venue


@frozen
class Copy:
    """Answers of a venue and when (unix ms) they came."""

    fetched_ms: float
    bodies: list[str]


async def fetch(venue: Venue, rest: RestClient, now_ms: Callable[[], float]) -> Copy:
    """Ask the venue.  Raises NetworkError."""
    bodies = []
    for question in venue.instruments_questions():
        answer = await rest.get(question.path, question.params, weight=question.weight)
        bodies.append(answer.body.decode(errors="replace"))
    return Copy(now_ms(), bodies)


def parse(venue: Venue, copy: Copy) -> Instruments:
    """Raises BadMessage."""
    return Instruments([i for body in copy.bodies for i in venue.parse_instruments(body.encode())])


async def load(
    venue: Venue, rest: RestClient, world: Environment, cache: Path | None, backoff: Backoff
) -> Instruments:
    """The table at start: from the venue, or from ``cache`` while it is out of reach; without
    both, tried until it succeeds."""
    log = structlog.get_logger().bind(venue=venue.NAME)
    while True:
        try:
            copy = await fetch(venue, rest, world.now_ms)
            table = parse(venue, copy)
        except (NetworkError, BadMessage) as error:
            delay_s = backoff.next_delay_s(world.random)
            log.warning("instruments.failed", problem=str(error), retry_s=round(delay_s, 3))
            old = await _read(venue, cache)
            if old is not None:
                return old
            await trio.sleep(delay_s)
        else:
            log.info("instruments.loaded", instruments=len(table))
            await write(cache, copy)
            return table


async def write(cache: Path | None, copy: Copy) -> None:
    """Replace the copy on disk; a disk that does not take it is logged, no more."""
    if cache is None:
        return
    text = json.dumps({"fetched_ms": copy.fetched_ms, "bodies": copy.bodies})
    new = trio.Path(cache.with_suffix(".new"))
    try:
        await new.write_text(text, encoding="utf-8")
        await new.replace(cache)
    except OSError as error:
        structlog.get_logger().warning("instruments.not_kept", path=str(cache), problem=str(error))


async def _read(venue: Venue, cache: Path | None) -> Instruments | None:
    log = structlog.get_logger().bind(venue=venue.NAME)
    if cache is None:
        return None
    try:
        kept = json.loads(await trio.Path(cache).read_text(encoding="utf-8"))
        copy = Copy(float(kept["fetched_ms"]), [str(body) for body in kept["bodies"]])
        table = parse(venue, copy)
    except (OSError, ValueError, KeyError, TypeError, BadMessage) as error:
        log.info("instruments.no_copy", path=str(cache), problem=str(error))
        return None
    log.warning("instruments.from_disk", instruments=len(table), fetched_ms=copy.fetched_ms)
    return table
