"""Valkey and Redis servers of a test's own, ended by the test; visibly skipped where there are
none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from scripts import valkey_server as servers
from scripts.valkey_server import KINDS, Kind, TlsFiles, ValkeyCluster, ValkeyServer
from trio_feed.bus.engine import make_engine
from trio_feed.errors import StartError
from trio_feed.settings import EngineSettings

__all__ = [
    "KINDS",
    "SECRET",
    "Kind",
    "TlsFiles",
    "ValkeyCluster",
    "ValkeyServer",
    "engine_of",
    "refused",
    "valkey_cluster",
    "valkey_server",
]

SECRET = "hunter2hunter2"


@contextmanager
def valkey_server(kind: Kind | None = None, **settings: Any) -> Iterator[ValkeyServer]:
    if why := servers.why_not(kind):
        pytest.skip(why)
    with servers.valkey_server(kind, **settings) as server:
        yield server


@contextmanager
def valkey_cluster(kind: Kind | None = None, **settings: Any) -> Iterator[ValkeyCluster]:
    if why := servers.why_not(kind):
        pytest.skip(why)
    with servers.valkey_cluster(kind, **settings) as cluster:
        yield cluster


def engine_of(*urls: str, **more: Any) -> EngineSettings:
    more = {"timeout_s": 0.5, **more}
    return EngineSettings("valkey", urls, **more)


async def refused(settings: EngineSettings, cluster: bytes = b"one") -> str:
    """The one line."""
    with pytest.raises(StartError) as raised:
        async with make_engine(settings, cluster):
            raise AssertionError("it was let in")
    line = str(raised.value)
    assert "\n" not in line
    assert SECRET not in line
    return line
