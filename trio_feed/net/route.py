"""How bytes reach one venue: through its proxy, its pool, or directly; at a bounded rate."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

import structlog
import trio
from attrs import field, frozen

from ..environment import Dial, mono
from ..errors import (
    NetworkError,
    NoProxyAvailable,
    TlsNameMismatch,
    TlsReset,
    TlsUntrusted,
    TunnelError,
    TunnelTimeout,
)
from ..settings import EgressSettings, ProxySettings
from .budgets import Dials
from .egress import Egress
from .proxy import Proxy, choose_proxy, join_address
from .tls import start_tls, tls_context
from .tunnel import open_tunnel

_TLS_ERRORS = (TlsNameMismatch, TlsReset, TlsUntrusted)  # of the proxy, before the tunnel is up
_T = TypeVar("_T")
_log = structlog.get_logger()


@frozen
class Exit:
    """What the exchange sees us behind; None: ourselves."""

    proxy: Proxy | None

    @property
    def name(self) -> str:
        return "direct" if self.proxy is None else self.proxy.address

    @property
    def through(self) -> str:
        """For messages about what lies behind it."""
        return "" if self.proxy is None else f" through proxy {self.proxy.name}"


Admit = Callable[[Exit, Callable[[], bool]], Awaitable[bool]]
"""Waits until something may be sent by this exit (True), or until it is not the best one any more,
as the second argument says (False)."""


@frozen
class Route:
    """How bytes reach one venue.  Immutable; any number of streams may be opened with it."""

    dial: Dial = field(repr=False)
    proxy_settings: ProxySettings
    environ: Mapping[str, str] | None = field(repr=False)  # may hold proxy passwords
    """None unless the environment's proxy variables shall count."""
    ca_file: str
    """PEM file that the exchange is verified with; empty: the system's authorities."""
    timeout_s: float
    """For each step of the way."""

    egress: Egress | None = None
    """The pool; ``proxy_settings`` and ``environ`` do not count beside it, nothing goes direct."""
    environ_pools: dict[Proxy, Egress] | None = field(default=None, repr=False)
    """Pools of one, of the proxies that ``environ`` names, made with ``policy`` as they are met."""
    policy: EgressSettings | None = None
    lane: int = 0
    """Connections that shall not fall together have different ones: :meth:`Egress.choose`."""
    dials: Dials | None = None
    """Shared by all that dial this exchange."""
    dial_wait_s: float = 600.0
    """Longest wait for ``dials`` in one call; who waits keeps a place in the queue."""
    opened: Callable[[str], None] = field(default=lambda _exit: None, repr=False)
    """Called with the name of the exit whenever a stream is open."""
    tls_strict: bool = True
    """See :func:`.tls.tls_context`."""
    _through: WeakKeyDictionary[trio.abc.Stream, Proxy] = field(
        init=False, repr=False, eq=False, factory=WeakKeyDictionary
    )

    def tls_context(self) -> ssl.SSLContext:
        """What the exchange is verified with now.  Raises SettingsError."""
        return tls_context(self.ca_file, strict=self.tls_strict)

    @property
    def pools(self) -> list[Egress]:
        """Of all proxies that were met."""
        return [self.egress] if self.egress else list((self.environ_pools or {}).values())

    async def open(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """A stream to ``host:port``, inside verified TLS where ``tls``.  The caller closes it.

        Raises TunnelError, NoProxyAvailable where the pool has nothing left; SettingsError where a
        proxy variable or a CA file is unusable.
        """
        context = self.tls_context() if tls else None

        async def use(exit_: Exit) -> trio.abc.Stream:
            return await self.through(exit_, host, port, context)

        return await self.by_exits(host, port, tls=tls, use=use, admit=self._admit)

    async def tunnel(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """As :meth:`open`, but TLS is left to the caller; ``tls`` only helps choose the proxy."""

        async def use(exit_: Exit) -> trio.abc.Stream:
            return await self.through(exit_, host, port, None)

        return await self.by_exits(host, port, tls=tls, use=use, admit=self._admit)

    async def by_exits(
        self,
        host: str,
        port: int,
        *,
        tls: bool,
        use: Callable[[Exit], Awaitable[_T]],
        admit: Admit,
    ) -> _T:
        """What ``use`` makes of the best exit, or of the next one where it raises TunnelError, each
        tried at most once and never before ``admit`` agrees.  Raises as :meth:`open`."""
        egress = self.egress
        if egress is None:
            settings, environ = self.proxy_settings, self.environ
            only = Exit(choose_proxy(settings, host=host, port=port, tls=tls, environ=environ))
            if only.proxy is None or self.environ_pools is None:
                await admit(only, lambda: True)
                return await use(only)
            egress = self.environ_pools.setdefault(only.proxy, Egress([only.proxy], self.policy))
        tried: set[Proxy] = set()
        last: TunnelError | None = None
        while proxy := egress.choose(mono(), tried, self.lane):
            if not await admit(Exit(proxy), self._still(egress, proxy, tried)):
                continue  # and choose again: much has happened
            tried.add(proxy)
            try:
                return await use(Exit(proxy))
            except TunnelError as error:
                last = error
        now = mono()
        if last is not None and egress.next_at(now) <= now:
            raise last  # some of them are not to blame for it
        raise NoProxyAvailable(
            f"{join_address(host, port)}: {egress.explain(now)}", egress.next_at(now)
        )

    async def through(
        self, exit_: Exit, host: str, port: int, context: ssl.SSLContext | None
    ) -> trio.abc.Stream:
        """One try by one exit, without a budget, in TLS where there is a ``context``; the pool is
        informed of the outcome.  The caller closes the stream.  Raises TunnelError."""
        egress = self._pool_of(exit_)
        if egress is None or exit_.proxy is None:
            stream = await self._tunnel(host, port, exit_.proxy)
            stream = await self._start_tls(stream, host, context, exit_)
        else:
            stream = await self._attempt(egress, exit_.proxy, host, port, context)
        if exit_.proxy is not None:
            self._through[stream] = exit_.proxy
        self.opened(exit_.name)
        return stream

    def blame(self, stream: trio.abc.Stream, error: NetworkError) -> None:
        """Report to the pool what became of a ``stream`` of ours after it was open: UpgradeRefused
        (a blocked region), a TLS error of the caller's.  Without a pool: nothing."""
        self.blame_exit(Exit(self._through.get(stream)), error)

    def blame_exit(self, exit_: Exit, error: NetworkError) -> None:
        """As :meth:`blame`, for what was asked by ``exit_``."""
        egress = self._pool_of(exit_)
        if egress is not None and exit_.proxy is not None:
            egress.failed(exit_.proxy, mono(), error)
            self._log_changes(egress)

    def accepted(self, stream: trio.abc.Stream) -> None:
        """The exchange lets in who comes as this ``stream`` of ours."""
        self.accepted_by(self.exit_of(stream))

    def accepted_by(self, exit_: Exit) -> None:
        """As :meth:`accepted`, for what was asked by ``exit_``."""
        egress = self._pool_of(exit_)
        if egress is not None and exit_.proxy is not None:
            egress.accepted(exit_.proxy)
            self._log_changes(egress)

    def exit_of(self, stream: trio.abc.Stream) -> Exit:
        """By which a ``stream`` of ours leaves."""
        return Exit(self._through.get(stream))

    def name_of(self, stream: trio.abc.Stream) -> str:
        """For messages about what a ``stream`` of ours leads to: " through proxy ..", or empty."""
        return self.exit_of(stream).through

    async def _attempt(
        self, egress: Egress, proxy: Proxy, host: str, port: int, context: ssl.SSLContext | None
    ) -> trio.abc.Stream:
        """One try through one proxy, whose outcome is reported to the pool."""
        began, in_tls = trio.current_time(), False
        try:
            async with _turn(egress, proxy):
                if egress.cools(proxy, mono()):  # whose turn it was has been refused
                    raise NoProxyAvailable(egress.explain(mono()), egress.next_at(mono()))
                began = trio.current_time()
                stream = await self._tunnel(host, port, proxy)
            took_s = trio.current_time() - began
            began, in_tls = trio.current_time(), True
            stream = await self._start_tls(stream, host, context, Exit(proxy))
        except NoProxyAvailable:
            raise
        except TunnelError as error:
            proxy_tls = not in_tls and isinstance(error, _TLS_ERRORS)
            egress.failed(proxy, mono(), error, of_proxy=proxy_tls or None)
            self._log_changes(egress)
            raise
        except trio.Cancelled:  # a caller's own deadline must not hide a proxy that hangs
            waited_s = trio.current_time() - began
            if waited_s >= self.timeout_s / 2:
                problem = f"proxy {proxy.address}: the caller gave up after {waited_s:.1f} s"
                hung = TunnelTimeout(problem, "TLS handshake" if in_tls else "CONNECT")
                egress.failed(proxy, mono(), hung)
                self._log_changes(egress)
            raise
        egress.succeeded(proxy, mono(), took_s)
        self._log_changes(egress)
        return stream

    async def _tunnel(self, host: str, port: int, proxy: Proxy | None) -> trio.abc.Stream:
        return await open_tunnel(host, port, proxy=proxy, dial=self.dial, timeout_s=self.timeout_s)

    async def _start_tls(
        self, stream: trio.abc.Stream, host: str, context: ssl.SSLContext | None, exit_: Exit
    ) -> trio.abc.Stream:
        if context is None:
            return stream
        where = f"{host}{exit_.through}"
        return await start_tls(stream, host, context, self.timeout_s, where=where)

    def _pool_of(self, exit_: Exit) -> Egress | None:
        """The pool that an exit is one of."""
        if self.egress is not None or self.environ_pools is None or exit_.proxy is None:
            return self.egress
        return self.environ_pools.get(exit_.proxy)

    async def _admit(self, exit_: Exit, still: Callable[[], bool]) -> bool:
        """Wait in the queue of those who dial.  Raises TunnelTimeout."""
        if self.dials is None:
            return True
        with trio.move_on_after(self.dial_wait_s):
            return await self.dials.take(exit_.name, still)
        problem = f"{exit_.name}: {self.dials} leaves no dial within {self.dial_wait_s:g} s"
        raise TunnelTimeout(problem, "dial budget")

    def _still(self, egress: Egress, proxy: Proxy, tried: set[Proxy]) -> Callable[[], bool]:
        return lambda: egress.choose(mono(), tried, self.lane) == proxy

    def _log_changes(self, egress: Egress) -> None:
        """Log what has changed of the pool: once per change, however many fail meanwhile."""
        for news in egress.news(mono()):
            log = _log.info if news.up else _log.warning
            why = {"reason": news.reason} if news.reason else {}
            log(news.event, proxy=news.address, problem=news.problem, **why)


@asynccontextmanager
async def _turn(egress: Egress, proxy: Proxy) -> AsyncIterator[None]:
    """One after the other, until somebody was let in."""
    turn = egress.turn_of(proxy)
    if turn is not None:
        await turn.acquire()
    try:
        if turn is not None and egress.turn_of(proxy) is None:
            turn.release()
            turn = None
        yield
    finally:
        if turn is not None:
            turn.release()
