"""``scripts/simulate``: the service holds under every fault, and the check can fail."""

import json
from decimal import Decimal
from typing import Any

import pytest
import trio
from attrs import evolve

from scripts import simulate
from scripts.simulate import SETTLE_S
from scripts.simulate_judge import MUST_BE_ZERO
from scripts.simulate_run import START_MS, Run, service_settings
from trio_feed.core.ledger import Ledger
from trio_feed.model import Kline
from trio_feed.net.limits import Bans
from trio_feed.settings import ProxySettings, Settings
from trio_feed.simulator.faults.frames import FRAME_FAULTS, closes
from trio_feed.simulator.faults.proxy import client_frames, server_frames
from trio_feed.simulator.faults.schedule import KINDS, Fault, write_schedule
from trio_feed.simulator.machinery.wire import ping_frame, text_frame
from trio_feed.testing.record import BookCheck

CLOSE = b'{"e":"kline","k":{"x":true}}'
OPEN = b'{"e":"kline","k":{"x":false}}'


def broken(result: dict[str, Any]) -> dict[str, Any]:
    """The promises that were not kept."""
    return {name: result[name] for name in MUST_BE_ZERO if result[name]}


@pytest.mark.parametrize(
    ("venue", "seed", "channels"),
    [
        ("binance_usdm", 1, ("kline",)),
        pytest.param("binance", 2, ("kline", "trade"), marks=pytest.mark.slow),
        pytest.param("okx", 3, ("kline", "ticker"), marks=pytest.mark.slow),
    ],
)
def test_six_hours_of_everything(venue: str, seed: int, channels: tuple[str, ...]) -> None:
    lines, result = simulate.simulate(Run(seed, 6.0, venue=venue, channels=channels))
    assert broken(result) == {}
    assert result["closed_expected"] == 380
    assert result["closed_in_store"] == result["closed_delivered"] == 380
    assert result["faults"].keys() == KINDS.keys()
    assert len(lines) == sum(result["faults"].values())
    assert result["max_detect_s"] <= 90
    assert result["virtual_hours"] >= 6


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_alone(kind: str) -> None:
    """Twelve of them in an hour: a fault that is rare among all the others comes often here."""
    script = [
        (at, fault)
        for seed in range(12)
        for at, fault in write_schedule(seed, 1.0, [kind], start_ms=START_MS)[:1]
    ]
    _, result = simulate.simulate(Run(1, 1.0, script=sorted(script, key=lambda item: item[0])))
    assert broken(result) == {}
    assert result["faults"] == {kind: 12}


def test_books_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each book as it came is right, and the same one is wrong for the book of ten seconds before:
    by one run, so that no number depends on how another one went."""
    note, came = BookCheck.note, list[int]()

    def also_ten_seconds_behind(self: BookCheck, message: dict[str, Any]) -> None:
        before = self.checked, self.mismatches
        note(self, message)
        if self.checked == before[0]:
            return  # a stale one
        assert (self.checked, self.mismatches) == (before[0] + 1, before[1])
        came.append(message["data"]["update_id"])
        book = message["data"] | {"update_id": message["data"]["update_id"] - 800}
        note(self, message | {"data": book})

    monkeypatch.setattr(BookCheck, "note", also_ten_seconds_behind)
    _, result = simulate.simulate(Run(1, 0.3, kinds=(), channels=("kline", "book")))
    assert len(came) > 90, came
    assert (result["books_checked"], result["book_mismatches"]) == (2 * len(came), len(came))


def test_trades_are_counted() -> None:
    run = Run(1, 0.5, kinds=(), channels=("kline", "trade"))
    assert simulate.simulate(run)[1]["trades_lost"] == 0
    script = [(300.0, Fault("rest_down", lasts_s=600)), (301.0, Fault("dial_refused", lasts_s=60))]
    _, result = simulate.simulate(evolve(run, script=script))
    assert result["trades_lost"] > 0


def test_a_row_that_is_missing_once_is_not_believed() -> None:
    """REST is away for a while, and its first answer afterwards lacks a candle."""
    script = [
        (100.0, Fault("missing_close", lasts_s=65)),
        (100.0, Fault("rest_down", lasts_s=100)),
        (150.0, Fault("rest_missing_row", times=1)),
    ]
    _, result = simulate.simulate(Run(1, 0.5, script=script))
    assert broken(result) == {}


def test_trades_are_fetched_after_a_ban() -> None:
    script = [
        (300.0, Fault("rest_status", 418, times=1)),
        (301.0, Fault("dial_refused", lasts_s=60)),
    ]
    _, result = simulate.simulate(Run(1, 0.5, script=script, channels=("kline", "trade")))
    assert result["trades_lost"] == 0


def test_a_correction_that_was_told_has_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    script = [(90.0, Fault("correction", 5.0))]
    run = Run(1, 0.2, script=script, settings=("exchanges.binance_usdm.audit_after_s=0",))
    _, result = simulate.simulate(run)
    assert broken(result) == {}
    monkeypatch.setattr(Ledger, "_repeated", lambda *_args: [])
    _, result = simulate.simulate(run)
    assert broken(result) == {"wrong_values": 1}


def test_going_past_the_proxy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_proxy(run: Run) -> Settings:
        settings = service_settings(run)
        exchange = settings.exchanges[run.venue]
        connection = evolve(exchange.connection, proxy=ProxySettings())
        return evolve(settings, exchanges={run.venue: evolve(exchange, connection=connection)})

    monkeypatch.setattr(simulate, "service_settings", without_proxy)
    lines, result = simulate.simulate(Run(1, 0.1, kinds=()))
    # One connection to the stream; REST is dialled anew whenever it was idle for a while.
    assert broken(result) == {"bypassed": len(lines)}
    assert {line.split(" ", 1)[1] for line in lines} == {
        "violation exchange:80 dialled past the proxy",
        "violation rest:80 dialled past the proxy",
    }


def test_the_same_seed_gives_the_same_result() -> None:
    results = [simulate.simulate(Run(4, 2.0)) for _ in range(2)]
    for _, result in results:
        del result["wall_s"]
    assert results[0] == results[1]


def test_wrong_values_are_found() -> None:
    def one_is_off(kline: Kline) -> Kline:
        minute = (kline.open_ms - START_MS) // 60_000
        return evolve(kline, high=kline.high + Decimal("0.1")) if minute == 30 else kline

    _, result = simulate.simulate(Run(1, 1.0, kinds=(), truth=one_is_off))
    assert broken(result) == {"wrong_values": 1}


def test_candles_that_cannot_be_fetched_are_missed() -> None:
    """Without REST nobody can repair what passed while the service was offline."""
    script = [
        (100.0, Fault("rest_down", lasts_s=3600 + SETTLE_S)),
        (600.0, Fault("dial_refused", lasts_s=300)),
    ]
    lines, result = simulate.simulate(Run(1, 1.0, script=script))
    assert broken(result).keys() == {"lost"}
    assert result["lost"] > 4
    assert lines[0] == "t=100.000 fault rest_down for 7200 s"


def test_a_service_that_dies_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*_args: Any, task_status: Any, **_more: Any) -> None:
        await trio.sleep(5)
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(simulate.service, "run", run)
    lines, result = simulate.simulate(Run(1, 0.1, kinds=()))
    assert result["crashes"] == 1
    assert lines == ["t=5.000 crash RuntimeError: out of ideas"]


def test_requests_during_a_ban_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bans, "ban", lambda _self, now, *_args, **_more: now)  # all are over
    script = [(90.0, Fault("rest_status", 418, times=1)), (92.0, Fault("dial_refused", lasts_s=60))]
    _, result = simulate.simulate(Run(1, 0.2, script=script))
    assert result["limit_violations"] > 0


def test_the_command_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--seed", "5", "--hours", "0.5", "--faults", "tcp_reset,half_open"]
    assert simulate.main(words) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert all(line.split()[1:2] == ["fault"] for line in lines)
    result = json.loads(last)
    assert result["faults"] == {"half_open": 1, "tcp_reset": 1}
    assert simulate.main([*words, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line).keys() == result.keys()


@pytest.mark.parametrize("name", MUST_BE_ZERO)
def test_the_exit_code_tells_of_each_broken_promise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = dict.fromkeys(MUST_BE_ZERO, 0) | {"trades_lost": 3, "waiting": 1, "marked": 1}
    monkeypatch.setattr(simulate, "simulate", lambda _run: ([], result))
    assert simulate.main(["--json"]) == 0
    result[name] = 1
    assert simulate.main(["--json"]) == 1


def test_an_unknown_fault_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        simulate.main(["--faults", "flood"])
    assert "no such fault: flood" in capsys.readouterr().err


def test_a_fault_that_a_venue_does_not_have_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        simulate.main(["--venue", "spinpet", "--faults", "halt"])
    assert "spinpet has no halt; it has fork, " in capsys.readouterr().err
    runs: list[simulate.Run] = []

    def nothing_happened(run: simulate.Run) -> tuple[list[str], dict[str, Any]]:
        runs.append(run)
        return [], dict.fromkeys(MUST_BE_ZERO, 0)

    monkeypatch.setattr(simulate, "simulate", nothing_happened)
    assert simulate.main(["--venue", "spinpet", "--faults", "everything"]) == 0
    assert {"fork", "suspend"} <= {*runs[0].kinds}
    assert "halt" not in runs[0].kinds


def test_frames_are_told_apart() -> None:
    payloads = [b"a", b"b" * 125, b"c" * 126, b"d" * 70_000]
    data = b"".join(map(text_frame, payloads)) + ping_frame(b"x")
    assert [payload for _, payload in server_frames(data)] == [*payloads, b"x"]
    assert b"".join(frame for frame, _ in server_frames(data)) == data
    masked = b"\x89\x80mask" + b"\x81\x82maskab" + b"\x81\xfe\x00\x7emask" + b"z" * 126
    assert [*client_frames(masked)] == [0x89, 0x81, 0x81]


def through(kind: str, *payloads: bytes, value: float = 0.0) -> list[tuple[float, bytes]]:
    change_frames = FRAME_FAULTS[kind](value)
    return [out for payload in payloads for out in change_frames(payload)]


def test_closing_frames_are_known_at_both_exchanges() -> None:
    okx = b'{"arg":{"channel":"candle1m","instId":"BTC-USDT"},"data":[["1","2","9","%b"]]}'
    assert closes(CLOSE)
    assert closes(okx.replace(b"%b", b"1"))
    assert not closes(OPEN)
    assert not closes(okx.replace(b"%b", b"0"))


def test_each_tamper_does_what_it_is_called() -> None:
    assert through("missing_close", OPEN, CLOSE) == [(0.0, OPEN)]
    assert through("late_close", OPEN, CLOSE, value=4.5) == [(0.0, OPEN), (4.5, CLOSE)]
    assert through("duplicated_frames", OPEN) == [(0.0, OPEN)] * 2
    assert through("reordered_frames", b"1", b"2", b"3") == [(0.0, b"2"), (0.0, b"1")]
    assert len(through("trickle", *[OPEN] * 41)) == 3
    strange = through("unknown_frames", OPEN, CLOSE)
    assert [payload for _, payload in strange[1::2]] == [OPEN, CLOSE]
    for kind in ("malformed_json", "truncated_json"):
        ((_, spoilt),) = through(kind, OPEN)
        with pytest.raises(json.JSONDecodeError):
            json.loads(spoilt)
