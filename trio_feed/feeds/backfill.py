"""Workers that ask the exchange by REST for what is missing, whatever it is."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Never, Protocol

import structlog
import trio
from attrs import frozen
from trio_util import RepeatedEvent

from ..environment import mono
from ..errors import BadMessage, NetworkError, NoProxyAvailable, RateLimited
from ..instants import Exchange
from ..metrics import Metrics
from ..net.rest import RestClient
from ..venues import RestQuestion

_SHORTEST_WAIT_S = 0.5
_LONGEST_WAIT_S = 60.0
"""After this the worker looks again, whatever a pool or an exchange's clock has said."""
_SHORTEST_SLEEP_S = 0.001

Room = Callable[[], Awaitable[object]]
"""Waits while the store holds too much that it could not write."""


@frozen
class Job:
    """A question and what to do with the answer.  ``take`` may raise BadMessage."""

    question: RestQuestion
    take: Callable[[bytes], None]
    failed: Callable[[], None]


class Missing(Protocol):
    """Who knows what is missing.  ``changed`` fires when something may be due earlier."""

    changed: RepeatedEvent

    def most_due(self) -> tuple[Exchange, Hashable] | None:
        """When and what, leaving out what is being asked for."""

    def begin(self, key: Hashable) -> Job | None:
        """From now on nobody else is given this key; None: there is nothing to ask after all."""

    def done(self, key: Hashable) -> None: ...


async def run_worker(
    missing: Missing,
    rest: RestClient,
    *,
    venue: str,
    now: Callable[[], Exchange],
    room: Room,
    metrics: Metrics,
) -> Never:
    """Do one due job after the other, for ever.  Several workers share one ``missing``.

    ``now`` is the exchange's clock, as that of :meth:`Missing.most_due`; every wait is measured on
    the monotonic one and bounded on both sides."""
    log = structlog.get_logger().bind(venue=venue)
    while True:
        key = await _next_due(missing, now, room)
        job = missing.begin(key)
        if job is None:
            missing.done(key)
            continue
        try:
            question = job.question
            answer = await rest.get(question.path, question.params, weight=question.weight)
            job.take(answer.body)
        except (RateLimited, NoProxyAvailable) as error:
            # Nobody was asked, so nothing has failed: the question stands, and waits.  Not said by
            # each worker: the ban (rest.banned) and the pool (egress.down) are said once already.
            metrics.rest_calls.labels(venue, type(error).__name__).inc()
            wait_s = max(_SHORTEST_WAIT_S, error.until - mono())
            if isinstance(error, NoProxyAvailable):
                wait_s = min(wait_s, _LONGEST_WAIT_S)  # somebody else's success ends it earlier
            log.debug("backfill.waits", problem=str(error), wait_s=round(wait_s, 3))
            missing.done(key)
            await trio.sleep(wait_s)
        except (NetworkError, BadMessage) as error:
            metrics.rest_calls.labels(venue, type(error).__name__).inc()
            log.warning("backfill.failed", stream=str(key), problem=str(error))
            job.failed()
        else:
            metrics.rest_calls.labels(venue, "ok").inc()
        finally:
            missing.done(key)


async def _next_due(missing: Missing, now: Callable[[], Exchange], room: Room) -> Hashable:
    """Wait until something is due, and there is room for the answer."""
    while True:
        await room()
        await trio.lowlevel.checkpoint()
        found = missing.most_due()
        delay_s = float("inf") if found is None else (found[0] - now()) / 1000
        if found is not None and delay_s <= 0:
            return found[1]
        # A time of the exchange's clock, slept on ours: its clock may be stepped meanwhile.
        with trio.move_on_after(min(max(delay_s, _SHORTEST_SLEEP_S), _LONGEST_WAIT_S)):
            await missing.changed.wait()
