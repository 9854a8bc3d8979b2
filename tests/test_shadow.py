"""What a node in hot standby keeps of shards that others own."""

from support.make import MINUTE, SERIES, T0, kline

from trio_feed.bus.engine.shadow import Shadow
from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import CandleNews


def test_corrections_are_those_of_the_last_minute_and_of_nobody_that_says_them() -> None:
    now, owned = 0.0, False
    bus = LocalBus(epoch=4, history_rows=5, resume_messages=9, now_ms=lambda: 0.0)
    shadow = Shadow(lambda _venue, _symbol: owned, lambda: now)
    bus.listen(shadow)
    bus.open(SERIES)

    def publish(minute: int, close: str, *, revision: bool = False) -> None:
        bus.publish(CandleNews(SERIES, kline(T0 + minute * MINUTE, close), 1, 0.0, revision))

    publish(0, "1")
    assert not shadow.corrections(SERIES)
    publish(0, "2", revision=True)
    now = 60.0
    assert [str(each.kline.close) for each in shadow.corrections(SERIES)] == ["2"]
    now = 60.1
    assert not shadow.corrections(SERIES)
    publish(0, "3", revision=True)
    assert [str(each.kline.close) for each in shadow.corrections(SERIES)] == ["3"]
    owned = True
    publish(1, "4")
    assert not shadow.corrections(SERIES)
