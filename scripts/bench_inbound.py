"""``scripts/bench inbound``: messages per second from a socket into the program.

A sender on one core writes aggTrades of twenty symbols over one WebSocket, as fast as they are
taken; the reader, a process of its own on the other core, is each implementation in turn
(:mod:`scripts.bench_inbound_readers`).  The row "plain recv" reads the same bytes and looks at
nothing: what it reaches is the ceiling of sender and machine, so the sender limits nobody who is
well below it.
"""

import base64
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

READERS = {
    "plain recv": "recv",
    "picows + uvloop, into our type": "picows",
    "websockets + json": "websockets",
    "cryptofeed, whole path": "cryptofeed",
    "trio-websocket, into our type": "library",
    "trio_feed, into our type": "fast",
    "trio_feed, whole path": "whole",
    "trio_feed, whole path, every update": "whole0",
}
RATIOS = {
    "received and parsed / cryptofeed's whole path": (
        "trio_feed, into our type",
        "cryptofeed, whole path",
    ),
    "received and parsed / picows + uvloop into the same type": (
        "trio_feed, into our type",
        "picows + uvloop, into our type",
    ),
    "whole path / cryptofeed's whole path": ("trio_feed, whole path", "cryptofeed, whole path"),
    "received and parsed / trio-websocket": (
        "trio_feed, into our type",
        "trio-websocket, into our type",
    ),
    "plain recv / received and parsed": ("plain recv", "trio_feed, into our type"),
}
TARGETS = {
    "received and parsed / cryptofeed's whole path": 2.0,
    "received and parsed / picows + uvloop into the same type": 0.9,
    "whole path / cryptofeed's whole path": 1.0,
}
SYMBOLS = tuple(f"S{n}USDT" for n in range(20))
_FRAMES = 200
"""Per write: about 64 KiB."""
_BODY = (
    b'{"stream":"%b@aggTrade","data":{"e":"aggTrade","E":%d,"a":%d,"s":"%b","p":"%d.%d","q":"0.%03d",'
    b'"nq":"0.%03d","f":%d,"l":%d,"T":%d,"m":%b,"st":1,"pad":"%b"}}'
)
_PAD = b"x" * 90
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def run(quick: bool) -> dict[str, Any]:
    """Rounds of every reader; see :data:`scripts.bench.BENCHES`."""
    rounds, seconds = (2, 1.0) if quick else (5, 3.0)
    rows: dict[str, list[float]] = {name: [] for name in READERS}
    skipped: list[str] = []
    for _ in range(rounds):
        for name, reader in READERS.items():
            if name in skipped:
                continue
            figure = _measure(reader, seconds)
            if figure is None:
                skipped.append(name)
            else:
                rows[name].append(figure)
    return {
        "rows": rows, "unit": "messages/s", "ratios": RATIOS, "targets": TARGETS,
        "skipped": skipped,
    }  # fmt: skip


def _measure(reader: str, seconds: float) -> float | None:
    """Messages per second of one reader; None: it is not installed, or failed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        port = server.getsockname()[1]
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("bench_inbound_readers.py")), reader,
             str(port), str(seconds), *SYMBOLS],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            os.sched_setaffinity(0, {0})
            _serve(server, seconds, child)
            output = child.communicate(timeout=30)[0]
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"{reader}: {error}", file=sys.stderr)
            return None
        finally:
            child.kill()
            child.wait()
    if child.returncode:
        return None
    found = json.loads(output.splitlines()[-1])
    return float(found["messages"]) / float(found["seconds"])


def _serve(server: socket.socket, seconds: float, child: "subprocess.Popen[bytes]") -> None:
    """Answer questions of REST until somebody asks for the stream, and send it."""
    while child.poll() is None:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            return
        with connection:
            connection.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := connection.recv(65536)):
                    break
                head += data
            if b"sec-websocket-key" not in head.lower():
                connection.sendall(_rest(head))
                continue
            connection.sendall(_switch(head))
            _send(connection, seconds)
            return


def _rest(head: bytes) -> bytes:
    """The instruments; anything else is not known."""
    path = head.split(b" ", 2)[1] if b" " in head else b""
    body = b"[]"
    if path.startswith(b"/fapi/v1/exchangeInfo"):
        body = json.dumps({"symbols": [
            {
                "symbol": symbol, "pair": symbol, "contractType": "PERPETUAL", "status": "TRADING",
                "baseAsset": symbol[:-4], "quoteAsset": "USDT", "marginAsset": "USDT",
                "pricePrecision": 1, "quantityPrecision": 3,
                "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.1"},
                            {"filterType": "LOT_SIZE", "stepSize": "0.001"}],
            }
            for symbol in SYMBOLS
        ]}).encode()  # fmt: skip
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def _switch(head: bytes) -> bytes:
    key = next(
        line.split(b":", 1)[1].strip()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )


def _send(connection: socket.socket, seconds: float) -> None:
    """As fast as it is taken, a second longer than the reader counts."""
    names = [(symbol.lower().encode(), symbol.encode()) for symbol in SYMBOLS]
    end, number = time.monotonic() + seconds + 1.5, 1_000_000
    try:
        while (now := time.monotonic()) < end:
            del now
            at = time.time_ns() // 1_000_000
            frames = []
            for n in range(_FRAMES):
                number += 1
                lower, upper = names[n % len(names)]
                body = _BODY % (
                    lower, at, number // len(names), upper, 66_000 + number // 991 % 50,
                    number % 10, number % 97, number % 97, number // len(names) * 2,
                    number // len(names) * 2 + 1, at, b"true" if number % 2 else b"false", _PAD,
                )  # fmt: skip
                frames.append(struct.pack("!BBH", 0x81, 126, len(body)) + body)
            connection.sendall(b"".join(frames))
    except OSError:
        pass  # the reader has counted enough
