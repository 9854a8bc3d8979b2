"""An exchange that only sends: aggTrades or candles of many symbols over WebSocket, plain or TLS,
asked for directly or through itself as a CONNECT proxy.  It stands on the core that loads.

It answers the few REST questions that a client asks before.
"""

import base64
import hashlib
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import parse_qsl

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FRAMES = 200
"""Per write: about 64 KiB."""
_TRADE = (
    b'{"stream":"%b@aggTrade","data":{"e":"aggTrade","E":%d,"a":%d,"s":"%b","p":"%d.%d","q":"0.%03d",'
    b'"nq":"0.%03d","f":%d,"l":%d,"T":%d,"m":%b,"st":1,"pad":"%b"}}'
)
_PAD = b"x" * 90
MEAN_FRAME = 303.0
"""Bytes of one of its frames, within one per cent."""

Connection = socket.socket | ssl.SSLSocket


def symbols(number: int) -> tuple[str, ...]:
    return tuple(f"S{n}USDT" for n in range(number))


def frame(body: bytes) -> bytes:
    """One text frame of a server."""
    if len(body) < 126:
        return struct.pack("!BB", 0x81, len(body)) + body
    return struct.pack("!BBH", 0x81, 126, len(body)) + body


class Trades:
    """aggTrades of the symbols in turn; ids and times go on."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [(name.lower().encode(), name.encode()) for name in names]
        self._number = 1_000_000

    def next(self) -> bytes:
        names, number = self._names, self._number
        self._number += 1
        lower, upper = names[number % len(names)]
        at, nth = time.time_ns() // 1_000_000, number // len(names)
        return frame(
            _TRADE
            % (
                lower, at, nth, upper, 66_000 + number // 991 % 50, number % 10, number % 97,
                number % 97, nth * 2, nth * 2 + 1, at, b"true" if nth % 2 else b"false", _PAD,
            )
        )  # fmt: skip


class Exchange:
    """Listens on a free port of loopback.  ``names`` are its symbols; ``context``: it speaks TLS
    (HTTPS for the REST questions as well).  Close it."""

    def __init__(self, names: Sequence[str], context: ssl.SSLContext | None = None) -> None:
        self.names = names
        self.by_stream: dict[str, Connection] = {}
        """Upgraded connections by the streams that were asked for."""
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._server.settimeout(1)
        self.port: int = self._server.getsockname()[1]

    def close(self) -> None:
        self._server.close()

    def accept(self, number: int, alive: Callable[[], bool]) -> list[Connection]:
        """The first ``number`` WebSockets, upgraded; fewer where the reader is not alive.  What
        else comes is a question of REST."""
        found: list[Connection] = []
        while len(found) < number and alive():
            try:
                connection: Connection = self._server.accept()[0]
            except TimeoutError:
                continue
            try:
                connection = self._secured(connection)
                head = _head(connection)
                if b"sec-websocket-key" in head.lower():
                    connection.sendall(switch(head))
                    found.append(connection)
                    path = head.split(b" ", 2)[1].decode()
                    streams = path.partition("streams=")[2].split("/")
                    if path.endswith("/stream"):
                        streams = _subscribed(connection)
                    self.by_stream |= dict.fromkeys(streams, connection)
                    continue
                connection.sendall(self._rest(head))
            except OSError:
                pass
            connection.close()
        return found

    def _secured(self, connection: Connection) -> Connection:
        """TLS where it is wanted, behind our own CONNECT where somebody asks for that."""
        connection.settimeout(10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if connection.recv(8, socket.MSG_PEEK).startswith(b"CONNECT "):
            _head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        if self._context is not None:
            return self._context.wrap_socket(connection, server_side=True)
        return connection

    def _rest(self, head: bytes) -> bytes:
        path = head.split(b" ", 2)[1] if b" " in head else b""
        body = b"[]"
        if path.startswith(b"/fapi/v1/exchangeInfo"):
            body = json.dumps({"symbols": [_listed(name) for name in self.names]}).encode()
        elif path.startswith(b"/fapi/v1/time"):
            body = b'{"serverTime":%d}' % (time.time_ns() // 1_000_000)
        elif b"lines?" in path:
            body = json.dumps(_candles(path.decode())).encode()
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )


def send_fast(connection: Connection, names: Sequence[str], seconds: float) -> None:
    """Trades as fast as they are taken."""
    trades, end = Trades(names), time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            connection.sendall(b"".join([trades.next() for _ in range(_FRAMES)]))
    except OSError:
        pass  # the reader has counted enough


def send_paced(
    connections: Sequence[Connection], names: Sequence[str], per_s: float, seconds: float
) -> None:
    """``per_s`` trades a second in all, one after the other over the connections in turn."""
    own = [Trades([name]) for name in names]
    for number in paced(per_s, seconds):
        place = number % len(connections)
        try:
            connections[place].sendall(own[place % len(own)].next())
        except OSError:
            return


def paced(per_s: float, seconds: float) -> Iterator[int]:
    """Numbers from 0 on, each when its time has come."""
    began, number = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * per_s)
        while number < due:
            yield number
            number += 1
        time.sleep(0.0001)


def _subscribed(connection: Connection) -> list[str]:
    """Answer a SUBSCRIBE; returns the names of the streams."""
    data = bytearray()

    def take(size: int) -> bytes:
        while len(data) < size:
            if not (more := connection.recv(65536)):
                raise ConnectionError("it has gone")
            data.extend(more)
        taken = bytes(data[:size])
        del data[:size]
        return taken

    size = take(2)[1] & 0x7F
    if size > 125:
        size = int.from_bytes(take(2 if size == 126 else 8), "big")
    mask, body = take(4), take(size)
    plain = bytes(byte ^ mask[place & 3] for place, byte in enumerate(body))
    request = json.loads(plain)
    connection.sendall(frame(b'{"result":null,"id":%d}' % request["id"]))
    names: list[str] = request["params"]
    return names


def _head(connection: Connection) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := connection.recv(1 if not head else 65536)):
            break
        head += data
    return head


_LENGTHS_MS = {"1m": 60_000, "5m": 300_000, "15m": 900_000, "1h": 3_600_000}


def _candles(path: str) -> list[list[object]]:
    """Of any symbol, from ``startTime`` (or the last ones) to the running one."""
    wanted = dict(parse_qsl(path.partition("?")[2]))
    length, limit = _LENGTHS_MS[wanted["interval"]], int(wanted.get("limit", 500))
    running = time.time_ns() // 1_000_000 // length * length
    first = -(-int(wanted.get("startTime", running - (limit - 1) * length)) // length) * length
    return [
        [at, "66440.7", "66450.1", "66430.0", "66444.1", "10", at + length - 1, "664407", 5, "1",
         "66440", "0"]
        for at in range(first, running + 1, length)[:limit]
    ]  # fmt: skip


def _listed(symbol: str) -> dict[str, object]:
    return {
        "symbol": symbol, "pair": symbol, "contractType": "PERPETUAL", "status": "TRADING",
        "baseAsset": symbol[:-4], "quoteAsset": "USDT", "marginAsset": "USDT",
        "pricePrecision": 1, "quantityPrecision": 3,
        "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.1"},
                    {"filterType": "LOT_SIZE", "stepSize": "0.001"}],
    }  # fmt: skip


def switch(head: bytes) -> bytes:
    """101 for a request head."""
    key = next(
        line.split(b":", 1)[1].strip()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
