"""Recordings of exchanges: parsing."""

import pytest
from support.recordings import Recording, parse_recording

from trio_feed.errors import BadMessage

COMBINED = """\
wss://fstream.example/stream?streams=a@kline_1m/b@aggTrade <-> 100.5
101.0: {"stream":"a@kline_1m","data":{"n":1}}
103.0: {"stream":"b@aggTrade","data":{"n":2}}
103.25: {"stream":"a@kline_1m","data":{"n":3}}
"""
RAW = """\
wss://fstream.example/ws/a@kline_1m <-> 100.5
101.0: {"n":1}
101.5: {"n":2}
"""
SENT_LATER = """\
wss://ws.example:8443/ws/v5/public <-> 1
wss://ws.example:8443/ws/v5/public <- 1.5: {"op":"subscribe"}
2: b'{"event":"subscribe","text":"\\xc3\\xa9"}'
3.25: {"arg":{"channel":"candle1m"},"data":[["1"]]}
"""


def test_parsing() -> None:
    assert parse_recording(COMBINED) == Recording(
        "wss://fstream.example/stream?streams=a@kline_1m/b@aggTrade",
        [],
        [
            (101.0, '{"stream":"a@kline_1m","data":{"n":1}}'),
            (103.0, '{"stream":"b@aggTrade","data":{"n":2}}'),
            (103.25, '{"stream":"a@kline_1m","data":{"n":3}}'),
        ],
    )


def test_parsing_of_bytes_and_sent_messages() -> None:
    recording = parse_recording(SENT_LATER)
    assert recording.sent == [(1.5, '{"op":"subscribe"}')]
    assert recording.received[0] == (2.0, '{"event":"subscribe","text":"é"}')
    assert len(recording.received) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no connection line"),
        ("1.0: {}", "no connection line"),
        (COMBINED + "rubbish\n", "line 5"),
        (COMBINED + "105.0\n", "line 5"),
        (COMBINED + "105.0: b'\n", "line 5"),
        (COMBINED + RAW, "line 5"),
    ],
)
def test_what_is_no_recording(text: str, problem: str) -> None:
    with pytest.raises(BadMessage, match=problem):
        parse_recording(text)
