"""What ``check --connect`` prints, and its exit code."""

import json
import os
from collections.abc import Sequence
from typing import TextIO

import trio
from attrs import asdict

from ..environment import Environment, real_environment
from ..net.proxy import Proxy, choose_proxy, proxy_of
from ..net.urls import WebSocketUrl
from ..settings import ExchangeSettings, Settings
from ..venues import make_venue
from .probe import Probe, Step


def exits_of(settings: Settings, name: str, exchange: ExchangeSettings) -> Sequence[Proxy | None]:
    """Every way out that the settings give a venue; None: directly.  Raises SettingsError."""
    connection = exchange.connection
    enabled = [each for each in connection.proxies or [connection.proxy] if each.enabled]
    if enabled:
        return [proxy_of(each) for each in enabled]
    url = WebSocketUrl.parse(connection.websocket_url or make_venue(name, exchange).WEBSOCKET_URL)
    environ = os.environ if settings.proxy.from_env else None
    way = choose_proxy(connection.proxy, host=url.host, port=url.port, tls=url.tls, environ=environ)
    return [way]


def text_of(step: Step) -> str:
    """``  ok     41 ms  TLS            certificate by ...``."""
    mark = "ok  " if step.ok else "FAIL"
    lines = [f"  {mark} {step.took_ms:7.0f} ms  {step.name:<16} {step.detail}"]
    if step.advice:
        lines.append(f"{'':18}try: {step.advice}")
    return "\n".join(lines)


def connect_all(
    settings: Settings,
    out: TextIO,
    *,
    as_json: bool = False,
    environment: Environment | None = None,
) -> int:
    """Returns 0 where every venue can be reached by every exit, else 2."""
    return trio.run(probe_all, settings, out, as_json, environment or real_environment())


async def probe_all(
    settings: Settings, out: TextIO, as_json: bool, environment: Environment
) -> int:
    """One exit after the other, a line per step as it happens."""

    def say(step: Step) -> None:
        print(json.dumps(asdict(step)) if as_json else text_of(step), file=out, flush=True)

    failed = reached = 0
    for name, exchange in settings.exchanges.items():
        if not exchange.enabled:
            continue
        if settings.simulator.enabled and settings.simulator.venue == name:
            if not as_json:
                print(f"{name}: simulated, nothing to dial", file=out)
            continue
        for proxy in exits_of(settings, name, exchange):
            probe = Probe(make_venue(name, exchange), exchange, proxy, environment, say)
            if not as_json:
                print(f"{name} through {probe.exit}", file=out, flush=True)
            good = await probe.run()
            failed, reached = failed + (not good), reached + good
    if not as_json:
        print(f"{reached} of {reached + failed} ways lead to data", file=out)
    return 2 if failed else 0
