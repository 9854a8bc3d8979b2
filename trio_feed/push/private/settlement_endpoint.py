"""``POST /api/v1/settlement/events``, without any server in it.

The publisher is authenticated before the body is read.  An answer of 200 means that the accepted
events are on the disk and were sent to the users' connected sessions.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec
import structlog
import trio
from attrs import field, frozen

from ...errors import JournalError
from ...metrics import Metrics
from ...model import Settlement
from ...settings import PublisherSettings, SettlementSettings
from ...store import AppendStatus, EventJournal
from ..portions import in_portions
from ..problems import problem
from ..protocol import TOO_MANY
from ..sampling import SampledLines
from .auth import AuthError, Publishers
from .settlement import BadBody, BadEvent, expand, parse_body

log = structlog.get_logger()

_RETRY_AFTER_S = "1"


@frozen
class Reply:
    """``text`` is JSON."""

    status: int
    text: str
    headers: Mapping[str, str] = field(factory=dict)


class SettlementEndpoint:
    """Answers requests; ``journal`` keeps the events."""

    def __init__(
        self,
        settings: SettlementSettings,
        journal: EventJournal,
        now_ms: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._settings, self._journal = settings, journal
        self._publishers = Publishers(settings.publishers)
        self._broadcasters = _broadcasters(settings.publishers)
        self._now_ms, self._metrics = now_ms, metrics
        self._under_way = 0
        self._lines = SampledLines()
        self._expanding = trio.Lock()  # one batch after the other: see ``portions``

    def replace_publishers(self, publishers: Iterable[PublisherSettings]) -> None:
        """From now on these may report."""
        publishers = tuple(publishers)
        self._publishers.replace(publishers)
        self._broadcasters = _broadcasters(publishers)

    async def answer(
        self, authorization: str, length: str | None, chunks: AsyncGenerator[bytes, None]
    ) -> Reply:
        """``length`` is the Content-Length header, ``chunks`` the body as it comes."""
        try:
            publisher = self._publishers.authenticate(authorization)
        except AuthError as error:
            self._metrics.auths.labels("publisher_refused").inc()
            log.debug("settlement.refused", reason=str(error))  # strangers do not fill the log
            return _problem(401, str(error), {"WWW-Authenticate": "Bearer"})
        if self._under_way >= self._settings.max_requests:
            again = {"Retry-After": _RETRY_AFTER_S}
            return _problem(503, "too many requests at once", again, TOO_MANY)
        self._under_way += 1
        began, problem_kind = trio.current_time(), ""
        try:
            return await self._take(publisher, length, chunks)
        except BadBody as error:
            problem_kind = "BadBody"
            self._say("settlement.refused", publisher=publisher, reason=str(error))
            return _problem(error.status, str(error))
        except JournalError:
            problem_kind = "JournalError"
            problem = "events cannot be kept now; nothing of this request was accepted"
            return _problem(503, problem, {"Retry-After": _RETRY_AFTER_S})
        finally:
            self._under_way -= 1
            if problem_kind:
                self._add_span(began, publisher, error=problem_kind)

    def _add_span(self, began: float, publisher: str, **more: Any) -> None:
        took_s = trio.current_time() - began
        self._metrics.spans.add("settlement.batch", took_s, publisher=publisher, **more)

    async def _take(
        self, publisher: str, length: str | None, chunks: AsyncGenerator[bytes, None]
    ) -> Reply:
        began = trio.current_time()
        body = await self._read(length, chunks)
        received_ms = self._now_ms()
        events: list[Settlement] = []
        places: list[int] = []
        rejected: dict[int, str] = {}
        may = publisher in self._broadcasters
        async with self._expanding:
            entries = enumerate(parse_body(body, self._settings.max_events))
            async with aclosing(in_portions(entries)) as portions:
                async for index, entry in portions:
                    try:
                        events.append(expand(entry, received_ms, publisher, may_broadcast=may))
                        places.append(index)
                    except BadEvent as error:
                        rejected[index] = str(error)
        counts = dict.fromkeys(AppendStatus, 0)
        for index, outcome in zip(places, await self._journal.append(events), strict=True):
            counts[outcome.status] += 1
            if outcome.status is AppendStatus.REJECTED:
                rejected[index] = outcome.reason
        counts[AppendStatus.REJECTED] = len(rejected)
        for result, count in counts.items():
            self._metrics.settlement_events.labels(result.value).inc(count)
        if rejected:
            first = min(rejected)
            self._say(
                "settlement.rejected",
                publisher=publisher,
                count=len(rejected),
                index=first,
                reason=rejected[first],
            )
        self._add_span(began, publisher, **{f"events.{r.value}": n for r, n in counts.items()})
        return _reply(counts, rejected)

    def _say(self, event: str, **fields: Any) -> None:
        self._lines.say(log.warning, event, trio.current_time(), **fields)

    async def _read(self, length: str | None, chunks: AsyncGenerator[bytes, None]) -> bytes:
        """The whole body.  Raises BadBody for one that is too large or comes too slowly."""
        most = self._settings.max_body_bytes
        too_large = BadBody(413, f"the body is larger than {most} bytes")
        if length is not None and length.isascii() and length.isdigit() and int(length) > most:
            raise too_large
        body = bytearray()
        with trio.move_on_after(self._settings.request_timeout_s) as deadline:
            async with aclosing(chunks):
                async for chunk in chunks:
                    body += chunk
                    if len(body) > most:
                        raise too_large
        if deadline.cancelled_caught:
            raise BadBody(408, "the body did not come in time")
        return bytes(body)


def _broadcasters(publishers: Iterable[PublisherSettings]) -> frozenset[str]:
    """Names of those who may reach every user."""
    return frozenset(each.name for each in publishers if each.broadcast)


def _reply(counts: Mapping[AppendStatus, int], rejected: Mapping[int, str]) -> Reply:
    answer = {
        "accepted": counts[AppendStatus.ACCEPTED],
        "duplicates": counts[AppendStatus.DUPLICATE],
        "rejected": [{"index": i, "reason": rejected[i]} for i in sorted(rejected)],
    }
    return Reply(200, msgspec.json.encode(answer).decode())


def _problem(
    status: int, text: str, headers: Mapping[str, str] | None = None, code: int | None = None
) -> Reply:
    return Reply(status, problem(status, text, code), headers or {})
