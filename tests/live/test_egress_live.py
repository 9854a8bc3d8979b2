"""A pool of two proxies that we did not write (pproxy), of which one dies under a running service.

The audit hook of test_tunnel_live sees every connect and every name lookup of this process.
"""

from collections.abc import Sequence

import trio
from test_tunnel_live import (
    LOGIN,
    Certificates,
    Exchange,
    Pproxy,
    audited,
    certificates,
    check_echo,
    connected,
    exchange,
    pproxy,
)

from trio_feed.environment import real_environment
from trio_feed.errors import ConnectionLost, NetworkError, NoProxyAvailable
from trio_feed.net.egress import make_egress
from trio_feed.net.route import Route
from trio_feed.settings import ConnectionSettings, ProxySettings, Secret
from trio_feed.settings.exchanges import EgressSettings
from trio_feed.supervise import Backoff, supervise

__all__ = ["certificates"]  # a fixture


def pool_route(proxies: Sequence[tuple[str, Pproxy]], certificates: Certificates) -> Route:
    """As the settings would have it: every proxy wants LOGIN."""
    pool = tuple(
        ProxySettings(
            enabled=True,
            proxy_type=kind,  # type: ignore[arg-type]
            address=f"127.0.0.1:{proxy.port}",
            username=LOGIN[0],
            password=Secret(LOGIN[1]),
        )
        for kind, proxy in proxies
    )
    policy = EgressSettings(cool_down_min_s=0.3, cool_down_max_s=0.6)
    environment = real_environment()
    return Route(
        dial=environment.dial,
        proxy_settings=ProxySettings(),
        environ=None,
        ca_file=certificates.ca_file,
        timeout_s=3,
        egress=make_egress(ConnectionSettings(proxies=pool, egress=policy)),
    )


class Service:
    """Echoes through the pool for ever, the way the service supervises its connections."""

    def __init__(self, here: Exchange, way: Route) -> None:
        self.echoes = 0
        self.losses: list[NetworkError] = []
        self._here, self._way = here, way

    async def run(self) -> None:
        environment = real_environment()
        await supervise(
            self._attempt,
            backoff=Backoff(0.05, 0.1),
            chance=environment.random,
            on_lost=lambda error, _delay_s: self.losses.append(error),
        )

    async def goes_on(self) -> None:
        """Wait for echoes that were asked for after this call."""
        wanted = self.echoes + 3
        while self.echoes < wanted:
            await trio.sleep(0.01)

    async def waits(self) -> None:
        """Wait until it says that there is no proxy."""
        while not self.losses or not isinstance(self.losses[-1], NoProxyAvailable):
            await trio.sleep(0.01)

    async def _attempt(self) -> None:
        async with connected(self._here, self._way) as socket:
            while True:
                await check_echo(socket, f"echo {self.echoes}")
                self.echoes += 1
                await trio.sleep(0.01)


async def test_one_dies_the_service_goes_on_through_the_other(certificates: Certificates) -> None:
    with trio.fail_after(15):
        async with (
            exchange(certificates) as here,
            pproxy("http", LOGIN, certificates) as first,
            pproxy("socks5", LOGIN, certificates) as second,
        ):
            way = pool_route([("http", first), ("socks5", second)], certificates)
            service = Service(here, way)
            with audited() as audit:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(service.run)
                    await service.goes_on()
                    assert set(audit.connects) == {first.port}
                    await first.kill()
                    await service.goes_on()
                    assert [type(error) for error in service.losses] == [ConnectionLost]
                    assert here.accepted == 2  # one through each
                    await second.kill()
                    await service.waits()
                    assert here.accepted == 2  # it is alive and in reach, and yet
                    await first.start()
                    await service.goes_on()
                    nursery.cancel_scope.cancel()
            assert set(audit.connects) <= {first.port, second.port}
            assert "localhost" not in audit.lookups
            said = " ".join(map(str, service.losses))
            assert "never direct" in said
            assert "hunter2" not in f"{said} {way!r} {way.egress!r}"


async def test_a_proxy_that_wants_another_password_is_left_alone(
    certificates: Certificates,
) -> None:
    with trio.fail_after(15):
        async with (
            exchange(certificates) as here,
            pproxy("http", ("alice", "another"), certificates) as first,
            pproxy("socks5", LOGIN, certificates) as second,
        ):
            way = pool_route([("http", first), ("socks5", second)], certificates)
            with audited() as audit:
                for _ in range(3):
                    async with connected(here, way) as socket:
                        await check_echo(socket, "hello")
            assert audit.connects.count(first.port) == 1
            assert audit.connects.count(second.port) == 3
            assert set(audit.connects) == {first.port, second.port}
