"""Outages for other people's programs: what is offered, and the whole service against them."""

import random
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from support.memory import MemoryNetwork
from support.stack import START_MS, settings_for_tests
from trio_websocket import wrap_client_stream

from trio_feed import service
from trio_feed.cli import main
from trio_feed.commands.chaos import EXCHANGE_FAULTS, PROXIED_FAULTS, start_chaos
from trio_feed.commands.exchange import ready
from trio_feed.environment import Environment
from trio_feed.model import Interval, Series
from trio_feed.settings import SimulatorSettings
from trio_feed.simulator.chaos import FAULTS, Chaos, serve_with_faults, spread
from trio_feed.simulator.faults.clocks import Clocks
from trio_feed.simulator.faults.descriptions import DESCRIPTIONS
from trio_feed.simulator.faults.schedule import KINDS
from trio_feed.simulator.machinery.memory_network import MemoryNetwork as BoxNetwork

PAGE = Path(__file__).parent.parent / "docs/chaos.md"
HOUR_S = 3_600


def test_every_fault_is_offered_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(DESCRIPTIONS) == list(KINDS) == list(FAULTS)
    assert len(FAULTS) == 35
    for words in (["run", "--chaos", "list"], ["exchange", "--faults", "list"]):
        assert main(words) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"{kind:<19} {text}" for kind, text in DESCRIPTIONS.items()
        ]
    page = PAGE.read_text(encoding="utf-8")
    for kind, text in DESCRIPTIONS.items():
        assert f"| `{kind}` | {text} |" in page
    for _, fault in spread(7, EXCHANGE_FAULTS, 120)[:2]:
        assert f"\nfault: {fault}\n" in page
    assert set(FAULTS) - set(PROXIED_FAULTS) == {"clock_skew"}
    assert len(EXCHANGE_FAULTS) == 29


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "--chaos", "earthquake"], "--chaos: 'earthquake' is none; one of tcp_reset"),
        (
            ["run", "--chaos", "all", "--set", "simulator.enabled=false"],
            "--chaos: only the simulated exchange has any; set simulator.enabled=true",
        ),
        (["exchange", "--faults", "proxy_down"], "--faults: proxy_down wants --proxy-port"),
        (
            ["exchange", "--faults", "clock_skew", "--proxy-port", "0"],
            "--faults: clock_skew is one of the client's machine",
        ),
        (["exchange", "--venue", "spinpet", "--faults", "tcp_reset"], "--faults: those of spinpet"),
    ],
)
def test_what_is_not_there_is_one_line(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"trio_feed: {line}")
    assert said.count("\n") == 1


async def test_the_service_loses_nothing_whatever_is_chosen(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Every kind of fault twice and more, through the proxy, in an hour and a half."""
    settings = settings_for_tests("simulator.enabled=true", "simulator.trades_per_minute=6",
        "simulator.kline_push_ms=20000", "simulator.symbols=['BTCUSDT','ETHUSDT']")  # fmt: skip
    network, clocks = MemoryNetwork(), Clocks(START_MS)
    environment = Environment(network.dial, network.listen, clocks.wall_ms, random.Random(1))
    begin = partial(start_chaos, FAULTS, 60.0, clocks)
    with capture_logs() as logs, trio.fail_after(3 * HOUR_S):
        async with trio.open_nursery() as nursery:
            run = partial(service.run, settings, environment, start_exchange=begin)
            ready = await nursery.start(run)
            await trio.sleep(1.5 * HOUR_S)
            series = Series("binance_usdm", "BTCUSDT", Interval.M1)
            # The last outage may be a long one.
            while ready.feeds[0].not_ready(30):  # noqa: ASYNC110
                await trio.sleep(5)
            rows = await ready.store.history(series, limit=5_000)
            nursery.cancel_scope.cancel()
    begun = {line["fault"].split()[0] for line in logs if line["event"] == "chaos.fault"}
    assert begun == set(FAULTS)
    assert len(rows) >= 100
    assert {b.open_ms - a.open_ms for a, b in pairwise(rows)} == {60_000}
    assert {port for host, port in network.dialled if host == "127.0.0.1"} == {50_002}, "its proxy"


@pytest.mark.parametrize("kind", ["reordered_frames", "trickle", "missing_close"])
async def test_messages_that_a_fault_keeps_back_end_no_connection(
    kind: str, autojump_clock: trio.abc.Clock
) -> None:
    network, said = BoxNetwork(), list[str]()
    (listener,) = await network.listen("0.0.0.0", 9443)
    box = SimulatorSettings(symbols=("BTCUSDT",), trades_per_minute=60)
    chaos = Chaos((kind,), 240.0, said.append)
    path = "/market/stream?streams=btcusdt@aggTrade/btcusdt@kline_1m"
    with trio.fail_after(HOUR_S):
        async with trio.open_nursery() as nursery:
            begin = partial(serve_with_faults, box, chaos, [listener], port=9443)
            await nursery.start(begin)
            stream = await network.dial("0.0.0.0", 9443)
            client = await wrap_client_stream(nursery, stream, "box", path)
            until = trio.current_time() + 5 * 60
            while trio.current_time() < until:
                await client.get_message()
            nursery.cancel_scope.cancel()
    assert {line.split()[0] for line in said} == {kind}


def test_where_the_exchange_is() -> None:
    box = SimulatorSettings(enabled=True, seed=7, symbols=("BTCUSDT",))
    text = ready(box, 9443, "http://127.0.0.1:9444", as_json=False)
    assert text == (
        "binance_usdm (simulated, seed 7) on ws://127.0.0.1:9443 and http://127.0.0.1:9443, behind"
        " the proxy http://127.0.0.1:9444, symbols BTCUSDT"
    )
    assert '"proxy_url": null' in ready(box, 9443, "", as_json=True)
