"""A bus that remembers what was published, for tests of what publishes."""

from typing import Any

from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import CandleNews, ChannelNews, News, TradeNews
from trio_feed.model import ChannelMessage, KlineMessage


class Recorder(LocalBus):
    """``out``: the numbered messages and the statuses, in order.  StreamKeys open by themselves."""

    def __init__(self, out: list[Any], epoch: int = 1) -> None:
        super().__init__(epoch=epoch, history_rows=5, resume_messages=5, now_ms=lambda: 0.0)
        self.out = out

    def publish(self, news: News) -> KlineMessage | ChannelMessage | None:
        match news:
            case TradeNews():
                for one in news.trades:
                    self.publish(ChannelNews(news.key, one, news.source, news.received_ms))
                return None
            case CandleNews():
                self.open(news.series)
            case ChannelNews():
                self.open(news.key)
            case _:
                self.open(news.stream_key)
        message = super().publish(news)
        self.out.append(news if message is None else message)
        return message
