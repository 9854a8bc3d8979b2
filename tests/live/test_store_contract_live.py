"""The contract of stores on SQLite: with all rows unwritten, and with all on the disk."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from support.store_contract import CHECKS, EPOCH, KEEP, Kit

from trio_feed.metrics import Metrics
from trio_feed.settings import StoreSettings
from trio_feed.store import BufferedStore, open_store


@pytest.mark.parametrize("kind", ["unwritten", "written"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check: Callable[[Kit], Awaitable[None]], kind: str, tmp_path: Path) -> None:
    settings = StoreSettings(path=str(tmp_path / "a.db"), keep=KEEP)
    with trio.fail_after(30):
        async with open_store(settings, simulated=False, now_ms=EPOCH, metrics=Metrics()) as store:
            assert isinstance(store, BufferedStore)

            async def retain() -> None:
                await store.flush()
                await store.retain()

            written = store.flush if kind == "written" else trio.lowlevel.checkpoint
            await check(Kit(store, written, retain))
