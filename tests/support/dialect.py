"""A Binance dialect without a service: what is published is written at once, or asked for."""

import json
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from attrs import frozen

from trio_feed.bus.base import Published, Stream
from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import CandleNews, ChannelNews
from trio_feed.dialects.binance.profile import Profile
from trio_feed.dialects.binance.rest import answers
from trio_feed.dialects.binance.streams import Found, Streams
from trio_feed.dialects.binance.weight import UsedWeight
from trio_feed.dialects.market import MarketData
from trio_feed.ingest.fed import FedInstruments
from trio_feed.metrics import Metrics
from trio_feed.model import Instrument, Source, StatusMessage, StreamKey
from trio_feed.push import demand
from trio_feed.push.context import SessionContext
from trio_feed.push.edge.spending import Spending
from trio_feed.push.fanout.encoded import StreamForm, encoded_once
from trio_feed.push.fanout.hub import Hub
from trio_feed.push.fanout.topics import Topic
from trio_feed.push.mounts import Question, Reply, Work
from trio_feed.venues import Instruments

from .wire import payload_of


class Desk:
    """One market.  ``now_ms`` may be set."""

    def __init__(
        self, profile: Profile, listed: Iterable[Instrument], *, simulated: bool = False
    ) -> None:
        table = Instruments(listed)
        self.now_ms = 1_000_000.0
        self._bus = LocalBus(
            epoch=1, history_rows=100, resume_messages=256, now_ms=lambda: self.now_ms
        )
        self._hub = Hub(
            self._bus,
            default_venue=profile.venue,
            now_ms=lambda: self.now_ms,
            metrics=Metrics(),
        )
        self._last: dict[Stream, Published] = {}
        self._bus.listen(_Noting(self._last))
        limits = SimpleNamespace(history_rows=100, max_subscriptions=100)
        context = SimpleNamespace(
            hub=self._hub,
            now_ms=lambda: self.now_ms,
            limits=limits,
            desk=demand.Desk(),
            spending=Spending(),
        )
        fed = FedInstruments(table, [each.symbol for each in table])
        self.market = market = MarketData(
            profile.venue, cast(SessionContext, context), lambda _: fed, simulated=simulated
        )
        self.streams = Streams(profile, market)
        self.answers = answers(profile, market, UsedWeight(), self.streams.shown)
        self._api = profile.api

    def open(self, key: StreamKey) -> Topic:
        self._bus.open(key)
        topic = self._hub.topic(key)
        assert topic is not None
        return topic

    def close(self, key: StreamKey) -> None:
        self._bus.close(key)

    def publish(self, news: ChannelNews | CandleNews) -> None:
        self._bus.publish(news)

    def found(self, name: str) -> Found:
        found = self.streams.find(name)
        assert isinstance(found, Found), found
        return found

    def form(self, name: str, *, wrapped: bool = False) -> StreamForm:
        return self.streams.form(self.found(name), wrapped=wrapped)

    def text(self, form: StreamForm, topic: Topic) -> str | None:
        """How the last message of a topic is written."""
        frame = form.frame(encoded_once(self._last[topic.stream]))
        return None if frame is None else payload_of(frame).decode()

    def ask(self, name: str, **query: object) -> tuple[int, Any]:
        """Status and body of a question of REST that waits for nothing."""
        words = [(key, str(value)) for key, value in query.items()]
        found = self.answers[f"{self._api}/{name}"](Question(f"{self._api}/{name}", query=words))
        reply = _at_once(found) if isinstance(found, Work) else found
        return reply.status, json.loads(reply.body)


@frozen
class _Noting:
    """A :class:`trio_feed.bus.base.Listener` that keeps the last message of each stream."""

    last: dict[Stream, Published]

    def opened(self, stream: Stream) -> None: ...

    def closed(self, stream: Stream) -> None: ...

    def aliased(self, native: str, symbol: str) -> None: ...

    def published(self, stream: Stream, published: Published) -> None:
        self.last[stream] = published

    def status_changed(self, stream: Stream, status: StatusMessage) -> None: ...


def _at_once(work: Work) -> Reply:
    step = work.answer().__await__()
    try:
        next(step)
    except StopIteration as end:
        reply: Reply = end.value
        return reply
    raise AssertionError("it waits for something")


def names(found: Mapping[str, Any]) -> set[str]:
    """Fields, those of the innermost too."""
    inner = {f"{outer}.{name}" for outer in found for name in _fields(found[outer])}
    return {name for name in found if not _fields(found[name])} | inner


def _fields(value: object) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


SOURCE = Source.EXCHANGE
