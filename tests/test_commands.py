"""The commands as people use them: what they print, from memory streams under virtual time."""

import contextlib
import gc
import io
import json
import random
import re
import tomllib
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs
from support.memory import MemoryNetwork
from support.stack import open_stack, settings_for_tests, virtual_now_ms

from trio_feed import errors, service
from trio_feed.cli import main
from trio_feed.commands import checkout, init, klines, remote, run, tail
from trio_feed.commands.advice import advise
from trio_feed.commands.options import DEMO_CONFIG, Refused
from trio_feed.commands.probe_report import probe_all
from trio_feed.commands.startup import box, narrate
from trio_feed.commands.status import text as status_text
from trio_feed.commands.status import watch
from trio_feed.commands.terminal import REPEAT_S, Narrator
from trio_feed.environment import Environment
from trio_feed.settings import load
from trio_feed.simulator.chaos import FAULTS, spread
from trio_feed.simulator.machinery.connect_proxy import ConnectProxy

ROOT = Path(__file__).parent.parent
URL = "push:80"
LATER_S = REPEAT_S + 1
UNREACHABLE = {
    "event": "instruments.failed",
    "level": "warning",
    "venue": "okx",
    "reason": "HostUnreachable",
    "problem": "ws.okx.com:443 cannot be reached directly",
}


def narrator(**changes: object) -> Narrator:
    return evolve(Narrator(100, lambda event: f"box of {event['urls']['http']}"), **changes)


# What a terminal shows


def test_the_fillings_of_the_start_are_one_line() -> None:
    told = narrator(began_s=10.0)
    for second, stream in ((12, "a:B:1m"), (15, "a:B:1m"), (14, "a:C:1m")):
        event = {"event": "history.filled", "level": "info", "stream": stream, "candles": 500}
        assert told.take(event, float(second)) == ""
    assert told.history(27) == "history: 27 series, 1,500 candles in 4.0 s"
    assert "candles=500" in told.take(event, 99.0), "later ones are repairs and are told"


def test_times_are_iso_and_tables_are_taken_apart() -> None:
    event = {
        "event": "x.y",
        "level": "info",
        "timestamp": "2026-11-29T10:54:50.940066Z",
        "urls": {"http": "http://h:1", "websocket": "ws://h:1/ws"},
        "first_ms": 1787356800000,
        "venues": ["okx", "binance_usdm"],
        "wait_ms": 250,
    }
    assert narrator().take(event, 0.0) == (
        "10:54:50 x.y  urls.http=http://h:1 urls.websocket=ws://h:1/ws first=2026-08-22T00:00:00Z\n"
        "         venues=okx,binance_usdm wait_ms=250"
    )


def test_a_venue_out_of_reach_is_explained_once_and_then_counted() -> None:
    told = narrator()
    first = told.take(UNREACHABLE, 0.0)
    assert "okx cannot be reached" in first
    assert "step     dial the exchange" in first
    assert "exchanges.okx.connection.proxy" in first
    assert all(told.take(UNREACHABLE, float(second)) == "" for second in range(1, 30))
    assert "still out of reach, 30 more tries" in told.take(UNREACHABLE, LATER_S)
    other = told.take({**UNREACHABLE, "venue": "binance_usdm"}, LATER_S)
    assert "binance_usdm cannot be reached" in other
    opened = {"event": "connection.open", "level": "info", "venue": "okx"}
    assert told.take(opened, LATER_S) == "okx: connected"
    lost = {**UNREACHABLE, "event": "connection.lost", "reason": "ConnectionLost"}
    assert "warning connection.lost" in told.take(lost, LATER_S + 1)
    assert told.take(lost, LATER_S + 2) == "", "lost now and then is not out of reach"
    assert "okx cannot be reached" in told.take(UNREACHABLE, LATER_S + 3)


def test_a_proxy_that_is_not_in_force_is_named() -> None:
    told = narrator(idle_proxies=frozenset({"okx"}))
    words = " ".join(told.take(UNREACHABLE, 0.0).split())
    assert "set exchanges.okx.connection.proxy.enabled = true" in words
    assert "no proxy is set" not in words


def test_a_proxy_that_is_down_beside_others_is_told_once() -> None:
    told = narrator()
    down = {
        "event": "proxy.down", "level": "warning", "proxy": "a:1", "problem": "proxy a:1 is gone",
        "reason": "ProxyUnreachable",
    }  # fmt: skip
    assert told.take(down, 0.0) == "", "the venue that uses it says so, if it has no other"
    assert told.history(3) == "history: 3 series, nothing was missing\nproxy a:1 is gone"
    assert "proxy.down" in told.take(down, 1.0)
    assert told.take(down, 2.0) == ""


def test_a_warning_that_repeats_is_counted() -> None:
    told = narrator()
    event = {"event": "row.bad", "level": "warning", "venue": "okx", "problem": "row 17 is odd"}
    assert "row 17" in told.take(event, 0.0)
    assert told.take({**event, "problem": "row 18 is odd"}, 1.0) == ""
    assert "problem=row 19" not in told.take({**event, "problem": "another"}, 2.0)
    assert "times_more=1" in told.take({**event, "problem": "row 20 is odd"}, LATER_S)


def test_at_debug_nothing_is_left_out() -> None:
    told = narrator(every=True)
    event = {"event": "history.filled", "level": "info", "stream": "a:B:1m", "candles": 5}
    assert "history.filled  stream=a:B:1m candles=5" in told.take(event, 0.0)
    assert "instruments.failed" in told.take(UNREACHABLE, 0.0)


def test_the_box_says_what_is_simulated_where_it_is_and_how_to_go_live() -> None:
    settings = load([ROOT / "config/default.toml"])
    event = {
        "urls": {"http": "http://0.0.0.0:8080", "websocket": "ws://0.0.0.0:8080/ws"},
        "simulated": True,
    }
    text = box(settings, event, 100)
    for words in (
        "simulated market", "http://127.0.0.1:8080/ ", "ws://127.0.0.1:8080/ws",
        "BTCUSDT ETHUSDT SOLUSDT", "made-up prices", "config/live.toml",
    ):  # fmt: skip
        assert words in text
    assert "trio-feed init" in box(settings, event, 100, demo=True)
    live = box(settings_for_tests(), {**event, "simulated": False}, 100)
    assert "simulated" not in live
    assert "go live" not in live


def test_the_line_of_a_minute() -> None:
    event = {
        "event": "service.minute", "level": "info", "timestamp": "2026-01-02T03:04:05Z",
        "messages_per_s": 100.2, "messages_failed": 0, "streams_live": 23, "streams": 24,
        "clients": 1, "repaired": 3, "proxies_up": 1, "proxies": 2,
    }  # fmt: skip
    assert narrator().take(event, 0.0) == (
        "03:04:05 100 messages/s, 23 of 24 streams live, 1 client, 3 repaired, proxies 1 of 2 up"
    )
    changes = {"messages_failed": 7, "clients": 0, "repaired": 0, "proxies": 0}
    assert narrator().take({**event, **changes}, 0.0) == (
        "03:04:05 100 messages/s, 7 of no use, 23 of 24 streams live, 0 clients, nothing to repair"
    )


def test_every_network_error_has_its_advice() -> None:
    def leaves(kind: type[Exception]) -> list[type[Exception]]:
        below = [leaf for inner in kind.__subclasses__() for leaf in leaves(inner)]
        return below or [kind]

    unknown = advise("no such error")
    for kind in leaves(errors.NetworkError):
        if kind.__module__ == errors.__name__:
            assert advise(kind.__name__) != unknown, kind


async def test_history_and_the_minute_of_a_running_service(
    autojump_clock: trio.abc.Clock,
) -> None:
    said: list[str] = []
    told = narrator(began_s=trio.current_time())
    with trio.fail_after(300), capture_logs() as events:
        async with open_stack(settings_for_tests()) as stack, trio.open_nursery() as nursery:
            nursery.start_soon(narrate, stack.ready, told, said.append, trio.current_time)
            await trio.sleep(1)
            for event in events:
                told.take(event, trio.current_time())
            await trio.sleep(70)
    (history,) = said
    assert history.startswith("history: 1 series, ")
    assert " candles in " in history
    (minute,) = [event for event in events if event["event"] == "service.minute"]
    line = told.take(minute, trio.current_time())
    assert "1 of 1 streams live, 0 clients, nothing to repair" in line


def test_a_start_is_not_spent_on_collecting_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million stored candles: nearly half of its time was the collector's."""
    before, seen = gc.get_threshold(), []
    monkeypatch.setattr(run.trio, "run", lambda *_: seen.append(gc.get_threshold()))
    try:
        gc.set_threshold(700, 10, 10)
        assert run.start(run.Wanted(assignments=("logging.format=json",))) == 0
    finally:
        gc.set_threshold(*before)
    ((young, *_),) = seen
    assert young >= 50_000


async def test_a_bug_in_what_a_terminal_shows_does_not_end_the_service(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(run, "narrate", broken)
    with trio.fail_after(300), capture_logs() as events:
        async with open_stack(settings_for_tests()) as stack:
            await run.tell_terminal(stack.ready, narrator())
    assert next(e for e in events if e["event"] == "terminal.failed")["problem"].endswith(": odd")


async def test_no_way_out_names_the_step_and_the_proxy(autojump_clock: trio.abc.Clock) -> None:
    """The events of the real service, told to a person."""
    settings = settings_for_tests(".connection.proxy='http://proxy:3128'")
    network = MemoryNetwork()
    outside = Environment(network.dial, network.listen, virtual_now_ms, random.Random(1))
    with capture_logs() as events, trio.move_on_after(50):
        await service.run(settings, outside)
    told = narrator()
    shown = "\n".join(filter(None, (told.take(e, n / 10) for n, e in enumerate(events))))
    assert shown.count("binance_usdm cannot be reached") == 1
    assert "step     reach the proxy" in shown
    assert "proxy proxy:3128 for exchange:80 cannot be reached" in shown
    assert len(shown.splitlines()) < 12


# check --connect


async def probed(*assignments: str, proxy: ConnectProxy | None = None, watch_s: float = 0) -> (
    tuple[int, str]
):  # fmt: skip
    """The exit code and the text; the exchange runs, ``proxy`` listens at proxy:3128."""
    settings, out = settings_for_tests(".channels=['kline','trade']"), io.StringIO()
    asked = settings_for_tests(*assignments)
    network = proxy.network if proxy else MemoryNetwork()
    with trio.fail_after(200):
        async with open_stack(settings, network=network) as stack, trio.open_nursery() as nursery:
            if proxy is not None:
                (listener,) = await network.listen("proxy", 3128)
                nursery.start_soon(proxy.run, listener)
            code = await probe_all(asked, out, False, stack.environment, watch_s)
            nursery.cancel_scope.cancel()
    return code, out.getvalue()


async def test_check_connect_names_each_step_with_its_time(autojump_clock: trio.abc.Clock) -> None:
    code, text = await probed(
        ".connection.proxy='http://proxy:3128'", proxy=ConnectProxy(MemoryNetwork())
    )
    assert code == 0
    steps = [line.split(" ms  ")[1].split("  ")[0] for line in text.splitlines()[1:-1]]
    assert steps == [
        "proxy reached", "tunnel", "REST", "clock", "upgrade", "subscribe", "first data",
    ]  # fmt: skip
    assert "1 instruments; request weight:" in text
    assert text.endswith("1 of 1 ways lead to data\n")


async def test_check_connect_shows_that_the_proxy_is_reached_before_it_fails(
    autojump_clock: trio.abc.Clock,
) -> None:
    proxy = ConnectProxy(MemoryNetwork())
    proxy.fail_next("hang", 1)
    _code, text = await probed(".connection.proxy='http://proxy:3128'", proxy=proxy)
    reached, failed = text.splitlines()[1:3]
    assert reached.startswith("  ok  ")
    assert "proxy reached" in reached
    assert failed.endswith("CONNECT")
    _code, text = await probed(".connection.proxy='http://nowhere:3128'")
    assert "proxy reached" not in text


@pytest.mark.parametrize(
    ("fault", "step", "advice"),
    [
        (407, "log in at the proxy", "correct username and password"),
        (502, "open the tunnel", "do its rules allow this host"),
        ("hang", "CONNECT", "drops the packets without a word"),
    ],
)
async def test_check_connect_says_what_to_do(
    fault: int | str, step: str, advice: str, autojump_clock: trio.abc.Clock
) -> None:
    proxy = ConnectProxy(MemoryNetwork())
    proxy.fail_next(fault, 5)  # type: ignore[arg-type]
    code, text = await probed(".connection.proxy='http://me:secret@proxy:3128'", proxy=proxy)
    assert code == 2
    assert "FAIL" in text
    assert step in text
    assert advice in text
    assert "secret" not in text
    assert len(proxy.faults) >= 3, "credentials are not shown again and again"
    assert text.endswith("0 of 1 ways lead to data\n")


async def test_check_connect_goes_on_and_counts(autojump_clock: trio.abc.Clock) -> None:
    code, text = await probed(watch_s=60)
    assert code == 0
    found = re.search(r"60000 ms  watched +(\d+) messages, \d+\.\d a second, 0 unreadable", text)
    assert found is not None, text
    assert int(found[1]) > 5
    assert main(["check", "--connect", "--for", "soon"]) == 2


async def test_check_connect_without_a_proxy_where_one_is_needed(
    autojump_clock: trio.abc.Clock,
) -> None:
    code, text = await probed(".connection.websocket_url='ws://elsewhere:80'")
    assert code == 2
    assert "dial the exchange" in text
    assert "exchanges.binance_usdm.connection.proxy" in text


async def test_check_connect_names_a_symbol_that_the_venue_lacks(
    autojump_clock: trio.abc.Clock,
) -> None:
    code, text = await probed(".symbols=['NOPEUSDT']")
    assert code == 2
    assert "not in the venue's list: NOPEUSDT" in text


# A running service, asked


async def test_klines_come_page_by_page(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forwards from a time, and backwards from the newest, each candle once."""
    with trio.fail_after(900):
        async with open_stack(settings_for_tests()) as stack:
            await trio.sleep(30)
            outside = stack.environment
            _, whole = await klines.ask("BTCUSDT", "1m", URL, limit=8, environment=outside)
            monkeypatch.setattr(klines, "_PAGE", 3)
            _, back = await klines.ask("BTCUSDT", "1m", URL, limit=8, environment=outside)
            start_s = whole[0].open_ms // 1000
            _, on = await klines.ask("BTCUSDT", "1m", URL, start_s=start_s, environment=outside)
            _, five = await klines.ask("BTCUSDT", "1m", URL, None, 5, start_s, environment=outside)
    assert whole == back == on
    assert five == whole[:5]


async def test_klines_tail_and_status(autojump_clock: trio.abc.Clock) -> None:
    said: list[str] = []
    with trio.fail_after(900):
        async with open_stack(settings_for_tests()) as stack:
            await trio.sleep(30)
            outside = stack.environment
            _, rows = await klines.ask("BTCUSDT", "1m", URL, limit=7, environment=outside)
            assert [b.open_ms - a.open_ms for a, b in pairwise(rows)] == [60_000] * 6
            start_s = rows[2].open_ms // 1000
            _, again = await klines.ask(
                "BTCUSDT", "1m", URL, start_s=start_s, end_s=start_s + 180, environment=outside
            )
            assert again == rows[2:5]
            with pytest.raises(Refused, match="NOPE"):
                await klines.ask("NOPE", "1m", URL, limit=1, environment=outside)
            await tail.follow(
                "BTCUSDT", "1m", URL, history=2, count=2, closed=True, form="csv",
                say=said.append, environment=outside,
            )  # fmt: skip
            page = {**stack.ready.app.report.status(), "clients": []}
    assert said[0].startswith("symbol,interval,open_time_ms,open")
    times = [int(line.split(",")[2]) for line in said[1:]]
    assert times == list(range(times[0], times[0] + 4 * 60_000, 60_000))
    assert all(line.endswith(",closed") for line in said[1:])
    shown = status_text(page, "http://push:80")
    assert "binance_usdm" in shown
    assert "live" in shown
    assert "1 series (0 behind, 0 held)" in shown


async def test_status_is_watched_until_it_ends(autojump_clock: trio.abc.Clock) -> None:
    shown: list[str] = []
    with trio.fail_after(300):
        async with open_stack(settings_for_tests()) as stack, trio.open_nursery() as nursery:
            outside = evolve(stack.environment, random=random.Random(1))
            nursery.start_soon(watch, URL, shown.append, outside)
            await trio.sleep(9)
            nursery.cancel_scope.cancel()
    assert len(shown) in (4, 5)
    assert "binance_usdm" in shown[0]
    network = MemoryNetwork()
    nowhere = Environment(network.dial, network.listen, virtual_now_ms, random.Random(1))
    with pytest.raises(Refused, match="is the service running"):
        await watch(URL, shown.append, nowhere)


async def test_the_status_of_a_service_with_an_admin_port_names_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests("server.admin_host=admin", "server.admin_port=90")
    with trio.fail_after(300):
        async with open_stack(settings) as stack:
            with pytest.raises(Refused, match=r"404 .*on the admin port only, such as --url"):
                await remote.get(URL, "/api/v1/status", {}, stack.environment)
            page = await remote.get("admin:90", "/api/v1/status", {}, stack.environment)
    assert page["venues"]


async def test_nobody_is_asked_for_a_proxy_to_a_service_of_this_machine() -> None:
    async def refused(*_: object) -> trio.SocketStream:
        raise ConnectionRefusedError(111, "Connection refused")

    network = MemoryNetwork()
    nowhere = Environment(refused, network.listen, virtual_now_ms, random.Random(1))
    for url in ("127.0.0.1:8080", "localhost:8080", "http://[::1]:8080"):
        with pytest.raises(Refused) as caught:
            await remote.get(url, "/api/v1/status", {}, nowhere)
        assert "is a proxy needed" not in str(caught.value)
    with pytest.raises(Refused, match="is a proxy needed"):
        await remote.get("elsewhere:8080", "/api/v1/status", {}, nowhere)


def test_a_url_with_a_path_is_refused_and_not_cut() -> None:
    for url in ("ws://h:1/ws", "h:1", "http://h:1/"):
        assert remote.http_url(url) == "http://h:1"
    with pytest.raises(Refused, match=r"/foo is too much; http://h is enough"):
        remote.http_url("http://h/foo")


def test_times_as_people_write_them() -> None:
    assert klines.seconds("2026-11-29", "--from") == 1795910400
    assert klines.seconds("2026-11-29T10:00+08:00", "--from") == 1795917600
    assert klines.seconds("1795910400", "--from") == 1795910400
    with pytest.raises(Refused, match="--to: 'soon' is no time"):
        klines.seconds("soon", "--to")


# Settings


@pytest.mark.parametrize("proxy", ["", "socks5://me:p%22w@127.0.0.1:1080"])
@pytest.mark.parametrize("venue", ["binance_usdm", "binance", "okx"])
def test_what_init_writes_is_what_the_service_reads(venue: str, proxy: str, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    words = ["--venue", venue, "--symbols", "BTCUSDT, ETHUSDT", "--proxy", proxy or "none"]
    assert main(["init", *words, "--output", str(file)]) == 0
    exchange = load([file]).exchanges[venue]
    assert exchange.symbols == ("BTCUSDT", "ETHUSDT")
    assert exchange.connection.proxy.enabled is bool(proxy)
    assert exchange.connection.proxy.address == ("127.0.0.1:1080" if proxy else "")
    assert file.stat().st_mode & 0o077 == 0


def test_init_does_not_write_over_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.toml"
    file.write_text("mine")
    assert main(["init", "--venue", "okx", "--output", str(file)]) == 2
    assert file.read_text() == "mine"
    assert "is there already; --force" in capsys.readouterr().err
    assert main(["init", "--symbols", "btcusdt", "--output", str(tmp_path / "new.toml")]) == 2
    assert "did you mean BTCUSDT?" in capsys.readouterr().err
    assert not (tmp_path / "new.toml").exists()
    assert "spinpet" in init.written("spinpet", ["*"], "")


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_init_reads_its_answers_from_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.toml"
    piped(monkeypatch, "okx\nSOLUSDT\nsocks5://127.0.0.1:7890\n")
    assert main(["init", "--output", str(file)]) == 0
    exchange = load([file]).exchanges["okx"]
    assert exchange.symbols == ("SOLUSDT",)
    assert exchange.connection.proxy.address == "127.0.0.1:7890"
    assert "no answer" not in capsys.readouterr().err
    piped(monkeypatch, "")
    assert main(["init", "--output", str(file), "--force"]) == 0
    said = capsys.readouterr().err
    assert said == (
        "trio_feed: no answer, so taken: Venue binance_usdm; Symbols BTCUSDT,ETHUSDT; Proxy none\n"
    )
    piped(monkeypatch, "kraken\n")
    assert main(["init", "--output", str(file), "--force"]) == 2
    assert "Venue: 'kraken' is none; one of binance, " in capsys.readouterr().err
    piped(monkeypatch, "")
    assert main(["init", "--venue", "spinpet", "--output", str(file), "--force"]) == 2
    assert "--program ID" in capsys.readouterr().err


def test_init_names_what_is_to_be_written_for_a_bare_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--venue", "okx", "--symbols", "BTCUSDT", "--proxy", "127.0.0.1:7890"]
    assert main(["init", *words, "--output", str(tmp_path / "own.toml")]) == 2
    assert "write http://127.0.0.1:7890 or socks5://127.0.0.1:7890" in capsys.readouterr().err


def test_the_demo_is_the_default_but_in_memory() -> None:
    demo = tomllib.loads(DEMO_CONFIG.read_text())
    default = tomllib.loads((ROOT / "config/default.toml").read_text())
    assert demo.pop("store") == {"path": ":memory:"}
    default.pop("store")
    assert demo == default


def test_an_empty_folder_gets_the_demo_and_its_own_file_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 0
    assert json.loads(capsys.readouterr().out)["simulator"]["enabled"] is True
    (tmp_path / "trio_feed.toml").write_text('[exchanges.okx]\nsymbols = ["BTCUSDT"]\n')
    assert main(["check", "--set", "server.port=1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["exchanges"]) == ["okx"]
    assert found["server"]["port"] == 1
    (tmp_path / "config").mkdir()
    (tmp_path / "config/default.toml").write_text("[exchanges.binance]\n")
    assert main(["--check", "--set", "server.port=1"]) == 0
    assert json.loads(capsys.readouterr().out) == found, "as before there were commands"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--confg", "x"], "No such option '--confg'"),
        (["chek"], "No such command 'chek'; did you mean check?"),
        (["proxytest"], "did you mean proxy-test?"),
        (["zzz"], "No such command 'zzz'; one of run, init, check"),
        (["check", "--conect"], "'--connect'"),
        (["status", "--watch", "--json"], "--watch is a table; it does not go with --json"),
        (["tail", "BTCUSDT"], "Missing argument 'INTERVAL'"),
        (["exchange", "--port", "99999"], "99999 is not in the range"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("trio_feed: ")
    assert line in said.replace("No such option: --confg", "No such option '--confg'")
    assert said.count("\n") == 1


def test_an_unknown_fault_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchange", "--faults", "earthquake"]) == 2
    assert "'earthquake' is none; one of tcp_reset" in capsys.readouterr().err


def test_the_faults_of_an_hour_are_as_many_as_asked_and_the_same_for_a_seed() -> None:
    script = spread(3, FAULTS, 120)
    assert len(script) == 120
    assert script == spread(3, FAULTS, 120)
    assert script != spread(4, FAULTS, 120)
    assert {fault.kind for _, fault in script} == set(FAULTS)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in (
        "run", "init", "check", "proxy-test", "status", "tail", "chart", "klines", "exchange",
        "key", "token", "copy-store",
    ):  # fmt: skip
        assert f"\n  {command} " in text
        assert main([command, "--help"]) == 0
        assert "Usage: trio-feed " in capsys.readouterr().out


def test_scripts_of_the_checkout_are_commands_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--help"]) == 0
    assert "usage: scripts/simulate" in capfd.readouterr().out
    bash = checkout.program("bench", ROOT, own_environment=True)
    assert bash[1] == str(ROOT / "scripts/bench")
    with pytest.raises(Refused, match="clone the repository and run scripts/soak there"):
        checkout.program("soak", tmp_path, own_environment=False)


def test_check_connect_of_the_demo_says_that_it_is_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--connect"]) == 2
    said = capsys.readouterr().out
    assert "nothing was dialled: these settings are the simulated market" in said
    assert "--config FILE" in said
    assert "trio-feed init" in said
    assert "0 of 0" not in said
    assert main(["check", "--connect", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["dialled"] == 0


def test_proxy_test_is_check_connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["proxy-test"]) == 2
    told = capsys.readouterr().out
    assert "simulated, nothing to dial" in told
    assert main(["check", "--connect"]) == 2
    assert capsys.readouterr().out == told
    assert main(["proxy-test", "--for", "soon"]) == 2
    capsys.readouterr()
    assert main(["check", "--for", "soon"]) == 2
    assert "--for: 'soon'" in capsys.readouterr().err
    assert main(["check", "--for", "5s"]) == 2
    assert capsys.readouterr() == (
        "",
        "trio_feed: --for: counts messages after --connect; write both\n",
    )


def test_what_commands_print_is_json_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["key", "--user", "7", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sha256(told["key"].encode()).hexdigest() == told["sha256"]
    assert told["user_id"] == 7
    file = str(tmp_path / "own.toml")
    assert main(["init", "--venue", "okx", "--output", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == file


def test_a_shell_completes_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TRIO_FEED_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "trio-feed ch")
    monkeypatch.setenv("COMP_CWORD", "1")
    with contextlib.suppress(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == ["plain,check", "plain,chart"]
