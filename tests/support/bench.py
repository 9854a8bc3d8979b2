"""A driver with a bus and a store that keep what they were given, and a REST that is scripted."""

import random
from collections.abc import Iterable, Mapping
from typing import Any

import trio

from trio_feed.core.effects import CandleNews, ChannelNews, News, TradeNews
from trio_feed.environment import Environment, mono
from trio_feed.ingest.context import FeedContext
from trio_feed.ingest.driver import Driver
from trio_feed.instants import Wall
from trio_feed.metrics import Metrics
from trio_feed.model import (
    Channel,
    ChannelMessage,
    Interval,
    Kline,
    KlineMessage,
    Series,
    StreamKey,
)
from trio_feed.net.rest import Answer
from trio_feed.settings import ExchangeSettings
from trio_feed.store import MemoryStore

from .engine import USDM
from .make import T0


def wall_ms() -> float:
    return T0 + trio.current_time() * 1000


async def _nowhere(*_: Any) -> Any:
    raise AssertionError("nothing is dialled here")


class Bus:
    """Numbers what is published, and keeps it."""

    def __init__(self) -> None:
        self.opened: list[StreamKey] = []
        self.published: list[News] = []
        self.provisional: list[CandleNews] = []
        self.first_ms: dict[Series, int] = {}

    def open(
        self,
        stream_key: StreamKey,
        history: Iterable[Kline] = (),
        first_ms: int | None = None,
        *,
        sparse: bool = False,
    ) -> None:
        self.opened.append(stream_key)

    def close(self, stream_key: StreamKey) -> None:
        self.opened.remove(stream_key)

    def alias(self, native: str, symbol: str) -> None: ...

    def set_waiting(self, venue: str, symbol: str, problem: str) -> None: ...

    def publish(
        self, news: News, *, ephemeral: bool = False
    ) -> KlineMessage | ChannelMessage | None:
        if isinstance(news, TradeNews):
            for one in news.trades:
                self.publish(ChannelNews(news.key, one, news.source, news.received_ms))
            return None
        assert not ephemeral, "only the fallback says such"
        if isinstance(news, CandleNews) and news.provisional:
            self.provisional.append(news)
            return None
        self.published.append(news)
        number = len(self.published)
        match news:
            case CandleNews():
                return KlineMessage(
                    news.series, news.kline, 7, number, news.update_count, news.received_ms,
                    news.revision,
                )  # fmt: skip
            case ChannelNews():
                return ChannelMessage(news.key, news.data, news.source, 7, number, news.received_ms)
        return None

    def deepen(self, series: Series, first_ms: int) -> None:
        self.first_ms[series] = first_ms

    @property
    def candles(self) -> list[CandleNews]:
        return [news for news in self.published if isinstance(news, CandleNews)]


class Bench:
    """Inside of a trio run only.  The exchange's time is T0 at trio's 0, and ours the same."""

    def __init__(self, rules: Any = USDM, **more: Any) -> None:
        chosen: dict[str, Any] = {
            "symbols": ("BTCUSDT",),
            "intervals": (Interval.M1,),
            "trade_intervals": (),
            "history_bars": 10,
            "channels": (Channel.KLINE, Channel.TRADE),
            "audit_after_s": 0.0,
        }
        self.bus, self.store, self.metrics = Bus(), MemoryStore(7), Metrics()
        here = Environment(_nowhere, _nowhere, wall_ms, random.Random(1))
        context = FeedContext(here, None, self.store, self.bus, self.metrics)
        self.driver = Driver(rules, ExchangeSettings(**(chosen | more)), context)

    def take(self, *events: Any) -> None:
        self.driver.take(events, mono(), Wall(wall_ms()))

    def count(self, metric: str, *labels: str) -> float:
        found = getattr(self.metrics, metric).labels(self.driver.rules.venue, *labels)
        return float(found._value.get())


class Rest:
    """Answers what the test says, one after the other; None: it waits for ever."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any], int, float]] = []
        self.date_ms: float | None = None

    async def get(self, path: str, params: Mapping[str, Any], *, weight: int) -> Answer:
        self.asked.append((path, dict(params), weight, trio.current_time()))
        await trio.lowlevel.checkpoint()
        if not self.answers:
            await trio.sleep_forever()
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return Answer(found, self.date_ms, mono(), mono())
