"""Many cheap clients in one process: raw WebSocket over epoll, counting bytes.

The job says ``port``, ``number``, ``common`` (symbols, each with how many of the first clients
subscribe to it), ``streams`` and ``each`` (a client subscribes to so many of the streams), and
``sampled``: of so many clients the times of messages are looked at.  ``candles``: subscribe to 1m
candles.  ``nap_ms``: once subscribed, look for messages that often instead of waiting for them:
clients that are elsewhere do not make the sender's kernel wake a process with each message.

Prints ``{"seconds": .., "stayed": ..}`` once all are subscribed; then ``take`` on standard input is
answered with what came since: ``bytes``, and of the sampled ``messages``, ``p50_ms`` and ``p99_ms``
from the message's making to its arrival.  With ``expected`` the times are those of the last of so
many clients that get a message.
"""

import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from .processes import open_files
from .result import percentile

AT_ONCE = 100
_CONFIRMED = b"subscription_confirmed"
_MADE_AT = re.compile(rb'"(?:trade_id|volume)":(\d{6,})[,.]')
_HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(text: str) -> bytes:
    """A client's text frame; a mask of zeros is a mask."""
    payload = text.encode()
    assert len(payload) < 126
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


class Clients:
    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job, self.number = job, int(job["number"])
        self.address = ("127.0.0.1", int(job["port"]))
        self.hello = _HANDSHAKE.format(host=f"127.0.0.1:{self.address[1]}").encode()
        self.sampled, self.expected = int(job.get("sampled", 0)), int(job.get("expected", 0))
        self.nap_s = float(job.get("nap_ms", 0)) / 1000
        self.epoll = select.epoll()
        self.sockets: dict[int, tuple[int, socket.socket]] = {}
        self.wanted: dict[int, int] = {}
        """Confirmations that are missing, by client."""
        self.rests: dict[int, bytes] = {}
        self.opened = self.done = self.gone = self.bytes = 0
        self.delays_us: list[int] = []
        self.arrived: dict[int, int] = {}
        """Of messages that not all have: how many have it, by the time of its making."""
        self.buffer = memoryview(bytearray(2**20))

    def names(self, client: int) -> Iterator[str]:
        for name, first in self.job["common"]:
            if client < first:
                yield name
        each, streams = int(self.job["each"]), int(self.job["streams"])
        for n in range(each):
            yield f"S{(client * each + n) % streams}USDT"

    def requests(self, client: int) -> list[bytes]:
        kind = {"interval": "1m", "limit": 1} if self.job.get("candles") else {"channel": "trade"}
        return [
            masked(json.dumps({"type": "subscribe", "symbol": n, **kind}, separators=(",", ":")))
            for n in self.names(client)
        ]

    def open(self) -> None:
        client, self.opened = self.opened, self.opened + 1
        sock = socket.socket()
        sock.connect(self.address)
        sock.setblocking(False)
        sock.send(self.hello)
        self.sockets[sock.fileno()] = client, sock
        self.epoll.register(sock, select.EPOLLIN)

    def read(self, descriptor: int) -> None:
        client, sock = self.sockets[descriptor]
        try:
            size = sock.recv_into(self.buffer)
        except BlockingIOError:
            return
        except ConnectionError:
            size = 0
        if not size:
            self.epoll.unregister(descriptor)
            self.gone += 1
            return
        if self.wanted.get(client, 1) > 0:
            self._set_up(client, sock, bytes(self.buffer[:size]))
            return
        self.bytes += size
        if client < self.sampled:
            self._note(self.buffer[:size])

    def _note(self, data: memoryview) -> None:
        now = time.monotonic_ns() // 1000
        for found in _MADE_AT.finditer(data):
            made = int(found[1])
            if self.expected:
                count = self.arrived[made] = self.arrived.get(made, 0) + 1
                if count < self.expected:
                    continue
                del self.arrived[made]
            self.delays_us.append(now - made)

    def _set_up(self, client: int, sock: socket.socket, data: bytes) -> None:
        if client not in self.wanted:
            wishes = self.requests(client)
            self.wanted[client] = len(wishes)
            sock.send(b"".join(wishes))
        data = self.rests.pop(client, b"") + data
        self.wanted[client] -= data.count(_CONFIRMED)
        if self.wanted[client] > 0:
            self.rests[client] = data[1 - len(_CONFIRMED) :]
        else:
            self.done += 1

    def taken(self) -> dict[str, float]:
        delays = sorted(self.delays_us)
        found = {
            "bytes": self.bytes,
            "messages": len(delays),
            "p50_ms": percentile(delays, 0.5) / 1000,
            "p99_ms": percentile(delays, 0.99) / 1000,
            "max_ms": delays[-1] / 1000 if delays else 0.0,
            "incomplete": len(self.arrived),
            "gone": self.gone,
        }
        self.bytes, self.delays_us = 0, []
        self.arrived.clear()
        return found

    def run(self) -> None:
        began, told = time.perf_counter(), False
        self.epoll.register(0, select.EPOLLIN)
        while True:
            while self.opened < self.number and self.opened - self.done - self.gone < AT_ONCE:
                self.open()
            if told and self.nap_s:
                time.sleep(self.nap_s)
            for descriptor, _ in self.epoll.poll(maxevents=4000):
                if descriptor:
                    self.read(descriptor)
                elif not os.read(0, 4096):
                    return
                else:
                    _say(self.taken())
            if self.done + self.gone >= self.number and not told:
                told = True
                self.bytes, self.delays_us = 0, []
                _say({"seconds": time.perf_counter() - began, "stayed": self.done})


def _say(found: object) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    open_files()
    Clients(json.loads(sys.argv[1])).run()
