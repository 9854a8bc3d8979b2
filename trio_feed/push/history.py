"""History for a client: the hub's recent candles, and the store for what lies before them.

The feeds put a closed candle into the store and publish it in one synchronous step, so the store
(with what it has not written yet) always holds at least what the hub's ring holds.
"""

from ..bus.base import Stream
from ..model import Kline, Series
from ..store import KlineStore
from . import messages
from .protocol import History

Rows = list[tuple[Kline, int]]


async def latest(store: KlineStore, stream: Stream, own: str, limit: int) -> str:
    """The last ``limit`` closed candles as the ``data`` of a ``history_data`` message.

    Up to date at the moment of return: between looking at the topic and returning nothing waits,
    so a caller that subscribes at once has neither gap nor overlap.
    """
    rows: Rows = []
    while _lacks(stream, rows, limit):
        stored = await store.history(_series(stream), limit=limit)
        rows = [(kline, 1) for kline in stored]
        if not rows:
            break
    ring = {kline.open_ms: (kline, count) for kline, count in stream.recent}
    merged = {kline.open_ms: (kline, count) for kline, count in rows} | ring
    rows = [merged[at] for at in sorted(merged)][-limit:]
    return _body(stream, own, rows)


async def answer(store: KlineStore, stream: Stream, own: str, request: History, limit: int) -> str:
    """A ``history`` request's answer: the last ``limit`` closed candles of the range, or the
    first ones where only ``from`` is given."""
    start_ms, end_ms = request.start_ms, request.end_ms
    if start_ms is None and end_ms is None:
        return await latest(store, stream, own, limit)
    stored = await store.history(_series(stream), limit=limit, start_ms=start_ms, end_ms=end_ms)
    counts = {kline.open_ms: count for kline, count in stream.recent}
    return _body(stream, own, [(kline, counts.get(kline.open_ms, 1)) for kline in stored])


def _series(stream: Stream) -> Series:
    assert isinstance(stream.subject, Series), "only candles have a history"
    return stream.subject


def _lacks(stream: Stream, rows: Rows, limit: int) -> bool:
    """Whether the ring and ``rows`` together leave a part of the answer to the store: the ring
    is too short, or it has rolled on past what was read."""
    if limit <= len(stream.recent) or stream.first_ms is None:
        return False
    first = stream.recent[0][0].open_ms if stream.recent else None
    if first is not None and first <= stream.first_ms:
        return False
    return not rows or (first is not None and rows[-1][0].open_ms < first)


def _body(stream: Stream, own: str, rows: Rows) -> str:
    more = bool(rows) and stream.first_ms is not None and stream.first_ms < rows[0][0].open_ms
    return messages.history_body(
        own,
        stream.subject.venue,
        rows,
        has_more=more,
        epoch=stream.epoch,
        offset=stream.offset,
    )
