"""A node that serves answers out of a database that may be behind what it has handed out."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from support.make import SERIES, T0, kline, message

from trio_feed.cluster.caught_up import BEHIND_S, CaughtUp
from trio_feed.errors import StoreError
from trio_feed.model import Kline, KlineMessage, Series

CANDLE = message(kline(T0), offset=1)
REVISION = evolve(message(kline(T0), offset=2), revision=True)


@define
class Database:
    """What is in it from a time on."""

    late: list[tuple[float, KlineMessage]] = field(factory=list)

    def _there(self) -> list[KlineMessage]:
        return [row for at, row in self.late if at <= trio.current_time()]

    async def history(self, _series: Series, **_more: Any) -> Sequence[Kline]:
        await trio.lowlevel.checkpoint()
        return [row.kline for row in self._there() if not row.revision]

    async def after(
        self, _series: Series, epoch: int, offset: int, **_more: Any
    ) -> list[KlineMessage] | None:
        await trio.lowlevel.checkpoint()
        return [row for row in self._there() if (row.epoch, row.offset) > (epoch, offset)]


async def test_it_waits_for_the_last_closed_candle(autojump_clock: trio.abc.Clock) -> None:
    store = CaughtUp(Database([(1.0, CANDLE)]), lambda _series: (T0, (0, 0)))
    assert await store.after(SERIES, 1, 0, limit=9) == [CANDLE]
    with pytest.raises(StoreError):
        await CaughtUp(Database(), lambda _series: (T0, (0, 0))).after(SERIES, 1, 0, limit=9)


async def test_and_for_the_last_revision(autojump_clock: trio.abc.Clock) -> None:
    """Else who comes back would not hear of it, nor that it missed it."""
    handed_out = (T0, (1, 2))
    late = Database([(0.0, CANDLE), (1.0, REVISION)])
    store = CaughtUp(late, lambda _series: handed_out)
    assert await store.after(SERIES, 1, 1, limit=9) == [REVISION]
    never = CaughtUp(Database([(0.0, CANDLE)]), lambda _series: handed_out)
    began = trio.current_time()
    assert await never.after(SERIES, 1, 1, limit=9) is None
    assert trio.current_time() - began >= BEHIND_S
    assert await never.after(SERIES, 1, 2, limit=9) == []
