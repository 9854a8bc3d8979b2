"""The command line as a person meets it: what ``--check`` finds, and how it says it."""

import os
from pathlib import Path

import pytest

from trio_feed.cli import main

USDM, OKX = "exchanges.binance_usdm", "exchanges.okx"
SPINPET = "exchanges.spinpet.solana.program_id=" + "1" * 32


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "feed.toml"
    file.write_text(f'[{USDM}]\nsymbols = ["BTCUSDT"]\n')
    return str(file)


@pytest.mark.parametrize(
    ("assignments", "line"),
    [
        ([f'{USDM}.symbols=["btcusdt"]'], f"{USDM}.symbols: 'btcusdt' is no symbol; did you mean"
         " BTCUSDT? (--set)"),
        ([f'{USDM}.symbols=["BTC/USDT"]'], "did you mean BTCUSDT?"),
        ([f'{USDM}.symbols=["ETHUSDT","btc/usdt:usdt"]'], "did you mean BTCUSDT?"),
        ([f'{OKX}.symbols=["btc-usdt"]'], "did you mean BTC-USDT?"),
        ([f'{OKX}.symbols=["BTC_USDT"]'], "did you mean BTC-USDT?"),
        ([f'{OKX}.symbols=["BTC-USDT-PERP"]'], "did you mean BTC-USDT-SWAP?"),
        ([f'{USDM}.symbols=["BTC-USDT"]'], "'BTC-USDT' is no symbol; did you mean BTCUSDT?"),
        ([f'{USDM}.symbols=["btc_usdt"]'], "did you mean BTCUSDT?"),
        ([f'{USDM}.symbols=["ETH-USDT-SWAP"]'], "did you mean ETHUSDT?"),
        (['exchanges.binance.symbols=["BTC-USDT"]'], "did you mean BTCUSDT?"),
        ([f"{USDM}.symbols=[]"], f"{USDM}.symbols: none; name some, such as BTCUSDT, or write"
         " enabled = false"),
        ([f'{USDM}.symbols=["*"]'], "has a list; name the symbols of it"),
        ([f'{OKX}.intervals=["8h"]'], "okx has no 8h candles; 8h can be made from 1m:"
         " rollup_intervals; it has 1s 1m 3m 5m"),
        ([f'{USDM}.intervals=["1m","1s"]', f"{USDM}.trade_intervals=[]"], "has no 1s candles; 1s"
         " can be made from trades: trade_intervals; it has 1m 3m"),
        ([SPINPET, 'exchanges.spinpet.symbols=["*"]'], "it has none of its own"),
        ([f'{OKX}.channels=["kline","mark_price","liquidation"]'], "okx has no liquidations;"
         ' write channels = ["kline", "mark_price"]'),
        ([f"{USDM}.connection.websocket_url=https://x"], f"{USDM}.connection.websocket_url: is not"
         " a ws:// or wss:// URL"),
        ([f"{USDM}.connection.rest_url=x/KEY"], f"{USDM}.connection.rest_url: is not an http://"),
    ],
)  # fmt: skip
def test_what_check_finds(
    assignments: list[str], line: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with what to write instead."""
    sets = [word for each in assignments for word in ("--set", each)]
    assert main(["--config", config, "--check", *sets]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith("trio_feed: ")
    assert line in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "symbols", ['["BTCUSDT","1000SHIBUSDT"]', '["BTCUSDT_260327"]', '["币安人生USDT"]']
)
def test_names_that_check_lets_pass(
    symbols: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", config, "--check", "--set", f"{USDM}.symbols={symbols}"]) == 0


@pytest.mark.parametrize(
    "symbols", ['["BTCUSDT"]', '["BTC-USDT"]', '["BTC-USDT-SWAP"]', '["BTC-USD_UM-SWAP"]']
)
def test_okx_knows_its_own_names_and_ours(symbols: str, config: str) -> None:
    assert main(["--config", config, "--check", "--set", f"{OKX}.symbols={symbols}"]) == 0


def test_a_proxy_that_is_not_enabled_is_said(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = f"{USDM}.connection.proxy"
    assert main(["--config", config, "--check", "--set", f"{proxy}.address=proxy:3128"]) == 0
    said = capsys.readouterr().err
    assert said == f"trio_feed: {proxy}: proxy:3128 is not used: enabled is false\n"
    sets = ["--set", f"{proxy}.address=proxy:3128", "--set", f"{proxy}.enabled=true"]
    assert main(["--config", config, "--check", *sets]) == 0
    assert capsys.readouterr().err == ""


def test_a_venue_without_a_list_takes_names_of_either_case(config: str) -> None:
    mint = '["So11111111111111111111111111111111111111112"]'
    table = "exchanges.spinpet"
    words = [SPINPET, f"{table}.symbols={mint}", f"{table}.intervals=[]"]
    sets = [word for each in words for word in ("--set", each)]
    assert main(["--config", config, "--check", *sets]) == 0


def test_what_check_finds_in_a_file_names_the_file(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(config).write_text(f'[{USDM}]\nsymbols = ["btcusdt"]\n')
    assert main(["--config", config, "--check"]) == 2
    assert capsys.readouterr().err.endswith(f"did you mean BTCUSDT? ({config})\n")


def test_a_misspelt_variable_is_said(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_FEED_SERVER_PORT", "9999")
    assert main(["--config", config, "--check"]) == 0
    said = capsys.readouterr().err
    assert "TRIO_FEED_SERVER_PORT is not read; did you mean TRIO_FEED__SERVER__PORT?" in said
    assert "9999" not in said


@pytest.mark.parametrize("words", [["--check"], ["key", "--user", "1"]])
def test_a_reader_that_has_gone_brings_no_traceback(
    words: list[str],
    config: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """``| head -1``."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert main(["--config", config, *words]) == 0
        print("and so at the exit", file=stdout, flush=True)
    assert capfd.readouterr().err == ""


def test_a_full_disk_is_one_line(
    config: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert main(["--config", config, "--check"]) == 2
    assert capfd.readouterr().err == "trio_feed: stdout: No space left on device\n"
