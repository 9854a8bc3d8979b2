"""A PostgreSQL server of one's own, for tests and benches: in a temporary folder, on a free port,
ended by its context.

Unless it is asked for, data are not synced to the disk (``fsync = off``): what a killed *process*
leaves behind is in the kernel, and tests kill no machine.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import define

from scripts.child import Child

USER = "feed"


def binaries() -> Path | None:
    """The folder that POSTGRES_BIN names, else that of the newest server that is installed."""
    if chosen := os.environ.get("POSTGRES_BIN"):
        return Path(chosen) if (Path(chosen) / "initdb").exists() else None
    named = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    return found[-1].parent if found else Path(named).parent if named else None


def _version(path: Path) -> int:
    name = path.parent.parent.name
    return int(name) if name.isdigit() else 0


def why_not() -> str:
    """What is missing here; empty: nothing."""
    if find_spec("psycopg") is None:
        return 'the extra "cluster" is not installed (pip install ".[cluster]")'
    if binaries() is None and (chosen := os.environ.get("POSTGRES_BIN")):
        return f"there is no initdb in {chosen} (POSTGRES_BIN)"
    if binaries() is None:
        return "no PostgreSQL server is installed (apt-get install postgresql)"
    return ""


@define
class PostgresServer:
    """One that can be stopped, killed and started again with its data."""

    folder: Path
    port: int
    fsync: bool = False
    _child: Child | None = None

    def url(self, database: str = "postgres", *, user: str = USER, password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Returns when it takes connections."""
        end = time.monotonic() + 30
        while True:
            # After a kill the old server's children need a moment to see that it is gone.
            child = self._child = Child.start(
                _program("postgres") + self._words(), self.folder / "log", self.folder,
                ended_by="INT", **_as_user(),
            )  # fmt: skip
            while child.runs:
                if self.takes_connections():
                    return
                assert time.monotonic() < end, self.log()
                time.sleep(0.05)
            child.stop()
            assert time.monotonic() < end, self.log()
            time.sleep(0.2)

    def _words(self) -> list[str]:
        chosen = {
            "listen_addresses": "127.0.0.1",
            "fsync": "on" if self.fsync else "off",
            "shared_buffers": "32MB",
            "max_connections": "60",
            "password_encryption": "scram-sha-256",  # which 13 does not do by itself
        }
        return [
            "-D", str(self.folder / "data"), "-p", str(self.port),
            "-k", str(self.folder), *(word for pair in chosen.items() for word in
                                      ("-c", "=".join(pair))),
        ]  # fmt: skip

    def takes_connections(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.Error:
            return False
        return True

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT: in order, and at once; SIGKILL: the power is out."""
        assert self._child is not None
        self._child.stop(how)

    def end(self) -> None:
        """Whatever state it is in."""
        if self._child is not None:
            self.stop()

    def pause(self, *, on: bool) -> None:
        """SIGSTOP, or SIGCONT, to all of its processes."""
        number = signal.SIGSTOP if on else signal.SIGCONT
        assert self._child is not None
        first = self._child.pid
        children = Path(f"/proc/{first}/task/{first}/children")
        for pid in (first, *map(int, children.read_text().split())):
            with suppress(ProcessLookupError):  # one whose client has gone
                os.kill(pid, number)

    def sql(self, *statements: str, database: str = "postgres") -> list[Any]:
        """Rows of the last one."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]


def _program(name: str) -> list[str]:
    folder = binaries()
    assert folder is not None
    return [str(folder / name)]


def _as_user() -> dict[str, Any]:
    """How ``Popen`` starts it: it refuses to run as root."""
    made: dict[str, Any] = {"env": {**os.environ, "LC_ALL": "C.UTF-8"}}
    if os.geteuid() == 0:
        owner = _owner()
        made |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    return made


def _owner() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("there is no user that a server could run as")


@contextmanager
def postgres_server(*, fsync: bool = False, parent: Path | None = None) -> Iterator[PostgresServer]:
    """One with its defaults, but for a small memory; ``parent``: where its folder is.  Raises
    RuntimeError: :func:`why_not`."""
    if why := why_not():
        raise RuntimeError(why)
    folder = Path(tempfile.mkdtemp(prefix="trio_feed_pg_", dir=parent))
    server = None
    try:
        if os.geteuid() == 0:
            os.chown(folder, _owner().pw_uid, _owner().pw_gid)
        subprocess.run(
            [*_program("initdb"), "-D", str(folder / "data"), "-U", USER, "--auth=trust",
             "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"],
            stdout=subprocess.DEVNULL, cwd=folder, timeout=60, check=True, **_as_user(),
        )  # fmt: skip
        server = PostgresServer(folder, _free_port(), fsync)
        server.start()
        yield server
    finally:
        if server is not None:
            server.end()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
