"""A real dial to one venue by one exit, step by step, each with its time.

It goes the way that the service goes, with the service's own parts; only that nothing is tried
again: after a step that failed the later ones make no sense, and refused credentials are not shown
to a proxy a second time.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import trio
from attrs import evolve, frozen

from ..environment import Environment
from ..errors import BadMessage, NetworkError, SubscriptionRefused
from ..ingest.connection import open_stream
from ..ingest.instruments import fetch, parse
from ..net.budgets import Weights
from ..net.proxy import Proxy, join_address
from ..net.rest import Answer, open_rest
from ..net.route import Exit, Route
from ..net.tls import start_tls
from ..net.tunnel import open_tunnel
from ..net.websocket import Socket
from ..settings import ExchangeSettings, ProxySettings
from ..transactions import Transaction
from ..venues import Ack, AnyInstrument, Instruments, Kind, Plan, Stream, Venue
from .advice import advise_error

_FIRST_DATA_S = 15.0
_CLOCK_ODD_MS = 1_500.0
"""``Date`` has whole seconds: less is no difference."""
_T = TypeVar("_T")


@frozen
class Step:
    """What one step came to.  ``advice`` is empty where it went well."""

    venue: str
    exit: str
    name: str
    ok: bool
    took_ms: float
    detail: str = ""
    advice: str = ""


_ON_DEMAND = "BTCUSDT"
"""What is tried where no symbol is named, because clients ask for them."""


class Failed(Exception):
    """A step went wrong; the later ones are not tried."""

    def __init__(self, step: Step) -> None:
        super().__init__(step.detail)
        self.step = step


class Probe:
    """One venue by one exit.  ``proxy`` None: directly.  ``watch_s``: how long the messages are
    counted when all else went well.  ``idle``: a proxy is in the settings and not in force."""

    def __init__(
        self,
        venue: Venue,
        settings: ExchangeSettings,
        proxy: Proxy | None,
        environment: Environment,
        say: Callable[[Step], None],
        watch_s: float = 0.0,
        *,
        idle: bool = False,
    ) -> None:
        self._say, self._watch_s, self._idle = say, watch_s, idle
        self._venue, self._settings, self._proxy = venue, settings, proxy
        self._environment = environment
        self.exit = "direct" if proxy is None else f"{proxy.kind} proxy {proxy.name}"
        self._dialled_s: float | None = None
        connection = settings.connection
        self._url = connection.websocket_url or venue.WEBSOCKET_URL
        self._timeout_s = connection.tunnel_timeout_s
        self._route = Route(
            dial=environment.dial,
            proxy_settings=_settings_of(proxy),
            environ=None,
            ca_file=connection.ca_file,
            timeout_s=connection.tunnel_timeout_s,
            tls_strict=connection.tls_strict,
        )

    async def run(self) -> bool:
        """One step after the other, up to the first that fails; ``say`` hears of each.  Returns
        whether all went well."""
        try:
            await self._open()
            table: Instruments = AnyInstrument(self._venue.NAME, "token")
            if self._venue.LISTED:
                table = await self._rest()
            await self._websocket(table)
        except Failed as failed:
            self._say(failed.step)
            return False
        return True

    async def _open(self) -> None:
        parts = urlsplit(self._url)
        tls = parts.scheme == "wss"
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
        began = trio.current_time()
        name = "tunnel" if self._proxy else "dial"
        self._dialled_s = None
        try:
            stream, took_ms = await self._timed(name, self._tunnel(host, port))
        except Failed as failed:
            raise Failed(self._after_dial(failed.step, began)) from None
        try:
            if self._proxy is not None:
                step = self._step("tunnel", took_ms, f"to {host}:{port}")
                self._say(self._after_dial(step, began))
            else:
                self._note("dial", took_ms, f"{host}:{port}")
            if tls:
                issuers: list[str] = []
                stream, took_ms = await self._timed("TLS", self._start_tls(stream, host, issuers))
                self._note("TLS", took_ms, f"certificate by {issuers[0]}")
        finally:
            await trio.aclose_forcefully(stream)

    def _after_dial(self, step: Step, began_s: float) -> Step:
        """Says that the first proxy is reached, if it is; ``step``, without the time of that."""
        if self._proxy is None or self._dialled_s is None:
            return step
        first = (*self._proxy.via, self._proxy)[0]
        dialled_ms = round((self._dialled_s - began_s) * 1000, 1)
        self._note("proxy reached", dialled_ms, first.address)
        return evolve(step, took_ms=round(step.took_ms - dialled_ms, 1))

    async def _tunnel(self, host: str, port: int) -> trio.abc.Stream:
        async def dial(to: str, at: int) -> trio.abc.Stream:
            stream = await self._environment.dial(to, at)
            self._dialled_s = trio.current_time()
            return stream

        return await open_tunnel(
            host, port, proxy=self._proxy, dial=dial, timeout_s=self._timeout_s
        )

    async def _start_tls(
        self, stream: trio.abc.Stream, host: str, issuers: list[str]
    ) -> trio.abc.Stream:
        where = f"{host}{Exit(self._proxy).through}"
        opened = await start_tls(
            stream, host, self._route.tls_context(), self._timeout_s, where=where
        )
        issuers.append(issuer_of(opened.certificate()))
        return opened

    async def _rest(self) -> Instruments:
        """The venue's list: needed for the names of its streams, and a REST call like any."""
        connection, venue = self._settings.connection, self._venue
        weights = Weights(connection.rest_weight_per_minute, venue.BURST_S)
        answers: list[Answer] = []
        async with open_rest(
            connection.rest_url or venue.REST_URL,
            route=self._route,
            timeout_s=connection.rest_timeout_s,
            weights=weights,
            dialect=venue.DIALECT,
        ) as rest:
            copy, took_ms = await self._timed(
                "REST", fetch(venue, rest, self._environment.now_ms, answers.append)
            )
        table, _ms = await self._timed("REST", _now(lambda: parse(venue, copy)))
        left = weights.at(Exit(self._proxy).name)
        self._note("REST", took_ms, f"{len(table)} instruments; request weight: {left.text}")
        if answers and answers[-1].date_ms is not None:
            self._say(self._clock(answers[-1]))
        return table

    def _clock(self, answer: Answer) -> Step:
        """``Date`` is cut to whole seconds: half a second is added."""
        assert answer.date_ms is not None
        since_ms = (trio.current_time() - float(answer.received)) * 1000
        trip_ms = (float(answer.received) - float(answer.sent)) * 1000
        ours_ms = self._environment.now_ms() - since_ms - trip_ms / 2
        offset_ms = ours_ms - (answer.date_ms + 500)
        side = "ahead of" if offset_ms > 0 else "behind"
        text = f"this machine is {abs(offset_ms) / 1000:.1f} s {side} the exchange (to 0.5 s)"
        do = "set this machine's clock (NTP)" if abs(offset_ms) > _CLOCK_ODD_MS else ""
        return evolve(self._step("clock", trip_ms, text), advice=do)

    async def _websocket(self, table: Instruments) -> None:
        connection, venue = self._settings.connection, self._venue
        plan = self._plan(table)
        manager = open_stream(plan.url, venue, connection, self._route)
        began = trio.current_time()
        try:
            async with manager as socket:
                self._note("upgrade", _since_ms(began), urlsplit(plan.url).hostname or "")
                count = f"{len(plan.streams)} streams"
                if plan.subscribe:
                    took_ms = (
                        await self._timed("subscribe", self._subscribe(socket, plan, table))
                    )[1]
                    self._note("subscribe", took_ms, count)
                else:
                    self._note("subscribe", 0.0, f"{count}, in the URL")
                kind, took_ms = await self._timed("first data", self._first(socket, table))
                self._note("first data", took_ms, kind)
                if self._watch_s:
                    seen, took_ms = await self._timed("watched", self._watch(socket, table))
                    self._note("watched", took_ms, seen)
        except NetworkError as error:
            raise self._failed("upgrade", _since_ms(began), error) from None

    def _plan(self, table: Instruments) -> Plan:
        connection, venue, settings = self._settings.connection, self._venue, self._settings
        streams: list[Stream] = []
        missing = []
        for symbol in settings.named or (_ON_DEMAND,):
            instrument = table.of_symbol(symbol)
            if instrument is None:
                missing.append(symbol)
                continue
            streams.append(venue.stream(venue.TRADE_KIND, instrument))
            if Kind.KLINE in venue.KINDS:
                streams += [venue.stream(Kind.KLINE, instrument, i) for i in settings.intervals[:1]]
        if missing:
            error = SubscriptionRefused(f"not in the venue's list: {', '.join(missing)}")
            raise self._failed("subscribe", 0.0, error)
        base = connection.websocket_url or venue.WEBSOCKET_URL
        return venue.plan(base, streams, connection.streams_per_connection)[0]

    async def _subscribe(self, socket: Socket, plan: Plan, table: Instruments) -> None:
        """Raises SubscriptionRefused."""
        for frame in plan.subscribe:
            await trio.sleep(socket.send_delay_s(len(frame.acks)))
            await socket.send(frame.text, len(frame.acks))
        waiting = {name for frame in plan.subscribe for name in frame.acks}
        with trio.move_on_after(self._settings.connection.open_timeout_s):
            while waiting:
                for event in self._venue.parse(await socket.receive(), table):
                    if isinstance(event, Ack):
                        if event.error:
                            raise SubscriptionRefused(f"refused: {event.error}")
                        waiting.discard(event.name)
            return
        raise SubscriptionRefused(f"no answer to subscribing {', '.join(sorted(waiting)[:3])}")

    async def _first(self, socket: Socket, table: Instruments) -> str:
        with trio.move_on_after(_FIRST_DATA_S):
            while True:
                for event in self._venue.parse(await socket.receive(), table):
                    if isinstance(event, Transaction):
                        return "a transaction of the program"
                    if symbol := getattr(event, "symbol", ""):
                        return f"{type(event).__name__} of {symbol}"
        return f"nothing within {_FIRST_DATA_S:g} s: a quiet market, or silence in between"

    async def _watch(self, socket: Socket, table: Instruments) -> str:
        """Raises ConnectionLost."""
        messages = unreadable = 0
        beat = self._venue.HEARTBEAT
        with trio.move_on_after(self._watch_s):
            while True:
                raw: str | bytes = b""
                with trio.move_on_after(beat.after_s if beat else math.inf) as silence:
                    raw = await socket.receive()
                if silence.cancelled_caught:
                    assert beat is not None
                    await socket.send(beat.text)
                    continue
                messages += 1
                try:
                    self._venue.parse(raw, table)
                except BadMessage:
                    unreadable += 1
        rate = messages / self._watch_s
        return f"{messages:,} messages, {rate:,.1f} a second, {unreadable} unreadable"

    def _note(self, name: str, took_ms: float, detail: str) -> None:
        self._say(self._step(name, took_ms, detail))

    def _step(self, name: str, took_ms: float, detail: str) -> Step:
        return Step(self._venue.NAME, self.exit, name, True, round(took_ms, 1), detail)

    def _failed(self, name: str, took_ms: float, error: Exception) -> Failed:
        advice = advise_error(error, idle=self._idle)
        venue = self._venue.NAME
        do = advice.do.replace("<venue>", venue).replace("<VENUE>", venue.upper())
        step = Step(venue, self.exit, name, False, round(took_ms, 1), _line(error), do)
        return Failed(step if name not in ("tunnel", "dial") else evolve(step, name=advice.step))

    async def _timed(self, name: str, doing: Awaitable[_T]) -> tuple[_T, float]:
        """Raises Failed."""
        began = trio.current_time()
        try:
            done = await doing
        except (NetworkError, BadMessage) as error:
            raise self._failed(name, _since_ms(began), error) from None
        return done, _since_ms(began)


def _since_ms(began_s: float) -> float:
    return (trio.current_time() - began_s) * 1000


async def _now(make: Callable[[], _T]) -> _T:
    await trio.lowlevel.checkpoint()
    return make()


def _settings_of(proxy: Proxy | None) -> ProxySettings:
    if proxy is None:
        return ProxySettings()
    return ProxySettings(
        enabled=True,
        proxy_type=proxy.kind,
        address=join_address(proxy.host, proxy.port),
        username=proxy.username,
        password=proxy.password,
        ca_file=proxy.ca_file,
        tls_strict=proxy.tls_strict,
        via=tuple(_settings_of(hop) for hop in proxy.via),
    )


def issuer_of(certificate: Mapping[str, Any]) -> str:
    """Who signed it, of what ``ssl.SSLObject.getpeercert`` gives."""
    named = {name: str(value) for row in certificate.get("issuer", ()) for name, value in row}
    words = [named.get(name, "") for name in ("organizationName", "commonName")]
    text = " / ".join(dict.fromkeys(word for word in words if word))[:100]
    return "".join(c if c.isprintable() else " " for c in text) or "nobody that it names"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
