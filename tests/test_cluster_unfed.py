"""A node that serves, and whose settings are not those of the nodes that feed."""

import signal

import pytest
import structlog
import trio
from support.cluster import SYMBOLS, VENUE, open_cluster, settings_of
from support.hangup import until_logged
from test_cluster import subscribed, until_ready
from test_cluster_operations import of

from trio_feed.cluster.agreement import GRACE_S
from trio_feed.cluster.registry import Said
from trio_feed.cluster.unfed import Unfed, missing
from trio_feed.commands import status as status_command
from trio_feed.model import Instrument
from trio_feed.settings import ExchangeSettings, Settings
from trio_feed.venues import Instruments

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
FEWER = f".symbols={list(SYMBOLS[:2])}"
PUSH = "['push']"


async def test_what_only_a_node_that_serves_names_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lacking = list(SYMBOLS[2:])
    async with open_cluster() as cluster:
        with structlog.testing.capture_logs() as lines:
            for name in ("in1", "in2"):
                await cluster.start(name, "['ingest']", FEWER)
                await until_ready(cluster, name)
            await cluster.start("push1", PUSH)
            await until_ready(cluster, "push1")
            await trio.sleep(GRACE_S / 2)
            assert [line for line in lines if line["event"] == "node.unfed"] == []
            await trio.sleep(2 * GRACE_S)
            (said,) = [line for line in lines if line["event"] == "node.unfed"]
            assert (said["venue"], said["symbols"], said["count"]) == (VENUE, lacking, 2)
            assert (await cluster.get("push1", "/ready"))[0] == 200
            _, page = await cluster.get("push1", "/api/v1/status")
            assert page["unfed"] == {VENUE: lacking}
            line = f"push1 names what nobody feeds of {VENUE}: {' '.join(lacking)}"
            assert line in status_command.text(page, "http://x")
            assert of(cluster, "push1", "symbols_unfed") == 2
            assert of(cluster, "in1", "symbols_unfed") == 0
            async with cluster.client("push1") as client:
                await subscribed(client)  # to what is fed
            # One more is fed now, as after a SIGHUP that went round.
            for name in ("in1", "in2"):
                more = settings_of(name, "['ingest']", f".symbols={list(SYMBOLS[:3])}")
                await cluster.nodes[name].ready.venues.apply(more)
            await trio.sleep(15)
            _, page = await cluster.get("push1", "/api/v1/status")
            assert page["unfed"] == {VENUE: lacking[1:]}
            for name in ("in1", "in2"):
                await cluster.nodes[name].ready.venues.apply(settings_of(name, "['ingest']"))
            await trio.sleep(15)
            _, page = await cluster.get("push1", "/api/v1/status")
            assert page["unfed"] == {}
            assert of(cluster, "push1", "symbols_unfed") == 0
        told = [line for line in lines if line["event"] in ("node.unfed", "node.fed_again")]
        assert [(line["event"], line.get("count")) for line in told] == [
            ("node.unfed", 2), ("node.unfed", 1), ("node.fed_again", None),
        ]  # fmt: skip


async def test_what_a_node_that_serves_lacks_is_served_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster() as cluster:
        with structlog.testing.capture_logs() as lines:
            await cluster.start("in1", "['ingest']")
            await cluster.start("push1", PUSH, FEWER)
            await until_ready(cluster, "push1")
            await trio.sleep(2 * GRACE_S)
            async with cluster.client("push1") as client:
                await subscribed(client, SYMBOLS[3])
                await trio.sleep(90)
                assert client.candles(final=True)
        assert [line for line in lines if line["event"] == "node.unfed"] == []
        _, page = await cluster.get("push1", "/api/v1/status")
        assert page["unfed"] == {}


async def test_new_settings_of_a_node_that_serves_feed_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It may have no way to the exchange, and no proxy: its part is to serve."""
    new = settings_of("push1", PUSH, f".symbols={[*SYMBOLS, 'LTCUSDT']}")
    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await cluster.start("push1", PUSH, reload=lambda: new)
        await until_ready(cluster, "push1")
        with structlog.testing.capture_logs() as lines:
            signal.raise_signal(signal.SIGHUP)
            await until_logged(autojump_clock, lines, "settings.applied")
            await trio.sleep(2 * GRACE_S)
        (applied,) = [line for line in lines if line["event"] == "settings.applied"]
        assert applied["venues"] == []
        assert cluster.nodes["push1"].ready.venues.names == []
        (said,) = [line for line in lines if line["event"] == "node.unfed"]
        assert said["symbols"] == ["LTCUSDT"]


@pytest.mark.parametrize("roles", ["['ingest']", PUSH])
async def test_a_venue_that_comes_later_wants_a_restart(
    roles: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The shards of a cluster are those of the start."""

    def reload() -> Settings:
        return settings_of("late", roles, "exchanges.okx.symbols=['BTC-USDT']")

    async with open_cluster() as cluster:
        await cluster.start("in1", "['ingest']")
        await cluster.start("late", roles, reload=reload)
        await until_ready(cluster, "late")
        with structlog.testing.capture_logs() as lines:
            signal.raise_signal(signal.SIGHUP)
            await until_logged(autojump_clock, lines, "settings.applied")
        said = [line["keys"] for line in lines if line["event"] == "settings.need_restart"]
        assert ["exchanges.okx"] in said
        assert "okx" not in cluster.nodes["late"].ready.venues.names
        assert (await cluster.get("late", "/ready"))[0] == 200


def node(fed: dict[str, str] | None, role: str = "ingest") -> Said:
    return Said("x", "x", "1", [role], [], [], {}, "", 0, 5.0, {}, fed=fed)


def table(*symbols: str) -> Instruments:
    return Instruments([Instrument("a", symbol, symbol, "spot") for symbol in symbols])


def test_what_is_missing() -> None:
    own = {
        "a": ExchangeSettings(symbols=("BTCUSDT", "ETHUSDT")),
        "b": ExchangeSettings(symbols=("*",)),
        "off": ExchangeSettings(symbols=("BTCUSDT",), enabled=False),
    }
    whole = node({"a": "1", "b": "2"})
    tables = {"a": table("BTCUSDT", "ETHUSDT", "SOLUSDT")}
    assert missing(own, [whole], tables) == {}
    assert missing(own, [whole], {}) == {}, "the list is on its way"
    assert missing(own, [whole, node(None)], {"a": table("BTCUSDT")}) == {"a": ["ETHUSDT"]}
    assert missing(own, [node({"a": "1"})], tables) == {"b": ["*"]}
    assert missing(own, [node({"b": "1"})], tables) == {"a": ["BTCUSDT", "ETHUSDT"]}
    for nobody in ([], [node(None)], [node({}, "push")]):
        assert missing(own, nobody, tables) is None


def test_it_is_said_once_and_nobody_feeding_takes_nothing_back() -> None:
    unfed = Unfed({"a": ExchangeSettings(symbols=("BTCUSDT", "ETHUSDT"))})
    tables = {"a": table("BTCUSDT")}
    with structlog.testing.capture_logs() as lines:
        for at in range(0, 300, 10):
            unfed.note([node({"a": "1"})] if at < 200 else [], tables, at)
            assert bool(unfed.symbols) is (at >= GRACE_S)
    assert [line["symbols"] for line in lines] == [["ETHUSDT"]]
    assert unfed.count == 1
