"""A PostgreSQL server of a test's own, ended by the test; visibly skipped where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from scripts import postgres_server as servers
from scripts.postgres_server import PostgresServer

__all__ = ["PostgresServer", "postgres_server"]


@contextmanager
def postgres_server(**settings: Any) -> Iterator[PostgresServer]:
    if why := servers.why_not():
        pytest.skip(why)
    with servers.postgres_server(**settings) as server:
        yield server
