"""Solana's JSON-RPC and log lines (forms of solana.com/docs/rpc/websocket and agave, 2026)."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_feed.errors import BadMessage
from trio_feed.venues import Ack
from trio_feed.venues.spinpet.borsh import BorshReader
from trio_feed.venues.spinpet.solana import (
    LogData,
    TransactionLogs,
    is_pubkey,
    logs_subscribe,
    parse_message,
    walk,
)

OURS = "Gxj8WjkYwUTpKjGdBWe9eYjVyaL3mEyfdTV9NV7KsFb9"
OTHER = "7LV2Ak6mzZW9rkrYSnFZwQv5bYWGx3RYBfe34cyLLGi2"
SYSTEM = "1" * 32
SIGNATURE = (
    "5h6xBEauJ3PK6SWCZ1PGjBvj8vDdWG3KpwATGy1ARAXFSDwt8GFXM7W5Ncn16wmqokgpiKRLuS83KUxyZyv2sUYv"
)
NOTIFICATION: dict[str, Any] = {
    "jsonrpc": "2.0",
    "method": "logsNotification",
    "params": {
        "result": {
            "context": {"slot": 5208469},
            "value": {"signature": SIGNATURE, "err": None, "logs": ["Program log: hi"]},
        },
        "subscription": 24040,
    },
}


def said(*lines: str, keep_failed: bool = False) -> list[tuple[int, bytes]]:
    """What OURS logged: index and bytes.  In the lines, ``>X`` invokes, ``<X`` succeeds, ``!X``
    fails, ``=text`` is data; X is A for OURS, B for OTHER, S for the system program."""
    found, _ = walk(logs(*lines), OURS, keep_failed=keep_failed)
    return [(entry.index, entry.decode()) for entry in found]


def logs(*lines: str) -> list[str]:
    names = {"A": OURS, "B": OTHER, "S": SYSTEM}
    depth, full = 0, []
    for line in lines:
        mark, rest = line[:1], line[1:]
        if mark == ">":
            depth += 1
            full.append(f"Program {names[rest]} invoke [{depth}]")
        elif mark in ("<", "!"):
            depth -= 1
            end = "success" if mark == "<" else "failed: custom program error: 0x1771"
            full.append(f"Program {names[rest]} {end}")
        elif mark == "=":
            full.append(f"Program data: {b64encode(rest.encode()).decode()}")
        else:
            full.append(line)
    return full


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([">A", "=x", "<A"], [(1, b"x")], id="direct"),
        pytest.param([">B", ">A", "=x", "<A", "<B"], [(2, b"x")], id="invoked by another"),
        pytest.param([">A", ">B", "=y", "<B", "=x", "<A"], [(4, b"x")], id="another inside"),
        pytest.param([">A", "=1", ">B", ">A", "=2", "<A", "<B", "=3", "<A"],
                     [(1, b"1"), (4, b"2"), (7, b"3")], id="ours inside another inside ours"),
        pytest.param([">B", "=y", ">A", "<A", "=y", "<B"], [], id="foreign data around us"),
        pytest.param([">A", "=1", "<A", ">B", "=y", "<B", ">A", "=2", "<A"],
                     [(1, b"1"), (7, b"2")], id="two instructions"),
        pytest.param([">A", "=1", ">B", ">A", "=2", "<A", "!B", "=3", "<A"],
                     [(1, b"1"), (7, b"3")], id="failed inner call, with ours below it"),
        pytest.param([">B", ">A", "=1", "!A", ">A", "=2", "<A", "<B"], [(5, b"2")],
                     id="failed, then again"),
        pytest.param([">A", "=1", "!A"], [], id="failed"),
        pytest.param([">S", "<S", ">A", "=x", "<A"], [(3, b"x")], id="system program"),
    ],
)  # fmt: skip
def test_data_belongs_to_the_program_on_top(
    lines: list[str], expected: list[tuple[int, bytes]]
) -> None:
    assert said(*lines) == expected


def test_failed_invocations_can_be_kept() -> None:
    assert said(">B", ">A", "=1", "!A", "!B", keep_failed=True) == [(2, b"1")]


def test_lines_that_only_look_like_structure() -> None:
    assert said(
        ">A",
        f"Program log: Program {OURS} success",
        f"Program log: hi\nProgram {OURS} success",
        "Program log: Log truncated",
        f"Program return: {OURS} AQAAAAAAAAA=",
        f"Program {OURS} consumed 88000 of 200000 compute units",
        "Program failed to complete: exceeded CUs meter at BPF instruction",
        "Program consumption: 100 units remaining",
        "Program data:",
        "Transfer: insufficient lamports 5, need 6",
        "",
        "=x",
        "<A",
    ) == [(11, b"x")]


def test_truncated_logs_end_where_lines_are_missing() -> None:
    """A full collector still takes short lines, so what follows fits no stack."""
    cut = logs(">A", "=1", ">B", "Log truncated", "<A", "=2", "<B", "<A")
    found, truncated = walk(cut, OURS)
    assert truncated
    assert [(entry.index, entry.decode()) for entry in found] == [(1, b"1")]
    assert walk(logs(">A", "<A"), OURS) == ([], False)


@pytest.mark.parametrize(
    "lines",
    [
        ["=x"], ["<A"], [">A"], [">A", "<A", "<A"], [">A", "<B"], [">A", ">B", "<A"],
        [">A", f"Program {OTHER} invoke [3]"], [f"Program {OURS} invoke [0]", "<A"],
        [">A", "<A", "=late"], ["!A"],
    ],
)  # fmt: skip
def test_lines_that_do_not_nest_are_a_bad_message(lines: list[str]) -> None:
    with pytest.raises(BadMessage):
        said(*lines)


def test_data_lines() -> None:
    assert LogData(OURS, 0, "").decode() == b""
    assert LogData(OURS, 0, "aGVs bG8=").decode() == b"hello"
    for text in ("aGVsbG8", "a b", "ä", "aGVs-bG8="):
        with pytest.raises(BadMessage):
            LogData(OURS, 0, text).decode()


def test_a_notification() -> None:
    expected = TransactionLogs(SIGNATURE, 5208469, False, ("Program log: hi",))
    assert parse_message(json.dumps(NOTIFICATION)) == expected
    newer = json.loads(json.dumps(NOTIFICATION))
    newer["params"]["result"]["context"]["apiVersion"] = "2.3.6"
    newer["params"]["result"]["value"]["err"] = {"InstructionError": [2, {"Custom": 6001}]}
    newer["brandNew"] = [1]
    failed = parse_message(json.dumps(newer).encode())
    assert isinstance(failed, TransactionLogs)
    assert failed.failed


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"jsonrpc": "2.0", "result": 24040, "id": 1}, Ack("1")),
        ({"jsonrpc": "2.0", "result": True, "id": 2}, Ack("2")),
        ({"jsonrpc": "2.0", "result": 0, "id": "a"}, Ack("a")),
        (
            {"jsonrpc": "2.0", "error": {"code": -32602, "message": "Invalid params"}, "id": 1},
            Ack("1", "-32602 Invalid params"),
        ),
        (
            {"error": {"code": -32700, "message": "Parse error"}, "id": None},
            Ack("", "-32700 Parse error"),
        ),
        (
            {"error": {"code": -32005, "message": "x", "data": {"behind": 4}}, "id": 7},
            Ack("7", "-32005 x"),
        ),
    ],
)  # fmt: skip
def test_replies(message: Any, expected: Ack) -> None:
    assert parse_message(json.dumps(message)) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "", "nonsense", "null", "[]", "{}", '{"id":1}',
        '{"result":5}', '{"method":"slotNotification"}',
        '{"method":"logsNotification"}', '{"method":5}', "[" * 100_000, b"\xff\xfe", "\ud800",
        '{"id":' + "9" * 5000 + ',"result":1}', '{"jsonrpc":"2.0","result":[],"id":1}',
        json.dumps(NOTIFICATION).replace("5208469", '"5208469"'),
        json.dumps(NOTIFICATION).replace(SIGNATURE, "x"),
        json.dumps(NOTIFICATION).replace('["Program log: hi"]', "null"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_bad_message(raw: str | bytes) -> None:
    with pytest.raises(BadMessage):
        parse_message(raw)


def test_the_request() -> None:
    assert json.loads(logs_subscribe(1, OURS, "confirmed")) == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "logsSubscribe",
        "params": [{"mentions": [OURS]}, {"commitment": "confirmed"}],
    }


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (OURS, True), (SYSTEM, True), ("1" * 33, False), (OURS[:-2], False), (OURS + " ", False),
        (OURS.replace("G", "0"), False), ("", False), ("z" * 44, False), ("é" * 40, False),
    ],
)  # fmt: skip
def test_public_keys(text: str, fits: bool) -> None:
    assert is_pubkey(text) is fits


@given(st.lists(st.sampled_from([*logs(">A", "=x", "<A", ">B", "!B", "Log truncated"), "é"])))
def test_any_order_of_lines_raises_nothing_else(lines: list[str]) -> None:
    try:
        found, _ = walk(lines, OURS)
    except BadMessage:
        return
    assert all(lines[entry.index].startswith("Program data: ") for entry in found)


def test_borsh_fields() -> None:
    reader = BorshReader(bytes([1, 2, 1, 3, 0, 0, 0]) + b"\xff" * 24 + bytes(31) + b"\x01\x01\x02")
    assert (reader.u8(), reader.u16(), reader.u32()) == (1, 0x0102, 3)
    assert (reader.u64(), reader.u128()) == (2**64 - 1, 2**128 - 1)
    assert reader.pubkey() == "1" * 31 + "2"
    assert reader.boolean() is True
    for read in (reader.boolean, reader.u16, reader.pubkey):
        with pytest.raises(BadMessage):
            read()
