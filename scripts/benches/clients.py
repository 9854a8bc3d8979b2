"""The clients of bench_push: raw WebSocket over epoll, counting bytes and nothing else.

    bench_push_clients.py HOST:PORT NUMBER FROZEN COMMON STREAMS EACH

Each subscribes to the trades of COMMON and of EACH out of STREAMS; then ``ready`` is printed, and
all but the FROZEN go on reading until they are killed.
"""

import json
import resource
import select
import socket
import sys
from collections.abc import Iterator

AT_ONCE = 100
_CONFIRMED = b"subscription_confirmed"
_HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(text: str) -> bytes:
    """A client's text frame; a mask of zeros is a mask."""
    payload = text.encode()
    assert len(payload) < 126
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


def subscriptions(client: int, common: str, streams: int, each: int) -> Iterator[bytes]:
    names = [common, *(f"S{(client * each + n) % streams}USDT" for n in range(each))]
    for name in names:
        request = {"type": "subscribe", "symbol": name, "channel": "trade"}
        yield masked(json.dumps(request, separators=(",", ":")))


class Clients:
    def __init__(self, address: str, number: int, frozen: int, rest: list[str]) -> None:
        host, _, port = address.rpartition(":")
        self.address = host, int(port)
        self.hello = _HANDSHAKE.format(host=address).encode()
        self.number, self.frozen = number, frozen
        self.common, self.streams, self.each = rest[0], int(rest[1]), int(rest[2])
        self.epoll = select.epoll()
        self.sockets: dict[int, tuple[int, socket.socket]] = {}
        self.confirmed: dict[int, int] = {}
        self.rests: dict[int, bytes] = {}
        self.opened = self.done = 0
        self.buffer = bytearray(2**20)

    def open(self) -> None:
        client, self.opened = self.opened, self.opened + 1
        sock = socket.socket()
        if client < self.frozen:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
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
            return
        if client in self.confirmed and self.confirmed[client] > self.each:
            return
        self._set_up(client, sock, bytes(self.buffer[:size]))

    def _set_up(self, client: int, sock: socket.socket, data: bytes) -> None:
        if client not in self.confirmed:
            self.confirmed[client] = 0
            wishes = subscriptions(client, self.common, self.streams, self.each)
            sock.send(b"".join(wishes))
        data = self.rests.pop(client, b"") + data
        self.confirmed[client] += data.count(_CONFIRMED)
        self.rests[client] = data[1 - len(_CONFIRMED) :]
        if self.confirmed[client] > self.each:
            self.done += 1
            if client < self.frozen:
                self.epoll.unregister(sock)

    def run(self) -> None:
        told = False
        while True:
            while self.opened < self.number and self.opened - self.done < AT_ONCE:
                self.open()
            for descriptor, _ in self.epoll.poll(maxevents=1000):
                self.read(descriptor)
            if self.done == self.number and not told:
                told = True
                print("ready", flush=True)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Clients(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]).run()
