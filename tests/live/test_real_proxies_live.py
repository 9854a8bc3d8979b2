"""Through proxies as people have them (squid, dante, tinyproxy, cntlm, shadowsocks): TLS WebSockets
to an exchange that is called by name.  The audit hook sees that nothing goes past them and that no
name is looked up here."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import real_proxies as real
import trio
from real_proxies import PASSWORD, USER, RealProxy
from test_tunnel_live import (
    Certificates,
    audited,
    certificates,
    check_echo,
    connected,
    exchange,
    fails_to_open,
)

from trio_feed.environment import real_environment
from trio_feed.errors import NoProxyAvailable, TunnelError
from trio_feed.net.egress import make_egress
from trio_feed.net.route import Route
from trio_feed.settings import ProxySettings, load

__all__ = ["certificates"]  # a fixture

CASES: dict[str, tuple[str, bool, Callable[[Path], Any]]] = {
    "squid": ("http", False, real.squid),
    "squid, basic": ("http", True, partial(real.squid, login="basic")),
    "squid, digest": ("http", True, partial(real.squid, login="digest")),
    "dante": ("socks5", False, real.dante),
    "tinyproxy": ("http", False, real.tinyproxy),
    "tinyproxy, basic": ("http", True, partial(real.tinyproxy, login="basic")),
    "cntlm": ("http", False, partial(real.cntlm, kind="http")),
    "cntlm, socks": ("socks5h", False, partial(real.cntlm, kind="socks5")),
    "v2ray": ("http", True, partial(real.v2ray, kind="http")),
    "v2ray, socks": ("socks5h", True, partial(real.v2ray, kind="socks")),
    "shadowsocks": ("socks5h", False, real.shadowsocks),
}


WANTING = [case for case, (_kind, login, _start) in CASES.items() if login]


def route(certificates: Certificates, proxies: str) -> Route:
    """As the settings say it: ``proxies`` is TOML."""
    settings = load(assignments=[f"exchanges.x.connection.proxies={proxies}"])
    egress = make_egress(settings.exchanges["x"].connection)
    return Route(real_environment().dial, ProxySettings(), None, certificates.ca_file, 10, egress)


def url(kind: str, proxy: RealProxy, password: str = "") -> str:
    login = f"{USER}:{password}@" if password else ""
    return f"{kind}://{login}127.0.0.1:{proxy.port}"


@pytest.mark.parametrize("case", CASES)
async def test_through_it_and_never_past_it(
    case: str, certificates: Certificates, tmp_path: Path
) -> None:
    kind, login, start = CASES[case]
    with trio.fail_after(60):
        async with exchange(certificates) as here, start(tmp_path / "a") as proxy:
            way = route(certificates, f"['{url(kind, proxy, PASSWORD * login)}']")
            with audited() as audit:
                for _ in range(2):  # a second one, with what was learnt of the first
                    async with connected(here, way) as socket:
                        await check_echo(socket, "hello")
                        await check_echo(socket, "x" * 300_000)
            assert set(audit.connects) == {proxy.port}
            assert "localhost" not in audit.lookups
            assert here.accepted == 2


@pytest.mark.parametrize("case", [*WANTING, "dante"])
async def test_wrong_credentials_are_said_and_not_tried_again(
    case: str, certificates: Certificates, tmp_path: Path
) -> None:
    kind, _login, start = CASES[case]
    if case == "dante":
        start = partial(real.dante, login="username")
    with trio.fail_after(60):
        async with exchange(certificates) as here, start(tmp_path / "a") as proxy:
            way = route(certificates, f"['{url(kind, proxy, 'hunter3')}']")
            with audited() as audit:
                error: TunnelError = await fails_to_open(here, way, NoProxyAvailable)
                tries = len(audit.connects)
                await fails_to_open(here, way, NoProxyAvailable)
            assert "our user name and password" in str(error)
            assert len(audit.connects) == tries <= 2  # Digest is asked for by a first refusal
            assert here.accepted == 0


async def test_an_exchange_that_is_away_is_not_dialled_directly(
    certificates: Certificates, tmp_path: Path
) -> None:
    async with exchange(certificates) as here:
        pass  # its port is closed again
    for case in ("squid", "dante", "tinyproxy"):
        kind, _login, start = CASES[case]
        with trio.fail_after(60):
            async with start(tmp_path / case) as proxy:
                way = route(certificates, f"['{url(kind, proxy)}']")
                with audited() as audit, pytest.raises(TunnelError):
                    async with connected(here, way):
                        pytest.fail("open")
                assert set(audit.connects) == {proxy.port}
                assert "localhost" not in audit.lookups


async def test_a_chain_of_three_that_we_did_not_write(
    certificates: Certificates, tmp_path: Path
) -> None:
    with trio.fail_after(60):
        async with (
            exchange(certificates) as here,
            real.squid(tmp_path / "a", login="basic") as first,
            real.dante(tmp_path / "b") as second,
            real.tinyproxy(tmp_path / "c", login="basic") as third,
        ):
            hops = [
                url("http", first, PASSWORD),
                url("socks5", second),
                url("http", third, PASSWORD),
            ]
            way = route(certificates, f"[{hops}]")
            with audited() as audit:
                async with connected(here, way) as socket:
                    await check_echo(socket, "hello")
            assert set(audit.connects) == {first.port}
            assert "localhost" not in audit.lookups


async def test_a_company_proxy_behind_cntlm(certificates: Certificates, tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with (
            exchange(certificates) as here,
            real.squid(tmp_path / "a") as parent,
            real.cntlm(tmp_path / "b", "http", parent.port) as proxy,
        ):
            way = route(certificates, f"['{url('http', proxy)}']")
            with audited() as audit:
                async with connected(here, way) as socket:
                    await check_echo(socket, "hello")
            assert set(audit.connects) == {proxy.port}
            assert "localhost" not in audit.lookups
