"""The questions that are asked of the candle file, as SQL.  Blocking; one thread at a time."""

import sqlite3
from decimal import Decimal
from typing import Any

from ..model import Interval, Kline, KlineMessage, Series, Source
from .base import Tail

COLUMNS = (
    "open_ms, open, high, low, close, volume, quote_volume, trades, source, event_ms, complete,"
    " last_trade"
)
_AFTER = "({0}epoch > ? OR ({0}epoch = ? AND {0}offset > ?))"


class SqliteReader:
    """Reads through a connection that it owns.  Everything may raise sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def close(self) -> None:
        self.connection.close()

    def history(
        self, series: Series, limit: int, start_ms: int | None, end_ms: int | None, forward: bool
    ) -> list[Kline]:
        order = "ASC" if forward else "DESC"
        rows = self.connection.execute(
            f"SELECT {COLUMNS} FROM klines JOIN series ON series.id = series_id"
            " WHERE venue = ? AND symbol = ? AND interval = ? AND open_ms >= ? AND open_ms < ?"
            f" ORDER BY open_ms {order} LIMIT ?",
            (
                series.venue,
                series.symbol,
                series.interval.value,
                start_ms if start_ms is not None else 0,
                end_ms if end_ms is not None else 2**62,
                limit,
            ),
        ).fetchall()
        klines = [_kline(row) for row in rows]
        return klines if forward else klines[::-1]

    def tails(self) -> dict[Series, Tail]:
        columns = ", ".join(f"k.{name}" for name in COLUMNS.split(", "))
        rows = self.connection.execute(
            "SELECT s.venue, s.symbol, s.interval,"
            " (SELECT coalesce(max(last_ms), 0) FROM holes WHERE series_id = s.id),"
            f" {columns} FROM series s"
            " JOIN klines k ON k.series_id = s.id"
            " AND k.open_ms = (SELECT max(open_ms) FROM klines WHERE series_id = s.id)"
        ).fetchall()
        return {
            Series(row[0], row[1], Interval(row[2])): Tail(_kline(row[4:]), max(row[4], row[3]))
            for row in rows
        }

    def after(
        self,
        series: Series,
        epoch: int,
        offset: int,
        closed_ms: int | None,
        limit: int,
        *,
        exact: bool,
    ) -> list[KlineMessage] | None:
        ids = self.connection.execute(
            "SELECT id FROM series WHERE venue = ? AND symbol = ? AND interval = ?",
            (series.venue, series.symbol, series.interval.value),
        ).fetchone()
        if ids is None:
            return [] if exact else None
        key, number = ids[0], (epoch, epoch, offset)
        if not exact and not self._is_known(key, epoch, offset):
            if closed_ms is None or not self._exists(key, closed_ms):
                return None
            boundary = closed_ms
        else:
            # Candles go out in the order of their opens, so the newest that is not after decides.
            row = self.connection.execute(
                f"SELECT open_ms FROM klines WHERE series_id = ? AND NOT {_AFTER.format('')}"
                " ORDER BY open_ms DESC LIMIT 1",
                (key, *number),
            ).fetchone()
            boundary = -1 if row is None else row[0]
        candles = self.connection.execute(
            f"SELECT {COLUMNS}, epoch, offset FROM klines WHERE series_id = ? AND open_ms > ?"
            " ORDER BY open_ms LIMIT ?",
            (key, boundary, limit + 1),
        ).fetchall()
        names = ", ".join(f"klines.{name}" for name in COLUMNS.split(", "))
        again = self.connection.execute(
            f"SELECT {names}, revisions.epoch, revisions.offset FROM revisions"
            " JOIN klines USING (series_id, open_ms) WHERE series_id = ?"
            f" AND {_AFTER.format('revisions.')}"
            " LIMIT ?",
            (key, *number, limit + 1),
        ).fetchall()
        if len(candles) + len(again) > limit:
            return None
        rows = [(row, False) for row in candles] + [(row, True) for row in again]
        return [
            KlineMessage(series, _kline(row), row[-2], row[-1], 1, 0.0, revision)
            for row, revision in rows
        ]

    def _is_known(self, key: int, epoch: int, offset: int) -> bool:
        """Whether everything up to that number was written."""
        ended = self.connection.execute(
            "SELECT written_to_the_end FROM epochs WHERE epoch = ?", (epoch,)
        ).fetchone()
        if ended is None or ended[0]:
            return ended is not None
        last = self.connection.execute(
            "SELECT max(offset) FROM (SELECT offset FROM revisions WHERE series_id = :key"
            " AND epoch = :epoch UNION ALL SELECT * FROM (SELECT offset FROM klines"
            " WHERE series_id = :key AND epoch = :epoch ORDER BY open_ms DESC LIMIT 1))",
            {"key": key, "epoch": epoch},
        ).fetchone()[0]
        return last is not None and offset <= last

    def _exists(self, key: int, open_ms: int) -> bool:
        return bool(
            self.connection.execute(
                "SELECT count(*) FROM klines WHERE series_id = ? AND open_ms = ?", (key, open_ms)
            ).fetchone()[0]
        )

    def first_open(self, series: Series) -> int | None:
        row = self.connection.execute(
            "SELECT min(open_ms) FROM klines JOIN series ON series.id = series_id"
            " WHERE venue = ? AND symbol = ? AND interval = ?",
            (series.venue, series.symbol, series.interval.value),
        ).fetchone()
        return None if row is None else row[0]


def _kline(row: tuple[Any, ...]) -> Kline:
    o, h, low, c, volume, quote = (Decimal(text) for text in row[1:7])
    source, event_ms, complete, last_id = Source(row[8]), row[9], bool(row[10]), row[11]
    return Kline(
        row[0], o, h, low, c, volume, quote, row[7], True, source, event_ms, complete, last_id
    )
