"""Limits hold for all workers together: what one process would refuse is refused."""

import pytest
import trio
from support.stack import settings_for_tests
from test_workers import ask, client_of, metric, open_workers

from trio_feed.settings import Settings
from trio_feed.workers.share import share_of
from trio_feed.workers.worker import SPENT_S

KLINES = "/api/v1/klines?symbol=BTCUSDT&interval=1m&limit="
SAID_S = 2 * SPENT_S


async def test_rows_of_an_address(autojump_clock: trio.abc.Clock) -> None:
    """Ordered at one worker, refused at the other; over WebSocket as over HTTP."""
    async with open_workers("limits.rows_per_second=10", "limits.row_burst=1000") as (stack, _):
        await trio.sleep(130)
        for worker in (1, 2):  # the second leaves a debt
            assert (await ask(stack, worker, f"{KLINES}1000"))[0] == 200
            await trio.sleep(SAID_S)
        for worker in (1, 2):
            code, text = await ask(stack, worker, f"{KLINES}1000")
            assert (code, "more than 10 rows a second" in text) == (429, True), text
        async with client_of(stack, 2) as client:
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m", limit=300)
            assert (await client.of_type("error"))["code"] == 1005
        await trio.sleep(200)
        refused = await metric(stack, 1, 'trio_feed_orders_refused_total{reason="budget"}')
        assert refused == 3
        assert (await ask(stack, 2, f"{KLINES}1000"))[0] == 200


async def test_rows_of_all_addresses(autojump_clock: trio.abc.Clock) -> None:
    more = ("limits.total_rows_per_second=100", "limits.total_row_burst=1000")
    async with open_workers(*more) as (stack, _):
        await trio.sleep(130)
        took_s = []
        for worker in (1, 2):
            began = trio.current_time()
            assert (await ask(stack, worker, f"{KLINES}1500"))[0] == 200
            took_s.append(trio.current_time() - began)
            await trio.sleep(SAID_S)
        assert took_s[0] < 1
        assert 4 < took_s[1] < 6


async def test_requests_of_an_address(autojump_clock: trio.abc.Clock) -> None:
    """Each beyond what it may send waits up to a second."""
    async with open_workers("limits.http_requests_per_second=1") as (stack, _):
        await trio.sleep(1)
        began = trio.current_time()
        for _ in range(5):
            await ask(stack, 1, "/health")
        assert trio.current_time() - began < 0.5
        await trio.sleep(SAID_S)
        began = trio.current_time()
        for _ in range(2):
            await ask(stack, 2, "/health")
        assert trio.current_time() - began > 0.5


async def test_what_an_exchange_is_asked_for_strangers(autojump_clock: trio.abc.Clock) -> None:
    """A twentieth of 2400 a minute for one address; one funding counts as 3."""
    async with open_workers() as (stack, _):
        await trio.sleep(30)
        answered = 0
        for number in range(50):
            path = f"/binance_usdm/fapi/v1/fundingRate?symbol=BTCUSDT&startTime={number}"
            code, _text = await ask(stack, 1 + number % 2, path)
            answered += code == 200
            await trio.sleep(SAID_S)
        assert 20 <= answered <= 35  # 20 and two a second go on


async def test_clients_of_an_address(autojump_clock: trio.abc.Clock) -> None:
    async with open_workers("websocket.max_connections_per_ip=2") as (stack, _):
        async with client_of(stack, 1), client_of(stack, 2):
            for worker in (1, 2):
                assert (await ask(stack, worker, "/api/v1/symbols"))[0] == 503
        assert (await ask(stack, 1, "/api/v1/symbols"))[0] == 200


def _split(settings: Settings) -> list[int]:
    limits = settings.limits
    reports = settings.settlement.max_requests
    return [limits.waiting_bytes, limits.waiting_per_address, reports]


@pytest.mark.parametrize("workers", [2, 4, 16])
def test_what_there_may_be_at_a_time_is_shared_out(workers: int) -> None:
    settings = settings_for_tests(f"server.workers={workers}")
    shares = _split(share_of(settings))
    assert [workers * share for share in shares] == _split(settings)


def test_each_worker_has_some_of_everything() -> None:
    more = ("limits.waiting_per_address=2", "settlement.max_requests=1")
    settings = share_of(settings_for_tests("server.workers=8", *more))
    assert _split(settings) == [8 * 2**20, 1, 1]
