"""The instrument table: two-way names, the copy on disk, listing and delisting while running."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from support.memory import MemoryNetwork
from support.stack import open_stack, push_client, settings_for_tests

from trio_feed.environment import Environment
from trio_feed.errors import BadMessage, RestError
from trio_feed.ingest import instruments
from trio_feed.ingest.fed import FedInstruments
from trio_feed.ingest.troubles import Troubles
from trio_feed.instants import Mono
from trio_feed.model import Instrument, Interval, Series
from trio_feed.net import rest
from trio_feed.settings import SimulatorSettings
from trio_feed.simulator.exchanges import spinpet_market
from trio_feed.supervise import Backoff
from trio_feed.venues import AnyInstrument, Instruments, Rows
from trio_feed.venues.binance import usdm as binance_usdm

BTC = Instrument("okx", "BTCUSDT", "BTC-USDT", "spot", "BTC", "USDT")
SWAP = Instrument("okx", "BTCUSDTSWAP", "BTC-USDT-SWAP", "perpetual", "BTC", "USDT")


def test_names_are_looked_up_both_ways() -> None:
    table = Instruments([BTC, SWAP])
    assert table.of_symbol("BTCUSDT") is BTC
    assert table.of_native("BTC-USDT-SWAP") is SWAP
    assert table.of_native("BTCUSDT") is None
    assert table.find("BTC-USDT") is table.find("BTCUSDT") is BTC
    assert (len(table), list(table)) == (2, [BTC, SWAP])


def test_a_venue_without_a_list_knows_every_name() -> None:
    table = AnyInstrument("spinpet", "token")
    assert table.of_native("mint").symbol == "mint"
    assert table.find("mint") == table.of_symbol("mint")


def info(*symbols: str, **status: str) -> str:
    rows = [
        {
            "symbol": s, "pair": s, "contractType": "PERPETUAL", "baseAsset": s[:3],
            "quoteAsset": "USDT", "status": status.get(s, "TRADING"),
            "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.10"},
                        {"filterType": "LOT_SIZE", "stepSize": "0.001"}],
        }
        for s in symbols
    ]  # fmt: skip
    return json.dumps({"symbols": rows})


def test_exchange_info_becomes_a_table() -> None:
    copy = instruments.Copy(0, [info("BTCUSDT", "ETHUSDT", ETHUSDT="SETTLING")])
    table = instruments.parse(binance_usdm, copy)
    bitcoin, ether = table
    assert (bitcoin.kind, bitcoin.base, bitcoin.trading) == ("perpetual", "BTC", True)
    assert (str(bitcoin.tick_size), str(bitcoin.step_size)) == ("0.10", "0.001")
    assert not ether.trading


async def test_a_symbol_that_is_listed_or_delisted_changes_the_streams(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests(
        "exchanges.binance_usdm.symbols=['BTCUSDT','NEWUSDT']",
        "exchanges.binance_usdm.instruments_refresh_s=60",
    )
    with trio.fail_after(3600):
        async with open_stack(settings) as stack:
            (feed,) = stack.ready.feeds

            def streams() -> set[str]:
                return {s.symbol for state in feed.connections for s in state.plan.streams}

            await trio.sleep(30)
            assert streams() == {"BTCUSDT"}
            stack.market.list_symbol("NEWUSDT")
            await trio.sleep(60)
            assert streams() == {"BTCUSDT", "NEWUSDT"}
            old = feed.connections[0].id
            stack.market.delist("NEWUSDT")
            await trio.sleep(60)
            assert streams() == {"BTCUSDT"}
            assert [state.id for state in feed.connections] == [old]
            await trio.sleep(120)
            assert feed.driver.behind() == 0
            assert feed.connections[0].attempts == 1


async def test_a_subscriber_learns_that_its_symbol_is_not_listed_yet(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests(
        "exchanges.binance_usdm.symbols=['BTCUSDT','NEWUSDT']",
        "exchanges.binance_usdm.instruments_refresh_s=60",
    )
    with trio.fail_after(3600):
        async with open_stack(settings) as stack, push_client(stack) as client:

            async def upstream(number: int) -> tuple[str, str | None]:
                await client.ask(type="subscribe", symbol="NEWUSDT", interval="1m", id=number)
                answer = await client.wait_for(
                    lambda m: m["type"] == "subscription_confirmed" and m["id"] == number
                )
                return answer["data"]["upstream"], answer["data"].get("problem")

            await trio.sleep(30)
            assert await upstream(1) == ("waiting", "not in the venue's list")
            stack.market.list_symbol("NEWUSDT")
            await trio.sleep(300)
            assert await upstream(2) == ("live", None)


@pytest.mark.parametrize("others", [True, False])
async def test_subscribers_hear_of_a_symbol_that_stops_trading(
    others: bool, autojump_clock: trio.abc.Clock
) -> None:
    """They heard nothing, new ones were answered ``live``, and /ready said ``no instruments``."""
    symbols = ["BTCUSDT", "ETHUSDT"] if others else ["BTCUSDT"]
    settings = settings_for_tests(f".symbols={symbols}", ".instruments_refresh_s=60")
    with trio.fail_after(3600):
        async with (
            open_stack(settings, symbols=tuple(symbols)) as stack,
            push_client(stack) as client,
        ):
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            await trio.sleep(90)
            assert stack.ready.app.report.not_ready() == ""
            (feed,) = stack.ready.feeds
            status = feed.status()
            assert set(status) == {
                "connections", "proxies", "dials_waiting", "rest_waiting", "questions",
                "instruments", "unavailable", "series", "series_held", "series_behind",
                "stale_books", "streams",
            }  # fmt: skip
            assert (status["series"], status["series_held"], status["series_behind"]) == (
                len(symbols), 0, 0,
            )  # fmt: skip
            stack.market.delist("BTCUSDT")
            stale = await client.wait_for(lambda m: m.get("data", {}).get("status") == "stale")
            assert (stale["type"], stale["data"]["reason"]) == ("stream_status", "not trading")
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m", id=7)
            answer = await client.wait_for(
                lambda m: m["type"] == "subscription_confirmed" and m.get("id") == 7
            )
            said = answer["data"]["upstream"], answer["data"]["problem"]
            assert said == ("stale", "not trading")
            (problem,) = feed.status()["unavailable"].values()  # by now it may be off the list
            why = "" if others else f"binance_usdm: BTCUSDT: {problem}"
            assert stack.ready.app.report.not_ready() == why
            stack.market.list_symbol("BTCUSDT", stack.market.listed_of("BTCUSDT"))
            before = list(client.messages)  # of which one said that it is live, too
            await client.wait_for(
                lambda m: (
                    m["type"] == "stream_status"
                    and m["data"]["status"] in ("live", "repaired")
                    and m not in before
                )
            )
            assert stack.ready.app.report.not_ready() == ""


async def test_a_venue_without_a_list_says_that_it_waits(autojump_clock: trio.abc.Clock) -> None:
    market = spinpet_market(SimulatorSettings(venue="spinpet", seed=1))
    nobody = "1" * 43 + "2"
    settings = settings_for_tests(
        f".symbols=['{nobody}']",
        ".intervals=[]",
        ".trade_intervals=['1s']",
        f".solana.program_id={market.program_id}",
        venue="spinpet",
    )
    with trio.fail_after(3600):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await trio.sleep(30)
            await client.ask(type="subscribe", symbol=nobody, interval="1s")
            answer = (await client.of_type("subscription_confirmed"))["data"]
            assert (answer["upstream"], answer["success"]) == ("waiting", True)
            assert answer["problem"].startswith("the venue has no list")


async def test_a_dated_contract_is_served_and_what_cannot_be_is_refused_in_words(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing of the simulator, with other contract types and some odd rows."""
    parse = binance_usdm.parse_instruments

    def changed(body: bytes) -> Rows[Instrument]:
        answer = json.loads(body)
        rows = {row["symbol"]: row for row in answer["symbols"]}
        rows["BTCUSDT"]["contractType"] = "CURRENT_QUARTER"
        rows["ETHUSDT"] = {**rows["BTCUSDT"], "symbol": "ETHUSDT", "contractSize": 100}
        return parse(json.dumps({"symbols": [None, *rows.values(), {"symbol": 3}]}).encode())

    monkeypatch.setattr(binance_usdm, "parse_instruments", changed)
    settings = settings_for_tests("exchanges.binance_usdm.symbols=['BTCUSDT','ETHUSDT']")
    with capture_logs() as logs, trio.fail_after(3600):
        async with open_stack(settings) as stack:
            (feed,) = stack.ready.feeds
            await trio.sleep(600)
            streams = {s.name for state in feed.connections for s in state.plan.streams}
            assert streams == {"btcusdt@kline_1m"}
            series = Series("binance_usdm", "BTCUSDT", Interval.M1)
            stored = await stack.ready.store.history(series, limit=100)
            assert len(stored) > 10
            for kline in stored:
                assert kline.same_values(stack.market.candle("BTCUSDT", Interval.M1, kline.open_ms))
    refused = [line for line in logs if line["event"] == "symbol.unavailable"]
    assert {(line["symbol"], line["problem"].partition(":")[0]) for line in refused} == {
        ("ETHUSDT", "a COIN-M contract")
    }
    (odd,) = [line for line in logs if line["event"] == "instruments.bad"]
    assert (odd["rows"], odd["sample"]) == (2, "null")


class Source:
    """A REST client that answers with a text, or fails as often as told."""

    def __init__(self, text: str, failures: int = 0) -> None:
        self.text, self.failures, self.calls = text, failures, 0

    async def get(self, path: str, params: Any, *, weight: int = 1) -> rest.Answer:
        await trio.lowlevel.checkpoint()
        self.calls += 1
        if self.calls <= self.failures:
            raise RestError("out of reach")
        return rest.Answer(self.text.encode(), None, Mono(0.0), Mono(0.0))


async def load(source: Source, cache: Path | None) -> Instruments:
    async def nowhere(*_: Any) -> Any:
        raise OSError

    environment = Environment(nowhere, nowhere, lambda: 5.0, random.Random(1))
    troubles = Troubles(structlog.get_logger(), "instruments.failed")
    table, _ = await instruments.load(
        binance_usdm,
        source,  # type: ignore[arg-type]
        environment,
        cache,
        Backoff(1, 1),
        lambda answer: None,
        troubles,
    )
    return table


async def test_it_is_asked_for_until_it_comes(autojump_clock: trio.abc.Clock) -> None:
    source = Source(info("BTCUSDT"), failures=3)
    assert len(await load(source, None)) == 1
    assert source.calls == 4


async def test_a_first_start_has_no_line_about_its_missing_copy(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """It was one line per try, eight in a minute; one that cannot be read is said once."""
    cache = tmp_path / "list.json"
    with capture_logs() as events:
        await load(Source(info("BTCUSDT"), failures=5), cache)
    told = [e["log_level"] for e in events if e["event"] == "instruments.no_copy"]
    assert set(told) == {"debug"}
    cache.write_text("{")
    with capture_logs() as events:
        await load(Source(info("BTCUSDT"), failures=5), cache)
    assert [e["log_level"] for e in events if e["event"] == "instruments.no_copy"] == ["info"]


async def test_an_empty_list_is_no_list(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """It ended all streams until the next refresh, and took the place of the copy on the disk."""
    cache = tmp_path / "list.json"
    assert len(await load(Source(info("BTCUSDT", "ETHUSDT")), cache)) == 2
    kept = cache.read_bytes()
    empty = Source(info())
    assert len(await load(empty, cache)) == 2  # the copy
    assert (empty.calls, cache.read_bytes()) == (1, kept)
    with pytest.raises(BadMessage, match="names no instrument"):
        instruments.parse(binance_usdm, instruments.Copy(5.0, [info()]))


def test_while_a_row_cannot_be_read_what_is_absent_proves_nothing() -> None:
    """One odd row of a refresh ended the streams of its symbol."""
    before = instruments.parse(binance_usdm, instruments.Copy(5.0, [info("BTCUSDT", "ETHUSDT")]))
    rows = json.loads(info("BTCUSDT", "ETHUSDT"))
    rows["symbols"][0]["filters"] = None
    copy = instruments.Copy(6.0, [json.dumps(rows)])
    with capture_logs() as lines:
        table = instruments.parse(binance_usdm, copy, before)
    assert table.of_symbol("BTCUSDT") == before.of_symbol("BTCUSDT")
    assert [line["event"] for line in lines] == ["instruments.bad"]
    # Without an odd row it is gone.
    left = instruments.parse(binance_usdm, instruments.Copy(7.0, [info("ETHUSDT")]), before)
    assert left.of_symbol("BTCUSDT") is None


def test_each_of_several_answers_may_have_gone_wrong() -> None:
    """OKX answers for spot and for swaps apart; an empty one ended the streams of its kind."""
    before = instruments.parse(
        binance_usdm, instruments.Copy(5.0, [info("BTCUSDT"), info("ETHUSDT")])
    )
    half = instruments.Copy(6.0, [info("BTCUSDT"), info()])
    with pytest.raises(BadMessage, match="1 less"):
        instruments.parse(binance_usdm, half, before)
    assert len(instruments.parse(binance_usdm, half)) == 1  # where it was never another


async def test_a_symbol_that_is_new_in_the_settings_asks_for_the_list(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Listed since the last refresh, taken by SIGHUP: it waited an hour for the next one."""
    more = settings_for_tests(".symbols=['BTCUSDT','NEWUSDT']")
    with trio.fail_after(3600):
        async with open_stack(settings_for_tests()) as stack:
            (feed,) = stack.ready.feeds
            await trio.sleep(30)
            stack.market.list_symbol("NEWUSDT")
            await stack.ready.venues.apply(more)
            await trio.sleep(5)
            streams = {s.symbol for state in feed.connections for s in state.plan.streams}
            assert streams == {"BTCUSDT", "NEWUSDT"}


async def test_an_old_copy_is_replaced_as_soon_as_the_venue_is_in_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    """Between two tries up to a minute passes, also where the streams deliver long since."""
    cache = tmp_path / "list.json"
    monkeypatch.setattr("trio_feed.feeds._cache", lambda *_: cache)
    settings = settings_for_tests(".symbols=['BTCUSDT','NEWUSDT']", ".connection.backoff_max_s=1")
    network = MemoryNetwork()
    network.down.add(("exchange", 80))
    cache.write_text(json.dumps({"fetched_ms": 1, "bodies": [info("BTCUSDT")]}))
    # The start reads the copy in a thread; virtual time would run to the only deadline there is.
    async with open_stack(settings, network=network) as stack:
        with trio.fail_after(36_000):
            (feed,) = stack.ready.feeds
            await trio.sleep(400)  # tries are a minute apart by now
            stack.market.list_symbol("NEWUSDT")
            network.down.clear()
            await feed.pool.carrying.wait_value(lambda live: live > 0)
            await trio.sleep(3)
            streams = {s.symbol for state in feed.connections for s in state.plan.streams}
            assert streams == {"BTCUSDT", "NEWUSDT"}
            while "NEWUSDT" not in cache.read_text():  # noqa: ASYNC110 - a thread writes it
                await trio.sleep(0.1)


async def test_a_poller_that_goes_on_failing_says_what_is_new(
    autojump_clock: trio.abc.Clock,
) -> None:
    with capture_logs() as logs:
        troubles = Troubles(structlog.get_logger(), "x.failed")
        for error in (RestError("a"), RestError("b"), BadMessage("c"), RestError("d")):
            troubles.say(error, retry_s=1)
        await trio.sleep(600)
        troubles.say(RestError("e"))
        troubles.over()
        troubles.say(RestError("f"))
    said = [line["problem"] for line in logs if line["log_level"] == "warning"]
    assert said == ["a", "c", "e", "f"]
    assert [line["problem"] for line in logs if line["log_level"] == "debug"] == ["b", "d"]


class Unwalked(set[str]):
    """Symbols that may be asked for, but not gone through."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("a name is one look-up")


def test_a_fed_instrument_is_looked_up_by_each_of_its_names() -> None:
    """A stranger's request may have a thousand names, and a venue hundreds of symbols."""
    btc, eth = (Instrument("okx", f"{base}USDT", f"{base}-USDT", "spot") for base in ("BTC", "ETH"))
    fed = FedInstruments(Instruments([btc, eth]), Unwalked({"BTCUSDT"}))
    assert fed.of_native("BTC-USDT") == fed.of_lower("btc-usdt") == fed.of_symbol("BTCUSDT") == btc
    assert fed.of_native("ETH-USDT") is fed.of_lower("eth-usdt") is fed.of_symbol("ETHUSDT") is None
    assert [*FedInstruments(Instruments([btc, eth]), ["ETHUSDT", "NONE"])] == [eth]


async def test_the_copy_makes_its_own_folder(tmp_path: Path) -> None:
    """With a database in the place of a file nobody else makes it."""
    path = tmp_path / "data" / "x.instruments.json"
    await instruments.write(path, instruments.Copy(1.0, ["{}"]))
    assert json.loads(path.read_text()) == {"fetched_ms": 1.0, "bodies": ["{}"]}
