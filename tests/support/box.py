"""An exchange in a box on real sockets and the real clock, in a thread of its own.

For clients that are not trio's: the test may be synchronous, or run asyncio.
"""

import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import trio
from attrs import define, field

Serve = Callable[..., Awaitable[None]]
"""``serve_binance`` and its like: takes ``listeners`` and ``task_status``, and runs for ever."""


def real_now_ms() -> float:
    return time.time() * 1000


@define
class RunningBox:
    """``address`` is host:port on loopback, ``tls_address`` the same box behind TLS (where it was
    given a context), ``exchange`` what the serving function started with.

    Levers may be pulled through ``call`` only: the box lives in another thread.
    """

    address: str = ""
    tls_address: str = ""
    exchange: Any = None
    _tls: ssl.SSLContext | None = None
    _token: trio.lowlevel.TrioToken | None = None
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    _up: threading.Event = field(factory=threading.Event)
    _failure: BaseException | None = None

    def call(self, lever: Callable[[], object]) -> None:
        assert self._token is not None
        trio.from_thread.run_sync(lever, trio_token=self._token)

    def _run(self, serve: Serve) -> None:
        try:
            trio.run(self._serve, serve)
        except BaseException as failure:  # noqa: BLE001 - goes to the test's thread
            self._failure = failure
        finally:
            self._up.set()

    async def _serve(self, serve: Serve) -> None:
        self._token = trio.lowlevel.current_trio_token()
        listeners: list[trio.abc.Listener[Any]] = [*await _listen()]
        self.address = _name(listeners[0])
        if self._tls is not None:
            (plain,) = await _listen()
            self.tls_address = _name(plain)
            listeners.append(trio.SSLListener(plain, self._tls))
        with self._scope:
            async with trio.open_nursery() as nursery:
                self.exchange = await nursery.start(partial(serve, listeners=listeners))
                self._up.set()


async def _listen() -> list[trio.SocketListener]:
    return await trio.open_tcp_listeners(0, host="127.0.0.1")


def _name(listener: Any) -> str:
    return "{}:{}".format(*listener.socket.getsockname())


@contextmanager
def running_box(serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[RunningBox]:
    """Up on entry, gone on exit; raises what the box died of.  ``tls``: it listens behind TLS
    as well."""
    box = RunningBox(tls=tls)
    thread = threading.Thread(target=box._run, args=(serve,), name="box", daemon=True)
    thread.start()
    assert box._up.wait(10), "the box did not start"
    try:
        if box._failure is None:
            yield box
    finally:
        if thread.is_alive():
            box.call(box._scope.cancel)
        thread.join(10)
    if box._failure is not None:
        raise box._failure
