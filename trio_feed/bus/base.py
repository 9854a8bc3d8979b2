"""What feeds say to push."""

from collections.abc import Iterable
from typing import Protocol

from ..core.effects import News
from ..model import Kline, KlineMessage, LineMessage, Series, Subject


class Publisher(Protocol):
    """The narrow way from the feeds to everybody who listens."""

    def open(
        self, subject: Subject, history: Iterable[Kline] = (), first_ms: int | None = None
    ) -> None: ...

    def close(self, subject: Subject) -> None: ...

    def alias(self, native: str, symbol: str) -> None: ...

    def publish(self, news: News) -> KlineMessage | LineMessage | None: ...

    def publish_ephemeral(self, news: News) -> None: ...

    def note_history(self, series: Series, first_ms: int) -> None: ...
