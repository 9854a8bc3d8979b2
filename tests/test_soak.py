"""The judge of ``scripts/soak`` can be unhappy."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from scripts import soak
from scripts.soak import Soak
from scripts.soak_record import Plan, Record, read_store
from trio_feed.model import Interval
from trio_feed.simulator import Market

KEY = ("BTCUSDT", Interval.S1)
T0 = 1_760_000_000


def row(time: int, close: float = 1.5, *, complete: bool = True) -> dict[str, Any]:
    prices = {"open": 1.0, "high": 2.0, "low": 1.0, "close": close, "volume": 3.0}
    return {"time": time, "update_type": "final", "complete": complete, **prices}


def final(time: int, epoch: int = 1, **more: Any) -> dict[str, Any]:
    data = {"symbol": KEY[0], "interval": "1s", "epoch": epoch, "data": row(time, **more)}
    return {"type": "kline_data", "data": data}


def history(*times: int) -> dict[str, Any]:
    rows = [row(time) for time in times]
    return {"type": "history_data", "data": {"symbol": KEY[0], "interval": "1s", "data": rows}}


def record(*messages: dict[str, Any]) -> Record:
    record = Record()
    record.connected()
    for message in messages:
        record.note(message)
    return record


def test_what_the_client_was_told_is_kept() -> None:
    good = record(history(T0, T0 + 1), final(T0 + 2), {"type": "pong"})
    assert sorted(good.told[KEY]) == [T0 * 1000, (T0 + 1) * 1000, (T0 + 2) * 1000]
    assert (good.out_of_order, good.contradicted) == (0, 0)


def test_order_is_judged_within_a_connection() -> None:
    assert record(final(T0 + 1), final(T0)).out_of_order == 1
    assert record(history(T0), final(T0)).out_of_order == 1
    again = record(final(T0 + 1))
    again.connected()
    again.note(history(T0, T0 + 1))
    assert again.out_of_order == 0


def test_a_final_twice_in_an_epoch_is_one_too_many() -> None:
    twice = record(final(T0), final(T0), final(T0, epoch=2))
    assert sorted(twice.finals.values()) == [1, 2]


def test_other_values_are_a_contradiction_unless_incomplete() -> None:
    assert record(final(T0), final(T0, epoch=2, close=1.6)).contradicted == 1
    assert record(final(T0, complete=False), final(T0, epoch=2, close=1.6)).contradicted == 0


def test_wrong_candles_are_found(tmp_path: Path) -> None:
    market = Market(1, ("BTCUSDT",), 600)
    lines: list[str] = []
    run = Soak(Plan(), market, tmp_path, T0 * 1000.0, log=lines.append)
    right = run.truth(KEY, T0 * 1000)
    found = {KEY: {T0 * 1000: right, T0 * 1000 + 1000: right, T0 * 1000 + 2000: ()}}
    assert soak.wrong(run, found) == 1
    assert lines[0].startswith("wrong: BTCUSDT 1s 1760000001000")


def test_what_is_expected_begins_with_the_start_and_ends_with_what_closed(tmp_path: Path) -> None:
    run = Soak(Plan(), Market(1, ("BTCUSDT",), 600), tmp_path, T0 * 1000 + 500.0)
    assert [*run.expected(KEY, T0 * 1000 + 2_999)] == [T0 * 1000, T0 * 1000 + 1000]


def test_the_store_is_read_and_checked_for_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            "CREATE TABLE series (id INTEGER PRIMARY KEY, venue, symbol, interval);"
            "CREATE TABLE klines (series_id, open_ms, complete, open, high, low, close, volume);"
            "INSERT INTO series VALUES (1, 'binance', 'BTCUSDT', '1s');"
            "INSERT INTO klines VALUES (1, 5000, 1, '1', '2', '1', '1.50', '3');"
            "INSERT INTO klines VALUES (1, 6000, 0, '1', '2', '1', '1.50', '3');"
        )
    stored, damaged = read_store(path)
    assert stored == {KEY: {5000: (1.0, 2.0, 1.0, 1.5, 3.0), 6000: ()}}
    assert damaged == 0
