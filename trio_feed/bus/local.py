"""Temporary: numbers in one place, over today's hub."""

from collections.abc import Iterable
from typing import Any

from ..core.effects import CandleNews, LineNews, News
from ..model import Kline, KlineMessage, LineMessage, Series, Subject


class LocalBus:
    def __init__(self, hub: Any, epoch: int) -> None:
        self._hub, self._epoch = hub, epoch
        self._offsets: dict[Subject, int] = {}

    def open(
        self, subject: Subject, history: Iterable[Kline] = (), first_ms: int | None = None
    ) -> None:
        self._hub.open_topic(subject, history, first_ms)

    def close(self, subject: Subject) -> None:
        self._hub.close_topic(subject)

    def alias(self, native: str, symbol: str) -> None:
        self._hub.name(native, symbol)

    def publish(self, news: News) -> KlineMessage | LineMessage | None:
        if isinstance(news, CandleNews):
            at = self._offsets[news.series] = self._offsets.get(news.series, 0) + 1
            message = KlineMessage(
                news.series, news.kline, self._epoch, at, news.update_count,
                news.received_ms, news.revision,
            )  # fmt: skip
            self._hub.publish(message)
            return message
        if isinstance(news, LineNews):
            at = self._offsets[news.line] = self._offsets.get(news.line, 0) + 1
            line = LineMessage(news.line, news.data, news.source, self._epoch, at, news.received_ms)
            self._hub.publish(line)
            return line
        self._hub.publish(news)
        return None

    def publish_ephemeral(self, news: News) -> None:
        pass

    def note_history(self, series: Series, first_ms: int) -> None:
        topic = self._hub._all.by_subject.get(series)
        if topic is not None:
            topic.first_ms = first_ms
