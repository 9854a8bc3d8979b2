"""Typical mistakes, and the one line that each gives.

``python -m pytest tests/test_mistakes.py -s`` prints the table.
"""

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trio
from support.memory import MemoryNetwork
from support.stack import open_stack, push_client, settings_for_tests, virtual_now_ms

from trio_feed import service
from trio_feed.cli import main
from trio_feed.commands.probe_report import probe_all
from trio_feed.environment import Environment
from trio_feed.errors import StartError
from trio_feed.settings.load import structure
from trio_feed.simulator.machinery.connect_proxy import ConnectProxy

ROOT = Path(__file__).parent.parent
USDM = "exchanges.binance_usdm"
GOOD = f'[{USDM}]\nsymbols = ["BTCUSDT"]\n'


LINES: list[str] = []


def shown(mistake: str, line: str) -> None:
    assert "\n" not in line
    LINES.append(f"| {mistake:<34} | {line}")


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    print("\n" + "\n".join(LINES))


# Before anything starts: settings, files, the command line

SAMPLE = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
TABLE = f'\n[{USDM}.connection]\nproxy = "socks5://127.0.0.1:7890"\n'

SETTINGS: list[tuple[str, str, list[str], str]] = [
    # mistake, text of the file, more words, what the line has to say
    ("lower-case symbol", GOOD.replace("BTCUSDT", "btcusdt"), [], "did you mean BTCUSDT?"),
    ("symbol with a slash", GOOD.replace("BTCUSDT", "BTC/USDT"), [], "did you mean BTCUSDT?"),
    (
        "interval that the venue lacks",
        GOOD + 'intervals = ["1m", "1s"]\ntrade_intervals = []\n',
        [],
        "1s can be made from trades: trade_intervals",
    ),
    (
        "interval that nobody has",
        GOOD + 'intervals = ["1min"]\n',
        [],
        "'1min' is not one of 1m 3m 5m",
    ),
    (
        "channel that the venue lacks",
        GOOD.replace("binance_usdm", "okx") + 'channels = ["liquidation"]\n',
        [],
        "okx has no liquidations; it has kline, ticker, trade, book",
    ),
    (
        "typo in a table's name",
        GOOD.replace("exchanges", "exchange"),
        [],
        "exchange: unknown; did you mean exchanges?",
    ),
    (
        "typo in a key's name",
        GOOD + "simbols = []\n",
        [],
        "simbols: unknown; did you mean symbols?",
    ),
    (
        "unknown venue",
        GOOD.replace("binance_usdm", "binance_futures"),
        [],
        "not a venue; one of binance, binance_usdm, okx, spinpet",
    ),
    ("TOML syntax", f"[{USDM}\n", [], "not TOML: Expected ']' at the end of a table"),
    (
        "a key and a table of one name",
        GOOD + f'[{USDM}.connection.proxy]\naddress = "a:1"\n{TABLE}',
        [],
        f"not TOML: {USDM}.connection.proxy in line 7 stands there already:"
        f" [{USDM}.connection.proxy] in line 3",
    ),
    (
        "a table twice",
        GOOD + TABLE + TABLE,
        [],
        f"[{USDM}.connection] in line 7 stands there already: [{USDM}.connection] in line 4",
    ),
    (
        "a key twice in the second of two rows",
        "[[a.b]]\nx = 1\n[[a.b]]\nx = 1\nx = 2\n",
        [],
        "a.b.x in line 5 stands there already: a.b.x in line 4",
    ),
    ("text where a number belongs", GOOD + "[server]\nport = true\n", [], "server.port"),
    (
        "proxy without http:// or socks5://",
        GOOD + f'[{USDM}.connection]\nproxy = "a:7890"\n',
        [],
        "connection.proxy: has no type in front of it: write http://a:7890 or socks5://a:7890",
    ),
    (
        "proxy of a kind that nobody speaks",
        GOOD + f'[{USDM}.connection]\nproxy = "socks4://a:7890"\n',
        [],
        "is not a proxy URL",
    ),
    (
        "a proxy and a list of proxies",
        GOOD + f'[{USDM}.connection]\nproxy = "http://a:1"\nproxies = ["http://b:2"]\n',
        [],
        "keep one of both",
    ),
    (
        "http:// for a WebSocket",
        GOOD + f'[{USDM}.connection]\nwebsocket_url = "http://x"\n',
        [],
        "is not a ws:// or wss:// URL",
    ),
    ("--set without =", GOOD, ["--set", "server.port"], "--set wants a.b=value"),
    ("missing file", GOOD, ["--config", "nowhere.toml"], "nowhere.toml: No such file"),
]


@pytest.mark.parametrize(
    ("mistake", "text", "more", "says"), SETTINGS, ids=[each[0] for each in SETTINGS]
)
def test_settings(
    mistake: str, text: str, more: list[str], says: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(text)
    assert main(["--config", "own.toml", *more, "check"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert says in line
    shown(mistake, line.strip())


@pytest.mark.parametrize(
    ("mistake", "variable", "says"),
    [
        (
            "variable: a wrong key",
            "TRIO_FEED__SERVER__PRT",
            "server.prt: unknown; did you mean port?",
        ),
        ("variable: one underscore", "TRIO_FEED_SERVER__PORT", "did you mean"),
    ],
)
def test_variables(
    mistake: str, variable: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "9000")
    main(["check"])
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert says in line
    assert variable in line
    shown(mistake, line.strip())


@pytest.mark.parametrize(
    ("mistake", "words", "says"),
    [
        ("unknown command", ["chekc"], "No such command 'chekc'; did you mean check?"),
        ("unknown option", ["check", "--conect"], "--connect"),
        ("unknown outage", ["run", "--chaos", "tcp_rest"], "'tcp_rest' is none; one of tcp_reset"),
    ],
)
def test_words(
    mistake: str, words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    try:
        code: Any = main(words)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert says in line
    shown(mistake, line.strip()[:160])


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    """/proc takes no files, not even root's."""
    done = subprocess.run(
        [sys.executable, "-m", "trio_feed", "--set", "store.path=/proc/candles/feed.db"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "TRIO_FEED__SERVER__PORT": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "store.path: /proc/candles/feed.db cannot be opened for writing" in done.stderr
    shown("read-only folder", done.stderr.strip())


async def test_a_port_in_use(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork()
    environment = Environment(network.dial, network.listen, virtual_now_ms, random.Random(1))
    await network.listen("push", 80)
    with pytest.raises(BaseExceptionGroup) as caught:
        await service.run(settings_for_tests(), environment)
    found = caught.value.subgroup(StartError)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert str(found).startswith("server.port: cannot listen on push:80")
    assert "--set server.port=81" in str(found)
    shown("port in use", f"trio_feed: {found}")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_python_that_is_too_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")  # what the question for the version comes to
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python"):
        shutil.copy(old, tmp_path / name) if name != "python3" else None
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [shutil.which("bash") or "bash", str(ROOT / "scripts/venv"), str(tmp_path / "v"), "x.lock"],
        env={**os.environ, "PATH": str(tmp_path), "PYTHON": ""}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "wants Python 3.11 or newer" in done.stderr
    shown("Python too old", done.stderr.strip())


# On the way to the exchange: what `check --connect` says of the step that fails


async def test_a_plain_proxy_behind_https_wants_http(autojump_clock: trio.abc.Clock) -> None:
    line = await failed_step("https://proxy:3128", http_proxy)
    assert "try: this proxy speaks no TLS itself: write http://" in line


async def test_a_proxy_table_that_is_not_enabled(autojump_clock: trio.abc.Clock) -> None:
    table = "{address='127.0.0.1:7890'}"
    asked = settings_for_tests(f".connection.proxy={table}")
    network, out = MemoryNetwork(), io.StringIO()
    outside = Environment(network.dial, network.listen, virtual_now_ms, random.Random(1))
    assert await probe_all(asked, out, True, outside) == 2
    advice = json.loads(out.getvalue().splitlines()[-1])["advice"]
    assert advice.endswith("set exchanges.binance_usdm.connection.proxy.enabled = true")


def test_the_live_file_takes_the_proxy_of_the_readme() -> None:
    """By taking the # away, and by writing a table of one's own at its end."""
    live = (ROOT / "config/live.toml").read_text("utf-8")
    assert SAMPLE is not None
    said = SAMPLE[1].partition("     #")[0].strip()
    assert said in (ROOT / "docs/README.zh.md").read_text("utf-8")
    for text in (live.replace(f"# {said}\n", f"{said}\n", 1), live + TABLE):
        proxy = structure(tomllib.loads(text)).exchanges["binance_usdm"].connection.proxy
        assert (proxy.enabled, proxy.proxy_type, proxy.address) == (
            True, "socks5", "127.0.0.1:7890",
        )  # fmt: skip


async def failed_step(proxy: str, run: Callable[[MemoryNetwork], Awaitable[None]] | None) -> str:
    """The step that fails, through this proxy."""
    network, out = MemoryNetwork(), io.StringIO()
    asked = settings_for_tests(f".connection.proxy='{proxy}'", ".connection.tunnel_timeout_s=2")
    with trio.fail_after(200):
        async with open_stack(settings_for_tests(), network=network) as stack:
            async with trio.open_nursery() as nursery:
                if run is not None:
                    nursery.start_soon(run, network)
                    await trio.testing.wait_all_tasks_blocked()
                code = await probe_all(asked, out, True, stack.environment)
                nursery.cancel_scope.cancel()
    assert code == 2
    step = json.loads(out.getvalue().splitlines()[-1])
    assert not step["ok"]
    assert "secret" not in out.getvalue()
    return f"{step['name']}: {step['detail']} - try: {step['advice']}"


async def http_proxy(network: MemoryNetwork) -> None:
    """What it says to a SOCKS greeting."""
    (listener,) = await network.listen("proxy", 3128)
    stream = await listener.accept()
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    await stream.aclose()


async def silent_proxy(network: MemoryNetwork) -> None:
    """It waits for a line's end, which TLS does not send."""
    (listener,) = await network.listen("proxy", 3128)
    await listener.accept()
    await trio.sleep_forever()


async def portal(network: MemoryNetwork) -> None:
    proxy = ConnectProxy(network)
    proxy.fail_next(302, 9)
    (listener,) = await network.listen("proxy", 3128)
    await proxy.run(listener)


async def http_proxy_with_password(network: MemoryNetwork) -> None:
    proxy = ConnectProxy(network)
    proxy.fail_next(407, 9)
    (listener,) = await network.listen("proxy", 3128)
    await proxy.run(listener)


async def http_proxy_with_rules(network: MemoryNetwork) -> None:
    proxy = ConnectProxy(network)
    proxy.fail_next(403, 9)
    (listener,) = await network.listen("proxy", 3128)
    await proxy.run(listener)


@pytest.mark.parametrize(
    ("mistake", "proxy", "run", "says"),
    [
        ("proxy not running", "http://proxy:3128", None, "start the proxy program"),
        ("socks5:// for an HTTP proxy", "socks5://proxy:3128", http_proxy, "proxy_type"),
        ("wrong password", "http://me:secret@proxy:3128", http_proxy_with_password,
         "correct username and password"),
        ("https:// for an HTTP proxy", "https://proxy:3128", http_proxy,
         "TLS with the proxy: proxy TLS handshake with proxy proxy:3128 for exchange:80 failed"),
        ("https:// and a silent proxy", "https://proxy:3128", silent_proxy, "write http://"),
        ("a captive portal's proxy", "http://proxy:3128", portal, "open a browser and log in"),
        ("a proxy's rules", "http://proxy:3128", http_proxy_with_rules, "do its rules allow"),
    ],
)  # fmt: skip
async def test_ways_out(
    mistake: str, proxy: str, run: Callable[[MemoryNetwork], Awaitable[None]] | None, says: str,
    autojump_clock: trio.abc.Clock, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    line = await failed_step(proxy, run)
    assert says in line
    shown(mistake, line)


# What clients get wrong


@pytest.mark.parametrize(
    ("mistake", "request_", "says"),
    [
        ("client: unknown symbol", {"type": "subscribe", "symbol": "BTCUSD", "interval": "1m"},
         "1002 symbol: 'BTCUSD' is not one of BTCUSDT"),
        ("client: interval that is not fed",
         {"type": "subscribe", "symbol": "BTCUSDT", "interval": "5m"}, "'5m' is not one of 1m"),
        ("client: interval that nobody has",
         {"type": "subscribe", "symbol": "BTCUSDT", "interval": "1x"}, "interval"),
        ("client: channel misspelt", {"type": "subscribe", "symbol": "BTCUSDT", "channel": "bars"},
         "channel"),
        ("client: unknown request", {"type": "subscibe", "symbol": "BTCUSDT"}, "subscribe"),
        ("client: wrong token", {"type": "auth", "token": "tfk_wrong"},
         "1004 "),
    ],
)  # fmt: skip
async def test_clients(
    mistake: str, request_: dict[str, Any], says: str, autojump_clock: trio.abc.Clock,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    digest = sha256(b"another").hexdigest()
    settings = settings_for_tests(f"auth.api_keys=[{{name='a', user_id=1, sha256='{digest}'}}]")
    with trio.fail_after(300):
        async with open_stack(settings) as stack, push_client(stack) as client:
            await trio.sleep(30)
            await client.ask(**request_)
            answer = await client.of_type("error")
    line = f"{answer['code']} {answer['message']}"
    assert says in line
    shown(mistake, line)
