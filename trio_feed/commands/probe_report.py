"""What ``check --connect`` prints, and its exit code."""

import json
import os
import shutil
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import TextIO

import trio
from attrs import asdict

from .. import logs
from ..bus.engine.opening import OpenWay, open_engine
from ..environment import Environment, real_environment
from ..net.proxy import Proxy, choose_proxy, proxy_of
from ..net.urls import WebSocketUrl
from ..settings import ExchangeSettings, Settings
from ..venues import make_venue
from .advice import idle_proxies
from .probe import Probe, Step
from .probe_shared import probe_databases, probe_engine

_NOTHING_BUT_SIMULATED = (
    "nothing was dialled: these settings are the simulated market; name yours with --config FILE"
    " (config/live.toml in a checkout), or write some with trio-feed init"
)


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


def text_of(step: Step, width: int) -> str:
    """``  ok     41 ms  TLS            certificate by ...``."""
    mark = "ok  " if step.ok else "FAIL"
    head = f"  {mark} {step.took_ms:7.0f} ms  "
    indent = " " * len(head)
    lines = [head + f"{step.name:<15} {step.detail}"]
    if not step.ok:  # a whole sentence
        lines = [head + step.name, indent + step.detail]
    if step.advice:
        lines.append(f"{indent}try: {step.advice}")
    wrap = partial(
        textwrap.fill,
        width=max(width, 60),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(wrap(line) for line in lines)


def connect_all(
    settings: Settings,
    out: TextIO,
    *,
    as_json: bool = False,
    watch_s: float = 0.0,
    environment: Environment | None = None,
) -> int:
    """Returns 0 where every venue can be reached by every exit, else 2 (also where there is nothing
    to dial)."""
    with logs.only_errors():  # the steps say what went wrong
        return trio.run(
            probe_all, settings, out, as_json, environment or real_environment(), watch_s
        )


async def probe_all(
    settings: Settings,
    out: TextIO,
    as_json: bool,
    environment: Environment,
    watch_s: float = 0.0,
    open_engine: OpenWay = open_engine,
) -> int:
    """One exit after the other, a line per step as it happens; then what nodes share."""

    width = shutil.get_terminal_size((100, 24)).columns

    def say(step: Step) -> None:
        text = json.dumps(asdict(step)) if as_json else text_of(step, width)
        print(text, file=out, flush=True)

    failed = reached = 0
    idle = idle_proxies(settings)
    simulated = False
    feeds = "ingest" in settings.node.roles
    for name, exchange in settings.exchanges.items():
        if not exchange.enabled:
            continue
        if not feeds:
            if not as_json:
                print(f"{name}: fed by other nodes, nothing to dial", file=out)
            continue
        if settings.simulator.enabled and settings.simulator.venue == name:
            simulated = True
            if not as_json:
                print(f"{name}: simulated, nothing to dial", file=out)
            continue
        for proxy in exits_of(settings, name, exchange):
            probe = Probe(
                make_venue(name, exchange), exchange, proxy, environment, say, watch_s,
                idle=name in idle,
            )  # fmt: skip
            if not as_json:
                print(f"{name} through {probe.exit}", file=out, flush=True)
            good = await probe.run()
            failed, reached = failed + (not good), reached + good
    shared = await probe_engine(settings, say, open_engine) & await probe_databases(settings, say)
    if not feeds:
        return 0 if shared else 2
    if not failed + reached:
        what = _NOTHING_BUT_SIMULATED if simulated else "no venue is enabled"
        print(
            json.dumps({"ok": False, "dialled": 0, "advice": what}) if as_json else what, file=out
        )
        return 2
    if not as_json:
        print(f"{reached} of {reached + failed} ways lead to data", file=out)
    return 0 if shared and not failed else 2
