"""A PostgreSQL server of a test's own, ended by the test; visibly skipped where there is none.

``POSTGRES_URL``: a server that runs already, for tests that want no more than an empty schema.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts import postgres_server as servers
from scripts.postgres_server import PostgresServer

__all__ = ["PostgresServer", "postgres_server"]


class RunningServer(PostgresServer):
    """One of somebody else's, which is neither paused nor ended."""

    def url(self, database: str = "postgres", **_of_whom: str) -> str:
        return os.environ["POSTGRES_URL"]


@contextmanager
def postgres_server(**settings: Any) -> Iterator[PostgresServer]:
    if os.environ.get("POSTGRES_URL"):
        yield RunningServer(Path("/nowhere"), 0)
        return
    if why := servers.why_not():
        pytest.skip(why)
    with servers.postgres_server(**settings) as server:
        yield server
