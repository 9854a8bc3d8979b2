"""What the commands that ask a running service share: where it is, and how it is asked."""

import json
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import click
import trio

from ..environment import Environment, real_environment
from ..errors import NetworkError, RestRefused
from ..net.budgets import Weights
from ..net.rest import open_rest
from ..net.route import Route
from ..settings import ProxySettings
from .options import Refused

DEFAULT_URL = "http://127.0.0.1:8080"
_TIMEOUT_S = 10.0
_WHERE_ADMIN = (
    ": with server.admin_host set it is on the admin port only, such as --url http://127.0.0.1:9090"
    " (service.ready names it as urls.admin)"
)


def url_option(command: Any) -> Any:
    """``--url`` of the service."""
    return click.option(
        "--url",
        default=DEFAULT_URL,
        envvar="TRIO_FEED_URL",
        show_default=True,
        help="Of the running service (or TRIO_FEED_URL).",
    )(command)


def http_url(url: str) -> str:
    """``ws://host:1/ws``, ``host:1`` and ``http://host:1`` all mean the same service.  Raises
    Refused: a service has no path before its own."""
    text = url if "://" in url else f"http://{url}"
    parts = urlsplit(text)
    if parts.path.rstrip("/") not in ("", "/ws") or parts.query:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        raise Refused(f"--url {url}: {path} is too much; {parts.scheme}://{parts.netloc} is enough")
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}"


def websocket_url(url: str) -> str:
    """Of its push endpoint."""
    return f"ws{http_url(url).removeprefix('http')}/ws"


async def get(
    url: str, path: str, params: dict[str, str | int], environment: Environment | None = None
) -> Any:
    """The JSON that a running service answers.  Raises Refused with what to do."""
    environment = environment or real_environment()
    route = Route(environment.dial, ProxySettings(), None, "", _TIMEOUT_S)
    base = http_url(url)
    try:
        async with open_rest(
            base, route=route, timeout_s=_TIMEOUT_S, weights=Weights(6_000)
        ) as rest:
            answer = await rest.get(path, params)
    except NetworkError as error:
        text = " ".join(str(error).split())
        if isinstance(error, RestRefused) and error.status == 404:
            raise Refused(f"{base}{path}: {text}{_WHERE_ADMIN}") from None
        target = f"{path}?{urlencode(params, quote_via=quote)}" if params else path
        raise Refused(f"{base}{target}: {text} (is the service running? --url names it)") from None
    try:
        return json.loads(answer.body)
    except ValueError:
        raise Refused(
            f"{base}{path}: the answer is no JSON; is that a trio_feed service?"
        ) from None


async def wait_for_signal(done: trio.CancelScope) -> None:
    """Ctrl-C and SIGTERM end a command in order."""
    import signal

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            done.cancel()
