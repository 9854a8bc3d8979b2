"""Symbols on demand over the whole service: asked for, fed, backfilled, dropped; on virtual time
against the simulated exchanges."""

import json
from functools import partial
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from support.stack import PushClient, Stack, open_stack, push_client, settings_for_tests
from test_app import http
from test_dialect_binance import socket
from test_feeds import of_symbol, with_change

from trio_feed.core.on_demand import WINDOW_S
from trio_feed.errors import SettingsError
from trio_feed.model import Interval
from trio_feed.model.demand import Granted, Refused, Wish
from trio_feed.settings import Settings
from trio_feed.validate import check

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
VENUES = ["binance_usdm", "binance", "okx"]
MINUTE = 60
USDM = "binance_usdm"


def on_demand(*more: str, venue: str = USDM) -> Settings:
    return settings_for_tests(".symbols='on_demand'", ".audit_after_s=0", *more, venue=venue)


def check_whole(stack: Stack, symbol: str, rows: list[dict[str, Any]]) -> None:
    """Every minute once, in order, and equal to the exchange's."""
    times = [row["time"] for row in rows]
    assert times == list(range(times[0], times[0] + MINUTE * len(times), MINUTE))
    for row in rows:
        k = stack.market.candle(symbol, Interval.M1, row["time"] * 1000)
        values = [row[key] for key in ("open", "high", "low", "close", "volume")]
        assert values == [float(v) for v in (k.open, k.high, k.low, k.close, k.volume)], row


def closed(client: PushClient, symbol: str) -> list[dict[str, Any]]:
    return [m["data"] for m in of_symbol(client, symbol) if m["data"]["is_final"]]


async def reply(client: PushClient, **request: Any) -> dict[str, Any]:
    number = len(client.messages)
    await client.ask(**request, id=number)
    return await client.wait_for(
        lambda m: (
            m.get("id") == number and (m["type"], request["type"]) != ("history_data", "subscribe")
        )
    )


async def subscribe(client: PushClient, symbol: str, **more: Any) -> dict[str, Any]:
    """The confirmation, or the error."""
    return await reply(client, type="subscribe", symbol=symbol, interval="1m", **more)


async def history(client: PushClient, symbol: str) -> list[dict[str, Any]]:
    answer = await reply(client, type="history", symbol=symbol, interval="1m", limit=500)
    assert answer["type"] == "history_data", answer
    return list(answer["data"]["data"])


async def get(stack: Stack, target: str) -> tuple[int, Any, str]:
    async with http(stack) as client:
        status, head, body = await client.ask(target)
        return status, json.loads(body), head.decode().lower()


def fed(stack: Stack) -> set[str]:
    (feed,) = stack.ready.feeds
    return set(feed.settings.symbols)


def carriers(stack: Stack) -> list[int]:
    """Streams of each connection that there is."""
    return [len(state.plan.streams) for state in stack.ready.feeds[0].connections]


def states(stack: Stack) -> list[object]:
    """Of each stream."""
    return [each["state"] for each in stack.ready.feeds[0].status()["streams"].values()]


@pytest.mark.parametrize("venue", VENUES)
async def test_a_symbol_that_a_client_asks_for_is_fed_from_its_history_on(
    venue: str, autojump_clock: trio.abc.Clock
) -> None:
    with trio.fail_after(10_000):
        async with (
            open_stack(on_demand(venue=venue), symbols=SYMBOLS) as stack,
            push_client(stack) as client,
        ):
            await trio.sleep(30)
            assert stack.ready.feeds[0].not_ready(30) == ""
            assert carriers(stack) == []
            told = (await subscribe(client, "ETHUSDT"))["data"]
            assert (told["upstream"], "asked for" in told["problem"]) == ("waiting", True)
            status = await client.of_type("stream_status")
            assert status["data"]["status"] == "live"
            await trio.sleep(5 * MINUTE)
            rows = closed(client, "ETHUSDT")
            assert len(rows) >= 25
            check_whole(stack, "ETHUSDT", rows)
            check_whole(stack, "ETHUSDT", await history(client, "ETHUSDT"))
            assert fed(stack) == {"ETHUSDT"}
            assert stack.ready.feeds[0].not_ready(30) == ""


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/klines?symbol=ETHUSDT&interval=1m&limit=500",
        "/binance_usdm/fapi/v1/klines?symbol=ETHUSDT&interval=1m&limit=500",
        "/udf/history?symbol=binance_usdm:ETHUSDT&resolution=1&from=0&to=1760003600&countback=500",
    ],
)
async def test_the_first_question_for_candles_has_all_of_them(
    target: str, autojump_clock: trio.abc.Clock
) -> None:
    """More than the first page of them."""
    async with open_stack(on_demand(".history_bars=300"), symbols=SYMBOLS) as stack:
        status, answer, head = await get(stack, target)  # before the list is known
        assert status == 200, answer
        if "fapi" in target:
            found = [row[0] // 1000 for row in answer]
            assert "x-mbx-used-weight-1m: 5" in head
        else:
            found = answer["t"] if "udf" in target else [row["time"] for row in answer["data"]]
        assert found == list(range(found[0], found[-1] + MINUTE, MINUTE))
        assert len(found) >= 300
        assert (await get(stack, target))[0] == 200


async def test_every_dialect_lists_what_may_be_asked_for(autojump_clock: trio.abc.Clock) -> None:
    async with open_stack(on_demand(".channels=['kline','ticker']"), symbols=SYMBOLS) as stack:
        await trio.sleep(5)
        _, info, _ = await get(stack, "/binance_usdm/fapi/v1/exchangeInfo")
        assert {each["symbol"] for each in info["symbols"]} == set(SYMBOLS)
        _, found, _ = await get(stack, "/udf/search?query=SOL&type=&exchange=&limit=30")
        assert [each["symbol"] for each in found] == ["SOLUSDT"]
        assert (await get(stack, "/binance_usdm/fapi/v1/ticker/24hr"))[1] == []
        assert fed(stack) == set()  # to look is not to want
        status, ticker, _ = await get(stack, "/binance_usdm/fapi/v1/ticker/24hr?symbol=XRPUSDT")
        assert (status, ticker["symbol"]) == (200, "XRPUSDT")
        _, symbol, _ = await get(stack, "/udf/symbols?symbol=binance_usdm:SOLUSDT")
        assert symbol["supported_resolutions"] == ["1"]
        assert fed(stack) == {"XRPUSDT", "SOLUSDT"}


async def test_streams_of_a_dialect_start_together(autojump_clock: trio.abc.Clock) -> None:
    """All of one request at once, on one connection."""
    settings = on_demand(".channels=['kline','trade']")
    async with open_stack(settings, symbols=SYMBOLS, trades_per_minute=60) as stack:
        async with socket(stack, "/binance_usdm/stream?streams=btcusdt@aggTrade") as client:
            assert (await client.event("aggTrade"))["data"]["s"] == "BTCUSDT"
            names = ["ethusdt@aggTrade", "solusdt@aggTrade", "xrpusdt@kline_1m"]
            await client.ask("SUBSCRIBE", *names)
            assert (await client.answer())["result"] is None
            seen = set()
            while len(seen) < 4:
                seen.add((await client.next())["stream"])
            await trio.sleep(30)
            assert fed(stack) == set(SYMBOLS)
            assert carriers(stack) == [8]
            await client.ask("SUBSCRIBE", "nothing@aggTrade")
            assert "'nothing' is not listed" in (await client.answer())["error"]["msg"]


async def test_two_at_once_start_it_once(autojump_clock: trio.abc.Clock) -> None:
    async with open_stack(on_demand(), symbols=SYMBOLS) as stack:
        await trio.sleep(5)
        requests = stack.exchange.requests
        told: list[dict[str, Any]] = []

        async def one(symbol: str) -> None:
            async with push_client(stack) as client:
                told.append(await subscribe(client, symbol))
                await client.wait_for(lambda m: m["type"] == "kline_data")
                await trio.sleep(90)
                check_whole(stack, "ETHUSDT", closed(client, symbol))

        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(one, "ETHUSDT" if number % 2 else "ethusdt")
        assert [m["type"] for m in told] == ["subscription_confirmed"] * 50
        assert [line["symbol"] for line in logs if line["event"] == "symbol.demanded"] == [
            "ETHUSDT"
        ]
        assert stack.exchange.requests - requests == 1
        assert carriers(stack) == [1]


async def test_who_leaves_during_the_start_ends_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with open_stack(on_demand(), symbols=SYMBOLS) as stack:
        for _ in range(3):
            async with push_client(stack) as gone:
                await gone.ask(type="subscribe", symbol="ETHUSDT", interval="1m")
        async with push_client(stack) as client:
            assert (await subscribe(client, "ETHUSDT"))["type"] == "subscription_confirmed"
            await trio.sleep(3 * MINUTE)
            check_whole(stack, "ETHUSDT", closed(client, "ETHUSDT"))


async def test_what_nobody_wants_is_dropped_and_comes_back_without_a_hole(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = on_demand(".linger_s=120", ".history_bars=5")
    with trio.fail_after(20_000):
        async with open_stack(settings, symbols=SYMBOLS) as stack:
            async with push_client(stack) as client:
                await subscribe(client, "ETHUSDT")
                await trio.sleep(20 * MINUTE)
                assert fed(stack) == {"ETHUSDT"}
                first = closed(client, "ETHUSDT")
            with capture_logs() as logs:
                await trio.sleep(100)
                assert fed(stack) == {"ETHUSDT"}
                await trio.sleep(60)
            assert [x["symbol"] for x in logs if x["event"] == "symbol.dropped"] == ["ETHUSDT"]
            assert (fed(stack), carriers(stack)) == (set(), [])
            await trio.sleep(30 * MINUTE)
            async with push_client(stack) as client:
                assert await history(client, "ETHUSDT")  # all of it, the gap too
                assert fed(stack) == {"ETHUSDT"}
                await subscribe(client, "ETHUSDT")
                await trio.sleep(3 * MINUTE)
                rows = await history(client, "ETHUSDT")
                assert rows[0]["time"] == first[0]["time"]
                assert len(rows) >= 55
                check_whole(stack, "ETHUSDT", rows)
                numbers = [m["offset"] for m in of_symbol(client, "ETHUSDT")]
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_questions_alone_keep_it(autojump_clock: trio.abc.Clock) -> None:
    target = "/binance_usdm/fapi/v1/klines?symbol=ETHUSDT&interval=1m&limit=5"
    async with open_stack(on_demand(".linger_s=60"), symbols=SYMBOLS) as stack:
        with capture_logs() as logs:
            for _ in range(6):
                assert (await get(stack, target))[0] == 200
                await trio.sleep(50)
        assert not [line for line in logs if line["event"] == "symbol.dropped"]


async def test_wanted_again_while_it_is_being_dropped(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dropped already and its topics are there still."""
    with trio.fail_after(5_000):
        async with (
            open_stack(on_demand(".linger_s=60"), symbols=SYMBOLS) as stack,
            push_client(stack) as client,
        ):
            await trio.sleep(5)
            stored_ends = stack.ready.store.stored_ends

            async def slowly(*words: Any) -> Any:
                await trio.sleep(1)
                return await stored_ends(*words)

            monkeypatch.setattr(stack.ready.store, "stored_ends", slowly)
            assert isinstance(await stack.ready.demands.ask(Wish(USDM, "SOLUSDT")), Granted)
            with capture_logs() as logs:
                for _ in range(2_000):
                    if any(line["event"] == "symbol.dropped" for line in logs):
                        break
                    await trio.sleep(0.1)
            assert fed(stack) == {"SOLUSDT"}
            assert (await subscribe(client, "SOLUSDT"))["type"] == "subscription_confirmed"
            await trio.sleep(3 * MINUTE)
            assert len(closed(client, "SOLUSDT")) >= 2
            check_whole(stack, "SOLUSDT", closed(client, "SOLUSDT"))


ROOM = (".max_symbols=2", ".max_symbols_per_client=2", ".channels=['kline','trade']")


async def test_no_room_is_said_in_everybodys_words(autojump_clock: trio.abc.Clock) -> None:
    async with open_stack(on_demand(*ROOM), symbols=SYMBOLS) as stack, push_client(stack) as client:
        await subscribe(client, "BTCUSDT")
        await subscribe(client, "ETHUSDT")
        await trio.sleep(2 * WINDOW_S)
        told = await subscribe(client, "SOLUSDT")
        assert (told["type"], told["code"]) == ("error", 1002)
        assert "demand is 2" in told["message"]
        status, answer, head = await get(stack, "/api/v1/klines?symbol=SOLUSDT&interval=1m")
        assert (status, answer["code"], "retry-after: 30" in head) == (429, 1005, True)
        klines = "/binance_usdm/fapi/v1/klines?interval=1m&symbol="
        status, answer, head = await get(stack, f"{klines}SOLUSDT")
        assert (status, answer["code"], "retry-after: 30" in head) == (429, -1003, True)
        status, answer, _ = await get(stack, "/udf/symbols?symbol=SOLUSDT")
        assert (status, answer["s"]) == (429, "error")
        async with socket(stack, "/binance_usdm/ws") as other:
            await other.ask("SUBSCRIBE", "solusdt@aggTrade")
            error = (await other.answer())["error"]
            assert (error["code"], "demand is 2" in error["msg"]) == (2, True)
        assert fed(stack) == {"BTCUSDT", "ETHUSDT"}
        # What is fed is served all the while.
        assert (await get(stack, f"{klines}ETHUSDT"))[0] == 200


async def test_what_no_list_has_is_refused_and_costs_nothing(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with open_stack(on_demand(), symbols=SYMBOLS) as stack, push_client(stack) as client:
        await trio.sleep(5)
        requests = stack.exchange.requests
        told = await subscribe(client, "NOPEUSDT")
        assert (told["code"], told["message"]) == (
            1002, "symbol: 'NOPEUSDT' is not listed by any venue"
        )  # fmt: skip
        told = await subscribe(client, "NOPEUSDT", exchange=USDM)
        assert "not listed by binance_usdm" in told["message"]
        status, answer, _ = await get(stack, "/api/v1/klines?symbol=NOPE&interval=1m")
        assert (status, answer["code"]) == (400, 1003)
        status, answer, _ = await get(stack, "/binance_usdm/fapi/v1/klines?symbol=NOPE&interval=1m")
        assert (status, answer["code"]) == (400, -1121)
        status, answer, _ = await get(stack, "/udf/symbols?symbol=NOPE")
        assert (status, answer["errmsg"]) == (404, "unknown_symbol")
        assert stack.exchange.requests == requests


async def test_a_flood_pushes_nobody_out_and_spends_no_budget(
    autojump_clock: trio.abc.Clock,
) -> None:
    """One asker after every symbol there is, for half an hour, coming and going."""
    symbols = tuple(f"C{n}USDT" for n in range(60))
    settings = on_demand(
        ".max_symbols=10",
        ".linger_s=60",
        ".connection.streams_per_connection=4",
        ".history_bars=50",
    )
    with trio.fail_after(20_000):
        async with open_stack(settings, symbols=symbols) as stack, push_client(stack) as good:
            assert (await subscribe(good, "C59USDT"))["type"] == "subscription_confirmed"
            await trio.sleep(30)
            demands, answers = stack.ready.demands, []
            requests, dials = stack.exchange.requests, stack.exchange.dials
            for turn in range(360):
                for number in range(turn % 29, 58, 29):
                    answers.append(await demands.ask(Wish(USDM, f"C{number}USDT", asker="bad")))
                assert len(fed(stack)) <= 1 + 6
                await trio.sleep(5)
            refused = [a.reason for a in answers if isinstance(a, Refused)]
            assert set(refused) == {"no_room", "too_many"}
            starts = 5 + 5 * 1800 / WINDOW_S
            # Of each a page of history, what closed until its stream was up, and doubts in a quiet
            # market; a connection as it comes, another as it goes.
            assert stack.exchange.requests - requests <= 5 * starts
            assert stack.exchange.dials - dials <= 3 * starts
            check_whole(stack, "C59USDT", closed(good, "C59USDT"))
            assert isinstance(await demands.ask(Wish(USDM, "C58USDT", asker="other")), Granted)


async def test_a_request_for_thousands_is_refused_and_harms_nobody(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with open_stack(on_demand(".channels=['kline','trade']"), symbols=SYMBOLS) as stack:
        await trio.sleep(5)
        async with socket(stack, "/binance_usdm/ws") as client:
            names = [f"n{number}usdt@trade" for number in range(3_000)]
            await client.ask("SUBSCRIBE", *names)
            assert "is not listed" in (await client.answer())["error"]["msg"]
            await client.ask("SUBSCRIBE", "btcusdt@aggTrade")
            assert (await client.answer())["result"] is None


async def test_named_symbols_and_others_share_no_connection(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests(".symbols=['BTCUSDT','on_demand']", ".audit_after_s=0")
    async with open_stack(settings, symbols=SYMBOLS) as stack, push_client(stack) as client:
        await trio.sleep(30)
        (named,) = stack.ready.feeds[0].connections
        for symbol in SYMBOLS:
            assert (await subscribe(client, symbol))["type"] == "subscription_confirmed"
            await trio.sleep(45)
        assert sorted(carriers(stack)) == [1, 3]
        assert stack.ready.feeds[0].connections[0] is named
        await trio.sleep(5 * MINUTE)
        for symbol in SYMBOLS:
            check_whole(stack, symbol, closed(client, symbol))
        assert states(stack) == ["live"] * 4
        _, page, _ = await get(stack, "/api/v1/status")
        told = page["venues"][USDM]["on_demand"]
        assert (told["max_symbols"], set(told["symbols"])) == (50, set(SYMBOLS[1:]))
        assert told["symbols"]["ETHUSDT"]["subscriptions"] == 1


async def test_it_comes_back_onto_the_connection_that_is_just_being_replaced_without_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with (
        open_stack(on_demand(".linger_s=60"), symbols=SYMBOLS) as stack,
        push_client(stack) as client,
    ):
        assert isinstance(await stack.ready.demands.ask(Wish(USDM, "SOLUSDT")), Granted)
        await subscribe(client, "ETHUSDT")
        for _ in range(2_000):
            if fed(stack) == {"ETHUSDT"}:
                break
            await trio.sleep(0.1)
        assert (await subscribe(client, "SOLUSDT"))["type"] == "subscription_confirmed"
        await trio.sleep(50)
        assert (carriers(stack), states(stack)) == ([2], ["live"] * 2)


async def test_the_exchange_cuts_its_connections_meanwhile(autojump_clock: trio.abc.Clock) -> None:
    settings = on_demand(".connection.streams_per_connection=2")
    with trio.fail_after(20_000):
        async with open_stack(settings, symbols=SYMBOLS) as stack, push_client(stack) as client:

            async def cut() -> None:
                while True:
                    await trio.sleep(3)
                    for connection in [*stack.exchange.connections]:
                        connection.abort()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cut)
                for symbol in SYMBOLS:
                    assert (await subscribe(client, symbol))["type"] == "subscription_confirmed"
                    await trio.sleep(20)
                nursery.cancel_scope.cancel()
            await trio.sleep(3 * MINUTE)
            assert sorted(carriers(stack)) == [2, 2]
            for symbol in SYMBOLS:
                rows = closed(client, symbol)
                assert len(rows) >= 22
                check_whole(stack, symbol, rows)


async def test_the_exchange_is_out_of_reach_and_the_client_hears_why(
    autojump_clock: trio.abc.Clock,
) -> None:
    with trio.fail_after(10_000):
        async with open_stack(on_demand(), symbols=SYMBOLS) as stack, push_client(stack) as client:
            await trio.sleep(300)  # no connection for questions is left
            stack.network.down.add(("exchange", 80))
            for connection in [*stack.exchange.connections]:
                connection.abort()
            told = (await subscribe(client, "ETHUSDT"))["data"]
            assert told["upstream"] == "waiting"
            began = trio.current_time()
            answer = await reply(client, type="history", symbol="ETHUSDT", interval="1m")
            assert (answer["type"], answer["code"]) == ("error", 1002), answer
            assert "on its way; try again" in answer["message"]
            assert trio.current_time() - began <= 11
            await trio.sleep(60)
            assert "does not deliver" in stack.ready.feeds[0].not_ready(30)
            stack.network.down.clear()
            await trio.sleep(3 * MINUTE)
            check_whole(stack, "ETHUSDT", closed(client, "ETHUSDT"))


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/binance_usdm/fapi/v1/klines?symbol=SOLUSDT&interval=1m", 429, -1003),
        ("/binance_usdm/fapi/v1/ticker/24hr?symbol=SOLUSDT", None, None),
        ("/api/v1/klines?symbol=SOLUSDT&interval=1m", 429, 1005),
    ],
)
async def test_an_answer_comes_before_http_clients_give_up(
    target: str, status: int | None, code: int | None, listed: bool, autojump_clock: Any
) -> None:
    """httpx does after 5 s, ccxt and python-binance after 10 s."""
    async with open_stack(on_demand(".channels=['kline','ticker']"), symbols=SYMBOLS) as stack:
        if listed:
            await trio.sleep(300)
        stack.network.down.add(("exchange", 80))
        for connection in [*stack.exchange.connections]:
            connection.abort()
        began = trio.current_time()
        found, answer, head = await get(stack, target)
        assert trio.current_time() - began <= 4.5
        assert status in (None, found), answer
        assert code in (None, answer["code"])
        assert status is None or "retry-after: 5" in head


async def test_what_is_stored_is_served_though_the_exchange_is_out_of_reach(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Of a symbol on demand that comes back, and of one that is named."""
    settings = settings_for_tests(".symbols=['BTCUSDT','on_demand']", ".linger_s=60")
    target = "/binance_usdm/fapi/v1/klines?interval=1m&symbol="
    with trio.fail_after(10_000):
        async with open_stack(settings, symbols=SYMBOLS) as stack:
            before = (await get(stack, f"{target}ETHUSDT"))[1]
            await trio.sleep(400)
            assert fed(stack) == {"BTCUSDT"}
            stack.network.down.add(("exchange", 80))
            for connection in [*stack.exchange.connections]:
                connection.abort()
            began = trio.current_time()
            assert len((await get(stack, f"{target}BTCUSDT"))[1]) > 20
            assert trio.current_time() == began
            status, rows, _ = await get(stack, f"{target}ETHUSDT")
            assert (status, rows[: len(before) - 1]) == (200, before[:-1])
            stack.network.down.clear()
            await trio.sleep(60)
            rows = (await get(stack, f"{target}ETHUSDT"))[1]
            assert [row[0] for row in rows] == [*range(before[0][0], rows[-1][0] + 1, 60_000)]
            assert len(rows) >= len(before) + 6


async def test_settings_change_while_it_runs(autojump_clock: trio.abc.Clock) -> None:
    settings = settings_for_tests(".symbols=['BTCUSDT','on_demand']", ".audit_after_s=0")
    with trio.fail_after(20_000):
        async with open_stack(settings, symbols=SYMBOLS) as stack, push_client(stack) as client:
            apply = stack.ready.venues.apply
            await trio.sleep(30)
            await subscribe(client, "BTCUSDT")
            await subscribe(client, "ETHUSDT")
            await apply(with_change(settings, symbols=("on_demand",), linger_s=60.0))
            await trio.sleep(5 * MINUTE)  # it was named, is wanted, and goes on
            assert fed(stack) == {"BTCUSDT", "ETHUSDT"}
            await apply(with_change(settings, symbols=("ETHUSDT",)))
            assert fed(stack) == {"ETHUSDT"}
            await client.wait_for(
                lambda m: (
                    m["type"] == "stream_status"
                    and (m["data"]["symbol"], m["data"]["status"]) == ("BTCUSDT", "stale")
                )
            )
            assert (await subscribe(client, "SOLUSDT"))["code"] == 1002
            await client.ask(type="unsubscribe", symbol="BTCUSDT", interval="1m")  # else: come back
            await apply(settings)
            assert (await subscribe(client, "SOLUSDT"))["type"] == "subscription_confirmed"
            await trio.sleep(3 * MINUTE)
            for symbol in ("ETHUSDT", "SOLUSDT"):
                check_whole(stack, symbol, closed(client, symbol))
            assert (fed(stack), sum(carriers(stack))) == ({"BTCUSDT", "ETHUSDT", "SOLUSDT"}, 3)


async def test_a_bug_in_the_venue_loses_no_symbol(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = on_demand("service.same_bug_max=9")
    with trio.fail_after(20_000):
        async with open_stack(settings, symbols=SYMBOLS) as stack, push_client(stack) as client:
            await subscribe(client, "ETHUSDT")
            await trio.sleep(2 * MINUTE)
            (feed,) = stack.ready.feeds
            monkeypatch.setattr(feed.driver, "take", partial(_crash))
            while stack.ready.feeds[0] is feed:
                assert isinstance(
                    await stack.ready.demands.ask(Wish(USDM, "SOLUSDT")), Granted | Refused
                )
                await trio.sleep(0.3)
            await subscribe(client, "SOLUSDT")
            await trio.sleep(3 * MINUTE)
            assert fed(stack) == {"ETHUSDT", "SOLUSDT"}
            for symbol in ("ETHUSDT", "SOLUSDT"):
                check_whole(stack, symbol, closed(client, symbol))


def _crash(*_: object) -> None:
    raise AssertionError("a bug")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((".symbols='on_demand'", ".max_symbols=5", ".max_symbols_per_client=6"), "max_symbols"),
        ((".symbols='on_demand'", ".fallback='simulated'"), "not with symbols on demand"),
        ((".symbols=['on_demand','on_demand']",), "twice"),
        ((".symbols='ondemand'",), "not a list"),
        ((".linger_s=5",), "between 60"),
    ],
)
def test_settings_that_cannot_be(words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        check(settings_for_tests(*words))


def test_a_venue_without_a_list_cannot_look_symbols_up() -> None:
    words = (".symbols='on_demand'", ".intervals=[]", ".trade_intervals=['1s']")
    with pytest.raises(SettingsError, match=r'has no list to look symbols up in; write \["\*"\]'):
        check(settings_for_tests(*words, f".solana.program_id='{'1' * 32}'", venue="spinpet"))


BAD_REST = {
    USDM: [
        "klines?symbol=ETHUSDT&interval=7m", "klines?symbol=ETHUSDT&interval=1m&limit=0",
        "klines?symbol=ethusdt&interval=1m", "klines?symbol=ETHUSDT&interval=1m&startTime=x",
        "continuousKlines?pair=ETHUSDT&contractType=NEXT&interval=1m",
        "continuousKlines?pair=ETHUSDT&contractType=PERPETUAL&interval=7m",
        "depth?symbol=ETHUSDT&limit=7", "trades?symbol=ETHUSDT&limit=0",
        "aggTrades?symbol=ETHUSDT&fromId=x", "ticker/price?symbol=ethusdt",
    ],
    "binance": [
        "ticker?symbol=ETHUSDT&windowSize=9x", 'ticker/price?symbols=["ETHUSDT","btcusdt"]',
        "uiKlines?symbol=ETHUSDT&interval=7m", "klines?symbol=ETHUSDT&interval=1d&timeZone=8",
    ],
    "okx": [
        "candles?instId=ETH-USDT&bar=7m", "candles?instId=eth-usdt",
        "history-candles?instId=ETH-USDT&after=x", "books?instId=ETH-USDT&sz=0",
        "trades?instId=ETH-USDT&limit=0", "history-trades?instId=ETH-USDT&type=3",
    ],
}  # fmt: skip
BAD_STREAMS = {
    USDM: [
        "ethusdt@kline_7m", "ethusdt@nonsense", "ethusdt@depth7", "ethusdt@depth@1s",
        "ethusdt@aggTrade_1", "ETHUSDT@aggTrade", "ethusdt@avgPrice", "ethusdt@continuousKline_1m",
    ],
    "binance": ["ethusdt@markPrice", "ethusdt@ticker_2h", "ethusdt_perpetual@continuousKline_1m"],
}  # fmt: skip


@pytest.mark.parametrize("venue", VENUES)
async def test_what_is_refused_anyway_starts_nothing(
    venue: str, autojump_clock: trio.abc.Clock
) -> None:
    channels = "['kline','trade','ticker','book']"
    settings = on_demand(f".channels={channels}", venue=venue)
    base = {USDM: "/binance_usdm/fapi/v1/", "binance": "/binance/api/v3/"}
    async with open_stack(settings, symbols=SYMBOLS) as stack:
        await trio.sleep(30)
        for target in BAD_REST[venue]:
            _, answer, _ = await get(stack, base.get(venue, "/okx/api/v5/market/") + target)
            assert answer["code"] not in (0, "0"), target
            assert fed(stack) == set(), target
        query = f"symbol={venue}:ETHUSDT"
        for rest in ("resolution=7", "resolution=1&from=x", "resolution=1&from=2&to=1"):
            status, _, _ = await get(stack, f"/udf/history?{query}&{rest}")
            assert status in (400, 404), rest
            assert fed(stack) == set(), rest
        if venue == "okx":
            async with socket(stack, "/okx/ws/v5/public") as client:
                for channel, name in (("candle7m", "ETH-USDT"), ("trades", "eth-usdt")):
                    arg = {"channel": channel, "instId": name}
                    await client.send(json.dumps({"op": "subscribe", "args": [arg]}))
                    assert (await client.next())["code"] == "60018"
                    assert fed(stack) == set(), arg
            return
        for name in BAD_STREAMS[venue]:
            async with socket(stack, f"/{venue}/ws/{name}") as client:
                await client.ask("SUBSCRIBE", name)
                assert "no stream of this market" in (await client.answer())["error"]["msg"], name
                assert fed(stack) == set(), name
