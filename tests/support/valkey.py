"""Valkey and Redis servers of a test's own, ended by the test; visibly skipped where there are
none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from scripts import valkey_server as servers
from scripts.valkey_server import KINDS, Kind, ValkeyCluster, ValkeyServer

__all__ = ["KINDS", "Kind", "ValkeyCluster", "ValkeyServer", "valkey_cluster", "valkey_server"]


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
