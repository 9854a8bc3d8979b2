"""A TCP way to a port of this machine that can be cut, or fall silent, without leave to change the
machine's own network."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from attrs import define, field

_CHUNK = 65_536
_LOOK_S = 0.05

State = Literal["open", "silent", "cut"]
"""silent: connections stay, and what is sent waits; cut: they end, and new ones at once."""


@define(eq=False)
class Relay:
    """Made by :func:`open_relay`.  ``change``: what becomes of the bytes that the target sends."""

    port: int
    _target: int
    _listener: socket.socket
    _change: Callable[[bytes], bytes]
    state: State = "open"
    _ended: threading.Event = field(factory=threading.Event)
    _threads: list[threading.Thread] = field(factory=list)

    def run(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._listener], [], [], _LOOK_S)[0]:
                continue
            near, _ = self._listener.accept()
            thread = threading.Thread(target=self._carry, args=(near,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
            while self.state != "cut" and not self._ended.is_set():
                if self.state == "silent":
                    self._ended.wait(_LOOK_S)
                    continue
                for source in select.select([near, far], [], [], _LOOK_S)[0]:
                    data = source.recv(_CHUNK)
                    if not data:
                        return
                    if source is far:
                        near.sendall(self._change(data))
                    else:
                        far.sendall(data)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(5)


@contextmanager
def open_relay(
    target: int, change: Callable[[bytes], bytes] = lambda data: data
) -> Iterator[Relay]:
    """To that port; ended with the context."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = Relay(listener.getsockname()[1], target, listener, change)
        thread = threading.Thread(target=relay.run, daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            relay.end()
            thread.join(5)
