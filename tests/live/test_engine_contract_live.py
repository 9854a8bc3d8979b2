"""The contract of engines on real servers."""

from collections.abc import Awaitable, Callable, Iterator
from itertools import count

import pytest
import trio
from support.engine_contract import CHECKS, Kit
from support.valkey import KINDS, ValkeyServer, valkey_server

from trio_feed.bus.engine import make_engine
from trio_feed.settings import EngineSettings

_numbers = count()


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    with valkey_server(request.param) as made:
        yield made


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check: Callable[[Kit], Awaitable[None]], server: ValkeyServer) -> None:
    settings = EngineSettings("valkey", (server.url,), prefix=f"t{next(_numbers)}", timeout_s=1.4)
    with trio.fail_after(90):
        async with (
            make_engine(settings, b"one") as engine,
            make_engine(settings, b"one") as other,
        ):
            server.ask("DEL", f"{settings.prefix}:cluster")
            await check(Kit(engine, other))
