"""How bytes reach one venue: through its proxy, its pool, or directly; at a bounded rate."""

import ssl
from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

import trio
from attrs import field, frozen

from ..errors import (
    NetworkError,
    NoProxyAvailable,
    TlsNameMismatch,
    TlsReset,
    TlsUntrusted,
    TunnelError,
    TunnelTimeout,
)
from ..settings import ProxySettings
from ..world import Dial
from .egress import Egress
from .limits import DialBudget
from .proxy import Proxy, choose_proxy, join_address
from .tls import start_tls, tls_context
from .tunnel import open_tunnel

_TLS_ERRORS = (TlsNameMismatch, TlsReset, TlsUntrusted)  # of the proxy, before the tunnel is up


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
    lane: int = 0
    """Connections that shall not fall together have different ones: :meth:`Egress.choose`."""
    dials: DialBudget | None = None
    """Shared by all that dial this venue."""
    dial_wait_s: float = 60.0
    """Longest wait for ``dials`` in one call."""
    now_ms: Callable[[], float] | None = field(default=None, repr=False)
    """Unix milliseconds; needed by ``egress`` and ``dials``."""
    _through: WeakKeyDictionary[trio.abc.Stream, Proxy] = field(
        init=False, repr=False, eq=False, factory=WeakKeyDictionary
    )

    def __attrs_post_init__(self) -> None:
        if self.now_ms is None and (self.egress or self.dials):
            raise ValueError("a Route with a pool or a dial budget needs a clock")

    async def open(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """A stream to ``host:port``, inside verified TLS where ``tls``.  The caller closes it.

        Raises TunnelError, NoProxyAvailable where the pool has nothing left; SettingsError where a
        proxy variable or a CA file is unusable.
        """
        return await self._reach(host, port, tls, tls_context(self.ca_file) if tls else None)

    async def tunnel(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """As :meth:`open`, but TLS is left to the caller; ``tls`` only helps choose the proxy."""
        return await self._reach(host, port, tls, None)

    def blame(self, stream: trio.abc.Stream, error: NetworkError) -> None:
        """Tell the pool what became of a ``stream`` of ours after it was open: UpgradeRefused (a
        blocked region), a TLS error of the caller's.  Without a pool: nothing."""
        proxy = self._through.get(stream)
        if self.egress is not None and proxy is not None:
            self.egress.failed(proxy, self._now(), error)

    async def _reach(
        self, host: str, port: int, tls: bool, context: ssl.SSLContext | None
    ) -> trio.abc.Stream:
        if self.egress is not None:
            return await self._reach_through(self.egress, host, port, context)
        proxy = choose_proxy(
            self.proxy_settings, host=host, port=port, tls=tls, environ=self.environ
        )
        give_up_at = trio.current_time() + self.dial_wait_s
        while await self._must_wait(proxy.address if proxy else "direct", give_up_at):
            pass
        stream = await self._tunnel(host, port, proxy)
        return await self._start_tls(stream, host, context)

    async def _reach_through(
        self, egress: Egress, host: str, port: int, context: ssl.SSLContext | None
    ) -> trio.abc.Stream:
        tried: set[Proxy] = set()
        last: TunnelError | None = None
        give_up_at = trio.current_time() + self.dial_wait_s
        while proxy := egress.choose(self._now(), tried, self.lane):
            if await self._must_wait(proxy.address, give_up_at):
                continue  # and choose again: much may have happened
            tried.add(proxy)
            try:
                stream = await self._attempt(egress, proxy, host, port, context)
            except TunnelError as error:
                last = error
            else:
                self._through[stream] = proxy
                return stream
        now = self._now()
        if last is not None and egress.next_at_ms(now) <= now:
            raise last  # some of them are not to blame for it
        raise NoProxyAvailable(
            f"{join_address(host, port)}: {egress.explain(now)}", egress.next_at_ms(now)
        )

    async def _attempt(
        self, egress: Egress, proxy: Proxy, host: str, port: int, context: ssl.SSLContext | None
    ) -> trio.abc.Stream:
        """One try through one proxy, whose outcome the pool is told."""
        began, in_tls = trio.current_time(), False
        try:
            stream = await self._tunnel(host, port, proxy)
            began, in_tls = trio.current_time(), True
            stream = await self._start_tls(stream, host, context)
        except TunnelError as error:
            proxy_tls = not in_tls and isinstance(error, _TLS_ERRORS)
            egress.failed(proxy, self._now(), error, of_proxy=proxy_tls or None)
            raise
        except trio.Cancelled:  # a caller's own deadline must not hide a proxy that hangs
            waited_s = trio.current_time() - began
            if waited_s >= self.timeout_s / 2:
                problem = f"proxy {proxy.address}: the caller gave up after {waited_s:.1f} s"
                hung = TunnelTimeout(problem, "TLS handshake" if in_tls else "CONNECT")
                egress.failed(proxy, self._now(), hung)
            raise
        egress.succeeded(proxy, self._now())
        return stream

    async def _tunnel(self, host: str, port: int, proxy: Proxy | None) -> trio.abc.Stream:
        return await open_tunnel(host, port, proxy=proxy, dial=self.dial, timeout_s=self.timeout_s)

    async def _start_tls(
        self, stream: trio.abc.Stream, host: str, context: ssl.SSLContext | None
    ) -> trio.abc.Stream:
        return stream if context is None else await start_tls(stream, host, context, self.timeout_s)

    async def _must_wait(self, exit_: str, give_up_at: float) -> bool:
        """False: dial now, it is counted.  True: waited, ask again.  Raises TunnelTimeout."""
        delay_s = self.dials.delay_s(self._now(), exit_) if self.dials else 0.0
        if not delay_s:
            return False
        if trio.current_time() + delay_s > give_up_at:
            problem = f"{exit_}: {self.dials} leaves no dial within {self.dial_wait_s:g} s"
            raise TunnelTimeout(problem, "dial budget")
        await trio.sleep(delay_s)
        return True

    def _now(self) -> float:
        assert self.now_ms is not None
        return self.now_ms()
