"""Store and journal are created for their owner alone, whatever the umask."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_feed.store.journal_sqlite import open_journal_backend
from trio_feed.store.private_file import create_private
from trio_feed.store.sqlite import open_sqlite
from trio_feed.store.sqlite.file import Place, connect, set_up


@pytest.fixture(params=[0o000, 0o022, 0o377])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.usefixtures("umask")
async def test_the_store_and_its_logs_are_private(tmp_path: Path) -> None:
    backend = open_sqlite(tmp_path / "s.db", simulated=False, now_ms=7)
    found = modes(tmp_path)
    await backend.close(complete=True)
    assert found == {"s.db": 0o600, "s.db-wal": 0o600, "s.db-shm": 0o600}


@pytest.mark.usefixtures("umask")
def test_the_journal_and_its_logs_are_private(tmp_path: Path) -> None:
    backend = open_journal_backend(tmp_path / "j.db", now_ms=7)
    found = modes(tmp_path)
    backend.close()
    assert found == {"j.db": 0o600, "j.db-wal": 0o600, "j.db-shm": 0o600}


@pytest.mark.usefixtures("umask")
async def test_a_store_that_was_deleted_comes_back_private(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    place = Place(path)
    create_private(path)
    writer = connect(path)
    set_up(writer)
    writer.execute("CREATE TABLE rows (n)")
    place.remember()
    path.unlink()
    writer, _readers = place.put_back(writer, [])
    writer.execute("INSERT INTO rows VALUES (1)")
    found = modes(tmp_path)
    writer.close()
    assert set(found) >= {"s.db"}
    assert set(found.values()) == {0o600}


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.touch()
    path.chmod(0o640)
    open_journal_backend(path, now_ms=7).close()
    assert path.stat().st_mode & 0o777 == 0o640
