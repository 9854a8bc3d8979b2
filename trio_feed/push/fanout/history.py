"""History for a client: the bus's recent candles, and the store for what lies before them.

A closed candle is published and put into the store in one synchronous step, so a store in this
process always holds what the bus holds; one elsewhere may be behind for a moment, or ahead of what
this node was told: the last candles end with the bus's last one, what follows comes as messages.

Of a sparse series the silent intervals between two known candles are put in, flat, no more than
were asked for.  Behind the last known candle nothing is: whether it is silent since is not known.
"""

from collections.abc import Sequence
from contextlib import aclosing

import trio
from attrs import define

from ...bus.base import Stream
from ...core.flat import fill_flat
from ...errors import StoreError
from ...model import Kline, Series
from ...store import CandleReader
from .. import messages
from ..portions import PORTION, in_portions
from ..protocol import History

BEHIND_S = 2.0
"""A question waits so long at most for a store that is behind."""
_AGAIN_S = 0.05

Rows = list[tuple[Kline, int]]


async def latest(store: CandleReader, stream: Stream, own: str, limit: int) -> str:
    """The last ``limit`` closed candles as the ``data`` of a ``history_data`` message.

    Up to date at the moment of return: between looking at the stream and returning nothing waits,
    so a caller that subscribes at once has neither gap nor overlap.  Raises StoreError.
    """
    return await _written(store, stream, own, limit, None, None)


async def answer(
    store: CandleReader, stream: Stream, own: str, request: History, limit: int
) -> str:
    """A ``history`` request's answer: the last ``limit`` closed candles of the range, or the
    first ones where only ``from`` is given.  Raises StoreError."""
    return await _written(store, stream, own, limit, request.start_ms, request.end_ms)


async def rows(
    store: CandleReader, stream: Stream, limit: int, start_ms: int | None, end_ms: int | None
) -> Rows:
    """The same as values, each with its update_count; up to date at the moment of return, too.
    Raises StoreError."""
    return await _whole(store, stream, limit, start_ms, end_ms, _Kept())


@define
class _Kept:
    """What the store has answered, and as of which number of revisions; -1: nothing that counts."""

    rows: Sequence[Kline] = ()
    revisions: int = -1


async def _written(
    store: CandleReader,
    stream: Stream,
    own: str,
    limit: int,
    start_ms: int | None,
    end_ms: int | None,
) -> str:
    """The rows as text, in portions.  What was closed or revised meanwhile is written in the next
    round; in the last one there are so few that nothing waits."""
    kept, texts = _Kept(), dict[int, tuple[tuple[Kline, int], str]]()
    while True:
        found = await _whole(store, stream, limit, start_ms, end_ms, kept)
        known = (texts.get(row[0].open_ms) for row in found)
        fresh = [row for row, text in zip(found, known, strict=True) if not text or text[0] != row]
        if len(fresh) < PORTION:
            break
        async with aclosing(in_portions(fresh)) as portions:
            async for row in portions:
                texts[row[0].open_ms] = row, messages.candle(*row)
    for row in fresh:
        texts[row[0].open_ms] = row, messages.candle(*row)
    more = bool(found) and stream.first_ms is not None and stream.first_ms < found[0][0].open_ms
    return messages.history_body(
        own,
        stream.stream_key.venue,
        [texts[kline.open_ms][1] for kline, _ in found],
        has_more=more,
        epoch=stream.epoch,
        offset=stream.offset,
    )


async def _whole(
    store: CandleReader,
    stream: Stream,
    limit: int,
    start_ms: int | None,
    end_ms: int | None,
    kept: _Kept,
) -> Rows:
    """With the flat candles of a sparse series."""
    if not stream.sparse:
        return await _rows(store, stream, limit, start_ms, end_ms, kept)
    before: Sequence[Kline] = ()
    if start_ms is not None:
        before = await store.history(_series(stream), limit=1, end_ms=start_ms)
    rows = await _rows(store, stream, limit, start_ms, end_ms, kept)
    after = [kline for kline, _ in stream.recent][-1:]  # nothing waits from here on
    known_ms = max((kline.open_ms + 1 for kline in [*after, *(k for k, _ in rows)]), default=0)
    counts = {kline.open_ms: count for kline, count in rows}
    filled = fill_flat(
        [kline for kline, _ in rows],
        _series(stream).interval,
        limit=limit,
        end_ms=known_ms if end_ms is None else min(known_ms, end_ms),
        start_ms=start_ms,
        before=before[-1] if before else None,
        first=start_ms is not None and end_ms is None,
    )
    return [(kline, counts.get(kline.open_ms, 1)) for kline in filled]


async def _rows(
    store: CandleReader,
    stream: Stream,
    limit: int,
    start_ms: int | None,
    end_ms: int | None,
    kept: _Kept,
) -> Rows:
    """Without a hole between store and bus.  Raises StoreError where the store stays behind.

    Waits for nothing while what is ``kept`` of the store still counts."""
    series, first_ones = _series(stream), start_ms is not None and end_ms is None
    deadline = None
    while True:
        recent = _within(stream, start_ms, end_ms)
        if _suffices(stream, recent, limit, start_ms, first_ones=first_ones):
            return recent[:limit] if first_ones else recent[-limit:]
        revisions, first = stream.revisions, recent[0][0].open_ms if recent else None
        asked = kept.revisions != revisions
        if asked:
            until_ms = end_ms
            if start_ms is None and end_ms is None and recent:
                until_ms = recent[-1][0].open_ms + 1
            kept.rows = await store.history(series, limit=limit, start_ms=start_ms, end_ms=until_ms)
            kept.revisions = revisions
        stored = kept.rows
        recent = _within(stream, start_ms, end_ms)
        outdated = stream.revisions != revisions  # perhaps of a candle that had been read
        last = stored[-1].open_ms if stored else None
        apart = last is not None and bool(recent) and last < recent[0][0].open_ms
        if first_ones:
            apart = apart and len(stored) < limit
        if not apart and not outdated:
            break
        kept.revisions = -1
        if not asked:
            continue
        if not outdated and (first is None or last is None or last >= first):
            continue  # it was not behind, but candles closed faster than it answered
        now = trio.current_time()
        deadline = now + BEHIND_S if deadline is None else deadline
        if now >= deadline and outdated:
            raise StoreError("history changes faster than it can be read; ask again")
        if now >= deadline:  # an answer with a hole, or only one side of it, would look whole
            raise StoreError("the history is being written and is not whole yet; ask again")
        if apart:
            await trio.sleep(min(_AGAIN_S, deadline - now))
    merged = {kline.open_ms: (kline, 1) for kline in stored}
    merged |= {kline.open_ms: (kline, count) for kline, count in recent}
    rows = [merged[at] for at in sorted(merged)]
    return rows[:limit] if first_ones else rows[-limit:]


def _series(stream: Stream) -> Series:
    assert isinstance(stream.stream_key, Series), "only candles have a history"
    return stream.stream_key


def _within(stream: Stream, start_ms: int | None, end_ms: int | None) -> Rows:
    """Recent candles with start_ms <= open < end_ms."""
    return [
        (kline, count)
        for kline, count in stream.recent
        if (start_ms is None or kline.open_ms >= start_ms)
        and (end_ms is None or kline.open_ms < end_ms)
    ]


def _suffices(
    stream: Stream, recent: Rows, limit: int, start_ms: int | None, *, first_ones: bool
) -> bool:
    """Whether the recent candles are the whole answer."""
    if stream.first_ms is None:
        return True
    if stream.sparse:  # the store also has silent candles that were not published
        return False
    if len(recent) >= limit and not first_ones:
        return True
    if not stream.recent:
        return False
    oldest = stream.recent[0][0].open_ms
    return oldest <= max(stream.first_ms, start_ms or 0)
