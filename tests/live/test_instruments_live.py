"""The instrument table's copy on disk: files, so on the real clock."""

from pathlib import Path

import trio
from test_instruments import Source, info, load


async def test_the_copy_is_used_while_the_venue_is_out_of_reach(tmp_path: Path) -> None:
    cache = tmp_path / "table.json"
    with trio.fail_after(20):
        assert len(await load(Source(info("BTCUSDT", "ETHUSDT")), cache)) == 2
        assert len(await load(Source("", failures=99), cache)) == 2
        cache.write_text("{half a fi")
        assert len(await load(Source(info("BTCUSDT"), failures=1), cache)) == 1
        assert len(await load(Source("", failures=99), cache)) == 1


async def test_a_disk_that_does_not_take_it_is_no_obstacle(tmp_path: Path) -> None:
    assert len(await load(Source(info("BTCUSDT")), tmp_path / "absent" / "table.json")) == 1
