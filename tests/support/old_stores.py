"""Store files as the code of 0.1.0 made them: its SQL, from the commits that are named."""

import sqlite3
from contextlib import closing
from pathlib import Path

_COMMON = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, venue TEXT NOT NULL, symbol TEXT NOT NULL, interval TEXT NOT NULL,
    UNIQUE (venue, symbol, interval));
CREATE TABLE IF NOT EXISTS klines (
    series_id INTEGER NOT NULL REFERENCES series (id), open_ms INTEGER NOT NULL,
    open TEXT NOT NULL, high TEXT NOT NULL, low TEXT NOT NULL, close TEXT NOT NULL,
    volume TEXT NOT NULL, quote_volume TEXT NOT NULL, trades INTEGER NOT NULL,
    source TEXT NOT NULL, event_ms INTEGER NOT NULL, complete INTEGER NOT NULL,{last_trade}
    epoch INTEGER NOT NULL, offset INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS klines_by_open ON klines (series_id, open_ms);
CREATE TABLE IF NOT EXISTS holes (
    series_id INTEGER NOT NULL REFERENCES series (id),
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, UNIQUE (series_id, first_ms));
"""
_NUMBERS = """
CREATE TABLE IF NOT EXISTS revisions (
    series_id INTEGER NOT NULL REFERENCES series (id), open_ms INTEGER NOT NULL,
    epoch INTEGER NOT NULL, offset INTEGER NOT NULL, UNIQUE (series_id, epoch, offset));
CREATE TABLE IF NOT EXISTS epochs (epoch INTEGER PRIMARY KEY, written_to_the_end INTEGER NOT NULL);
"""
SCHEMAS = {
    "1": _COMMON.format(last_trade=""),  # 1e563c3 to e9f1b02
    "2": _COMMON.format(last_trade="") + _NUMBERS,  # 601458a to 9b8e5db
    "2 with ids": _COMMON.format(last_trade="\n    last_trade INTEGER NOT NULL,") + _NUMBERS,
    # f3c9e71 to 9b6d6c9
}
EPOCH = 1_000
START = 1_700_000_040_000
SERIES = (("binance_usdm", "BTCUSDT", "1m", 60_000), ("binance_usdm", "ETHUSDT", "1h", 3_600_000))


def make(path: Path, schema: str, *, rows: int = 10, kind: str = "real") -> None:
    """A file with ``rows`` candles of each of SERIES, numbered 1, 2 ..., and a hole after the
    first one's; where the schema has revisions, its second candle was revised as number 500."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMAS[schema])
        meta = [("schema", schema[0]), ("kind", kind), ("epoch", str(EPOCH))]
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta)
        for key, (venue, symbol, interval, length) in enumerate(SERIES, 1):
            names = (key, venue, symbol, interval)
            connection.execute("INSERT INTO series VALUES (?, ?, ?, ?)", names)
            ids = (lambda n: (7000 + n,)) if schema == "2 with ids" else (lambda n: ())
            candles = [
                (
                    *(key, START + n * length, "100.00", "101.00", "99.00", f"100.{n % 90 + 10}"),
                    *("1.500", "150.75", 7, "exchange", START + n, n != 3),
                    *(*ids(n), EPOCH, n + 1),
                )
                for n in range(rows)
            ]
            marks = ", ".join("?" * len(candles[0]))
            connection.executemany(f"INSERT INTO klines VALUES ({marks})", candles)
        hole = (1, START + rows * 60_000, START + (rows + 2) * 60_000)
        connection.execute("INSERT INTO holes VALUES (?, ?, ?)", hole)
        if schema != "1":
            connection.execute(
                "INSERT INTO revisions VALUES (1, ?, ?, 500)", (START + 60_000, EPOCH)
            )
            connection.execute("INSERT INTO epochs VALUES (?, 1)", (EPOCH,))
